from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.sinks.carry import Past
from streamproc.types import Detections, Frame, FrameResult, Picture

SIZE = (640, 360)
Box = tuple[float, float, float, float]


def frame(pts_s: float, *, size: tuple[int, int] = SIZE, captured_s: float | None = None) -> Frame:
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    planes = (np.zeros((height, width), np.uint8), np.zeros(half, np.uint8), np.zeros(half, np.uint8))
    captured_ns = round((pts_s if captured_s is None else captured_s) * 1e9)
    return Frame(
        camera="gate",
        seq=round(pts_s * 24),
        pts_s=pts_s,
        captured_ns=captured_ns,
        captured_utc_ns=captured_ns,
        live=True,
        picture=Picture(planes=planes, layout="yuv420p"),
    )


def result(of: Frame, boxes: Sequence[Box], tracks: Sequence[int] | None = None) -> FrameResult:
    count = len(boxes)
    detections = Detections.of(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.arange(count, dtype=np.int64) % 2,
        np.array(range(1, count + 1) if tracks is None else tracks, np.int64),
    )
    return FrameResult(frame=of, detections=detections, labels=("person", "car"), model="m")


def moving(times_s: Sequence[float], *, track: int = 7, tremble_px: float = 0) -> Past:
    """Somebody 20 x 60 who goes right at 100 and down at 20 pixels a second, seen at these times."""
    rng = np.random.default_rng(1)
    past = Past()
    for time_s in times_s:
        box = place(time_s) + rng.normal(0, tremble_px, 4) if tremble_px else place(time_s)
        past = past.then(result(frame(time_s), [tuple(box.tolist())], [track]))
    return past


def place(time_s: float) -> NDArray[np.float64]:
    return np.array([100, 50, 120, 110]) + time_s * np.array([100, 20, 100, 20])


@pytest.mark.parametrize("step_s", [1 / 60, 1 / 24, 1 / 8, 1 / 2])
@pytest.mark.parametrize("ahead_s", [1 / 24, 0.5, 1.0])
def test_a_tracked_object_moves_on_and_keeps_its_size(step_s: float, ahead_s: float) -> None:
    times = [index * step_s for index in range(20)]
    past = moving(times[: round(1.6 / step_s)])
    last_s = times[: round(1.6 / step_s)][-1]
    carried = past.carried_to(frame(last_s + ahead_s))
    assert carried.frame.pts_s == last_s + ahead_s
    assert (carried.labels, carried.model) == (("person", "car"), "m")
    assert carried.detections.boxes.dtype == np.float32
    np.testing.assert_allclose(carried.detections.boxes, [place(last_s + ahead_s)], atol=0.05)
    assert carried.detections.track_ids.tolist() == [7]
    assert carried.detections.confidence.tolist() == [np.float32(0.9)]


def test_keypoints_move_on_with_their_object() -> None:
    past = moving([index / 24 for index in range(23)])
    last = result(frame(23 / 24), [tuple(place(23 / 24).tolist())], [7])
    points = np.array([[[130, 90, 0.7], [140, 100, 0.2]]], np.float32)
    past = past.then(replace(last, detections=replace(last.detections, keypoints=points)))
    carried = past.carried_to(frame(23 / 24 + 0.5)).detections.keypoints
    assert carried is not None
    np.testing.assert_allclose(carried, points + np.array([50, 10, 0], np.float32), atol=0.05)


def test_a_trembling_box_moves_on_smoothly() -> None:
    past = moving([index / 24 for index in range(24)], tremble_px=1.5)
    last = past.carried_to(frame(23 / 24)).detections.boxes[0]
    ahead = past.carried_to(frame(23 / 24 + 0.25)).detections.boxes[0]
    np.testing.assert_allclose(ahead - last, place(0.25) - place(0), atol=3)


def test_somebody_who_stopped_is_not_carried_past_where_they_stand() -> None:
    past = moving([index / 24 for index in range(24)])
    still = place(23 / 24)
    for index in range(24, 36):
        past = past.then(result(frame(index / 24), [tuple(still.tolist())], [7]))
    np.testing.assert_allclose(past.carried_to(frame(36 / 24)).detections.boxes, [still], atol=1)


def test_what_is_not_tracked_or_was_seen_once_stays_where_it_was() -> None:
    boxes: list[Box] = [(10, 10, 30, 40), (50, 10, 70, 40)]
    moved: list[Box] = [(20, 10, 40, 40), (60, 10, 80, 40)]
    past = Past().then(result(frame(0), boxes, [0, 1])).then(result(frame(0.1), moved, [0, 2]))
    np.testing.assert_array_equal(past.carried_to(frame(0.5)).detections.boxes, np.array(moved, np.float32))


def test_only_what_the_last_result_shows_is_carried() -> None:
    past = moving([0, 0.1, 0.2]).then(result(frame(0.3), [(300, 50, 320, 110)], [8]))
    assert past.carried_to(frame(0.4)).detections.track_ids.tolist() == [8]
    assert len(past.then(result(frame(0.4), [])).carried_to(frame(0.5)).detections) == 0


def test_an_object_that_comes_back_goes_on_by_all_it_was_seen() -> None:
    past = (
        moving([0, 0.1, 0.2]).then(result(frame(0.3), [])).then(result(frame(0.4), [tuple(place(0.4).tolist())], [7]))
    )
    np.testing.assert_allclose(past.carried_to(frame(0.5)).detections.boxes, [place(0.5)], atol=0.05)


def test_nothing_is_carried_for_more_than_a_second() -> None:
    past = moving([0, 0.1, 0.2])
    assert len(past.carried_to(frame(1.2)).detections) == 1
    assert len(past.carried_to(frame(1.21)).detections) == 0
    assert len(past.carried_to(frame(0.3, captured_s=1.3)).detections) == 0
    assert len(Past().carried_to(frame(0)).detections) == 0


def test_a_pause_begins_anew_also_where_media_time_steps_over_it() -> None:
    past = moving([0, 0.1, 0.2]).then(result(frame(0.3, captured_s=9), [tuple(place(0.9).tolist())], [7]))
    np.testing.assert_allclose(past.carried_to(frame(0.5, captured_s=9.2)).detections.boxes, [place(0.9)])


def test_another_picture_size_begins_anew() -> None:
    past = moving([0, 0.1, 0.2])
    large = (1280, 720)
    assert len(past.carried_to(frame(0.3, size=large)).detections) == 0
    past = past.then(result(frame(0.3, size=large), [tuple(place(0.9).tolist())], [7]))
    np.testing.assert_allclose(past.carried_to(frame(0.5, size=large)).detections.boxes, [place(0.9)])


def test_what_leaves_the_picture_is_clipped_and_then_gone() -> None:
    past = Past()
    for index in range(5):
        past = past.then(result(frame(index / 10), [(540 + 10 * index, 50, 600 + 10 * index, 110)]))
    clipped = past.carried_to(frame(0.4 + 0.5)).detections.boxes
    np.testing.assert_allclose(clipped, [(630, 50, 640, 110)], atol=0.05)
    assert len(past.carried_to(frame(0.4 + 0.7)).detections) == 0


def test_a_past_is_a_value() -> None:
    past = moving([0, 0.1, 0.2])
    before = past.carried_to(frame(0.3)).detections.boxes
    past.then(result(frame(0.25), []))
    np.testing.assert_array_equal(past.carried_to(frame(0.3)).detections.boxes, before)


def test_what_is_kept_is_bounded_also_where_timestamps_stand_still() -> None:
    past = Past()
    for _ in range(1000):
        past = past.then(result(frame(0), [(10, 10, 30, 40)]))
    assert len(past._sightings) == 32
    np.testing.assert_allclose(past.carried_to(frame(1)).detections.boxes, [(10, 10, 30, 40)], atol=0.01)


SIDE = st.floats(0, 640, width=32)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1.5),
            st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE, st.integers(0, 3)), max_size=4, unique_by=lambda row: row[4]),
        ),
        max_size=8,
    ),
    st.floats(-0.5, 1.5),
)
def test_carried_boxes_are_always_in_the_picture(
    steps: list[tuple[float, list[tuple[float, float, float, float, int]]]], ahead_s: float
) -> None:
    past, time_s = Past(), 0.0
    for step_s, rows in steps:
        time_s += step_s
        past = past.then(result(frame(time_s), [row[:4] for row in rows], [row[4] for row in rows]))
    carried = past.carried_to(frame(time_s + ahead_s)).detections
    assert np.isfinite(carried.boxes).all()
    assert (carried.boxes[:, 2:] > carried.boxes[:, :2]).all()
    assert (carried.boxes >= 0).all()
    assert (carried.boxes <= np.array(SIZE * 2)).all()
    assert not steps or len(carried) <= len(steps[-1][1])
