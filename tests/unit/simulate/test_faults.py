from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import ConfigError
from streamproc.simulate import Fault, FaultKind, parse_faults
from streamproc.simulate.faults import changes

CAMERAS = ["gate", "yard"]


def fault(camera: str, kind: str, at_s: float, lasts_s: float | None) -> Fault:
    return Fault(camera=camera, kind=FaultKind(kind), at_s=at_s, lasts_s=lasts_s)


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("gate/stall:30@10s", [fault("gate", "stall", 10, 30)]),
        ("gate/refuse:5s@20", [fault("gate", "refuse", 20, 5)]),
        ("loss", [fault("gate", "loss", 0, None), fault("yard", "loss", 0, None)]),
        ("yard/jump@0.5", [fault("yard", "jump", 0.5, None)]),
        ("drop@3", [fault("gate", "drop", 3, 0), fault("yard", "drop", 3, 0)]),
        ("yard/reboot", [fault("yard", "reboot", 0, 5)]),
        ("yard/reboot:2.5", [fault("yard", "reboot", 0, 2.5)]),
    ],
)
def test_what_is_asked_for(spec: str, meant: list[Fault]) -> None:
    assert parse_faults([spec], CAMERAS) == meant


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "found ''; expected [CAMERA/]KIND[:SECONDS][@AT], where KIND is one of refuse, drop, stall, hang"),
        ("stal:30", "found 'stal:30'; expected [CAMERA/]KIND"),
        ("stall:-3", "For example: gate/stall:30@10s"),
        ("stall@1m", "expected [CAMERA/]KIND"),
        ("stall:30@10s ", "expected [CAMERA/]KIND"),
        ("stall:٣", "expected [CAMERA/]KIND"),
        ("door/stall", "expected a camera of gate, yard"),
        ("drop:3", "expected drop without SECONDS"),
        ("stall:0@3", "expected SECONDS above 0"),
        ("reboot:0", "expected SECONDS above 0"),
    ],
)
def test_what_cannot_be_understood(spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_faults(["gate/stall", spec], CAMERAS)
    assert said in str(caught.value)
    assert "1 problem" in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="2 problems"):
        parse_faults(["nonsense", "drop", "door/drop"], CAMERAS)


@given(
    st.sampled_from([*CAMERAS, None]),
    st.sampled_from([kind for kind in FaultKind if kind is not FaultKind.DROP]),
    st.integers(1, 10**9),
    st.integers(0, 10**9),
)
def test_any_camera_kind_and_times(camera: str | None, kind: FaultKind, lasts_ms: int, at_ms: int) -> None:
    lasts_s, at_s = lasts_ms / 1000, at_ms / 1000
    spec = f"{camera}/{kind}:{lasts_s}@{at_s}s" if camera else f"{kind}:{lasts_s}s@{at_s}"
    names = CAMERAS if camera is None else [camera]
    assert parse_faults([spec], CAMERAS) == [fault(name, kind, at_s, lasts_s) for name in names]


def test_changes_come_in_time_and_ends_before_beginnings() -> None:
    faults = parse_faults(["yard/hang:10@10", "gate/stall:5@5", "yard/drop@2", "gate/loss@12"], CAMERAS)
    assert [(change.at_s, str(change)) for change in changes(faults)] == [
        (2, "yard drop happens"),
        (5, "gate stall begins"),
        (10, "gate stall ends"),
        (10, "yard hang begins"),
        (12, "gate loss begins"),
        (20, "yard hang ends"),
    ]
