from __future__ import annotations

from random import Random

import pytest

from streamproc.rtsp import CLOCK_HZ, Picture, Treatment
from streamproc.simulate.condition import Condition
from streamproc.simulate.faults import Change, FaultKind


class Camera:
    """A camera at a frame a second, by an injected clock."""

    def __init__(self) -> None:
        self.now_s = 0
        self.condition = Condition(Random(7), clock=lambda: self.now_s)

    def begin(self, kind: str) -> None:
        self._change(Change(at_s=0, camera="gate", kind=FaultKind(kind), how="begins"))

    def end(self, kind: str) -> None:
        self._change(Change(at_s=0, camera="gate", kind=FaultKind(kind), how="ends"))

    def show(self, *, keyframe: bool = False) -> Picture | None:
        self.now_s += 1
        return self.condition.picture(
            Picture(
                codec="h264",
                keyframe=keyframe,
                packets=(),
                payload_bytes=0,
                timestamp=self.now_s * CLOCK_HZ,
                captured_utc_ns=self.now_s * 10**9,
            )
        )

    def _change(self, change: Change) -> None:
        self.condition.change(change)


@pytest.fixture
def camera() -> Camera:
    return Camera()


def test_a_healthy_camera_is_left_alone(camera: Camera) -> None:
    picture = camera.show()
    assert picture is not None
    assert (picture.timestamp, picture.captured_utc_ns) == (CLOCK_HZ, 10**9)
    assert camera.condition.request() is Treatment.ANSWER
    assert all(camera.condition.datagram() for _ in range(1000))


@pytest.mark.parametrize(
    ("kind", "treatment"),
    [
        ("refuse", Treatment.CUT),
        ("reboot", Treatment.CUT),
        ("hang", Treatment.IGNORE),
        ("password", Treatment.DENY),
        ("stall", Treatment.ANSWER),
    ],
)
def test_how_requests_are_treated_until_it_ends(camera: Camera, kind: str, treatment: Treatment) -> None:
    camera.begin(kind)
    assert camera.condition.request() is treatment
    camera.begin(kind)
    camera.end(kind)
    assert camera.condition.request() is treatment, "two that overlap"
    camera.end(kind)
    assert camera.condition.request() is Treatment.ANSWER


def test_after_a_stall_it_goes_on_with_a_keyframe(camera: Camera) -> None:
    camera.begin("stall")
    assert camera.show(keyframe=True) is None
    camera.end("stall")
    assert [camera.show(keyframe=keyframe) is not None for keyframe in (False, True, False)] == [False, True, True]


def test_some_datagrams_are_lost(camera: Camera) -> None:
    camera.begin("loss")
    assert 900 < sum(camera.condition.datagram() for _ in range(1000)) < 1000


def test_timestamps_jump_hours_ahead_and_back_and_the_clock_with_them(camera: Camera) -> None:
    camera.begin("jump")
    pictures = [camera.show() for _ in range(60)]
    ahead_s = set[int]()
    for now_s, picture in enumerate(pictures, start=1):
        assert picture is not None
        ahead = picture.timestamp - now_s * CLOCK_HZ
        assert picture.captured_utc_ns - now_s * 10**9 == ahead * 10**9 // CLOCK_HZ
        ahead_s.add(ahead // CLOCK_HZ)
    assert 0 in ahead_s
    assert len(ahead_s) > 5
    assert all(one == 0 or 3600 <= one < 6 * 3600 for one in ahead_s)
    camera.end("jump")
    picture = camera.show()
    assert picture is not None
    assert picture.timestamp == camera.now_s * CLOCK_HZ


def test_a_camera_that_has_rebooted_counts_from_elsewhere(camera: Camera) -> None:
    camera.begin("reboot")
    camera.end("reboot")
    first, second = camera.show(), camera.show()
    assert first is not None
    assert second is not None
    assert first.timestamp != CLOCK_HZ
    assert second.timestamp - first.timestamp == CLOCK_HZ
    assert first.captured_utc_ns == 10**9
