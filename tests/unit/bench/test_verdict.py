"""What breaks a budget, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from streamproc.bench.measured import figures_of
from streamproc.bench.samples import CameraSecond
from streamproc.bench.verdict import Verdict, disturbance, judge
from tests.trials import a_record, a_second


def verdict(cameras: Mapping[str, CameraSecond], *, cores: float = 1.0, expected_fps: float | None = None) -> Verdict:
    """Ten seconds, all like this, after one of warm-up, on a machine of two cores."""
    figures = figures_of(a_record(11, lambda _: cameras, cores=cores), warm_up=1)
    return judge(figures, max_age_ms=100, cores=2, expected_fps=lambda _: expected_fps)


def test_holds() -> None:
    kept = verdict({"gate": a_second(24, 99.0), "yard": a_second(99, overload=2)}, cores=2.0, expected_fps=24)
    assert kept.holds
    assert str(kept) == "holds"


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        ({"gate": a_second(24, 130.0)}, "p95 age 130 ms, above 100"),
        ({"gate": a_second(0, late=24)}, "nothing was published within 100 ms"),
        ({"gate": a_second(0, state="offline (refused)")}, "gate is offline (refused)"),
        (
            {"gate": a_second(), "yard": a_second(97, stale=2, overload=1)},
            "yard published 97.0 % of its frames (overload 10, stale 20)",
        ),
        (
            {"gate": a_second(9, stale=1), "yard": a_second(8, stale=2)},
            "2 cameras lost too many frames: yard published 80.0 % of its frames (stale 20)",
        ),
        ({"gate": a_second(), "yard": a_second(0)}, "yard published 0.0 % of its frames (none came)"),
    ],
)
def test_breaks(cameras: Mapping[str, CameraSecond], said: str) -> None:
    broken = verdict(cameras)
    assert not broken.holds
    assert said in str(broken)
    assert "processor" not in str(broken)
    assert "the processor is busy (1.95 of 2 cores)" in str(verdict(cameras, cores=1.95))


def test_other_work_is_named() -> None:
    figures = figures_of(a_record(11, lambda _: {"gate": a_second(24, 130.0)}, cores=1.0, others=0.9), warm_up=1)
    assert "up to 0.90 of 2 cores busy" in disturbance([figures], 2)[0]
    assert disturbance([figures], 32) == disturbance([], 2) == ()
    said = str(judge(figures, max_age_ms=100, cores=2, expected_fps=lambda _: None))
    assert said == "p95 age 130 ms, above 100; the processor is busy (1.90 of 2 cores, 0.90 with other work)"


def test_a_file_in_slow_motion_breaks_it() -> None:
    slow = {"gate": a_second(20), "yard": a_second(24)}
    assert str(verdict(slow, expected_fps=24)) == "gate was read at 20.0 instead of 24 FPS"
    assert verdict(slow).holds


def test_a_frame_at_either_end_does_not() -> None:
    assert verdict({"gate": a_second(5)}, expected_fps=5.2).holds
