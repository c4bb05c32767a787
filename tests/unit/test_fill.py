"""What is published for frames that are not inferred: where their objects should be, and in which order."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.fill import Filler, Outlook
from streamproc.types import Detections, Frame, FrameResult, Picture

MS = 1_000_000
S = 1_000_000_000
FPS = 24
SIZE = (320, 240)


def frame(seq: int, camera: str = "gate", *, size: tuple[int, int] = SIZE, live: bool = True) -> Frame:
    width, height = size
    half = np.zeros((height // 2, width // 2), np.uint8)
    picture = Picture(planes=(np.zeros((height, width), np.uint8), half, half), layout="yuv420p")
    at_ns = seq * S // FPS
    return Frame(
        camera=camera, seq=seq, pts_s=at_ns / S, captured_ns=at_ns, captured_utc_ns=at_ns, live=live, picture=picture
    )


def result(frame: Frame, *boxes: tuple[float, float, float, float], ids: tuple[int, ...] = (7,)) -> FrameResult:
    boxes = boxes or ((10, 20, 50, 100),)
    detections = Detections.of(
        np.array(boxes, np.float32),
        np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        np.arange(len(boxes), dtype=np.int64),
        np.array(ids, np.int64),
    )
    return FrameResult(frame=frame, detections=detections, labels=("person", "car"), model="m")


def moving(*velocities: tuple[float, float]) -> NDArray[np.float32]:
    return np.array(velocities or [(24.0, -48.0)], np.float32)


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def filler(max_age_ms: float = 1e6) -> Filler:
    return Filler(max_age_ms=max_age_ms, monotonic_ns=Clock())


def seqs(due: list[FrameResult]) -> list[tuple[int, bool]]:
    return [(each.frame.seq, each.predicted) for each in due]


# --- where objects should be --------------------------------------------------------------------------------------


def outlook(*, ids: tuple[int, ...] = (7,)) -> Outlook:
    boxes = ((10, 20, 50, 100), (100, 20, 140, 100))[: len(ids)]
    velocities = moving((24, -48), (0, 0))[: len(ids)]
    return Outlook(result=result(frame(10), *boxes, ids=ids), velocities=velocities)


def test_a_track_moves_on_and_keeps_size_class_and_confidence() -> None:
    predicted = outlook().at(frame(13))
    assert predicted is not None
    assert predicted.predicted
    assert (predicted.frame.seq, predicted.model, predicted.labels) == (13, "m", ("person", "car"))
    np.testing.assert_allclose(predicted.detections.boxes, [[13, 14, 53, 94]], atol=1e-4)
    assert predicted.detections.track_ids.tolist() == [7]
    assert predicted.detections.class_ids.tolist() == [0]
    assert predicted.detections.confidence.tolist() == pytest.approx([0.9])


def test_keypoints_move_on_with_their_track() -> None:
    seen = outlook(ids=(0, 8)).result
    points = np.array([[[10, 20, 0.9]], [[110, 30, 0.8]]], np.float32)
    seen = replace(seen, detections=replace(seen.detections, keypoints=points))
    predicted = Outlook(result=seen, velocities=moving((24, -48), (24, -48))).at(frame(13))
    assert predicted is not None
    assert predicted.detections.keypoints is not None
    np.testing.assert_allclose(predicted.detections.keypoints, [[[113, 24, 0.8]]], atol=1e-4)


def test_what_has_no_track_is_not_expected_anywhere() -> None:
    predicted = outlook(ids=(0, 8)).at(frame(11))
    assert predicted is not None
    assert predicted.detections.track_ids.tolist() == [8]


def test_boxes_are_clipped_and_what_has_left_the_picture_is_gone() -> None:
    there = Outlook(
        result=result(frame(0), (10, 20, 50, 100), (250, 20, 300, 60), ids=(1, 2)),
        velocities=moving((-60, 0), (100, 0)),
    )
    half = there.at(frame(12))
    assert half is not None
    np.testing.assert_allclose(half.detections.boxes, [[0, 20, 20, 100], [300, 20, 320, 60]], atol=1e-4)
    late = there.at(frame(24))
    assert late is not None
    assert len(late.detections) == 0


def test_nothing_is_said_of_a_frame_a_second_later_or_of_another_size() -> None:
    assert outlook().at(frame(34)) is not None
    assert outlook().at(frame(35)) is None
    assert outlook().at(replace(frame(12), captured_ns=3 * S)) is None, "media time stepped over a pause"
    assert outlook().at(frame(12, size=(640, 480))) is None


# --- in which order ------------------------------------------------------------------------------------------------


def test_a_frame_waits_for_the_results_of_those_before_it() -> None:
    between = filler()
    assert seqs(between.around(result(frame(0)), moving())) == [(0, False)]
    for seq in (2, 3, 5):
        between.not_inferred(frame(seq))
    due = between.around(result(frame(1)), moving((240, 0)))
    assert seqs(due) == [(1, False), (2, True), (3, True)]
    np.testing.assert_allclose(due[2].detections.boxes, [[30, 20, 70, 100]], atol=1e-4)
    assert seqs(between.around(result(frame(4)), moving())) == [(4, False), (5, True)]


def test_what_comes_before_a_result_follows_from_the_one_before_that() -> None:
    between = filler()
    between.around(result(frame(0)), moving((240, 0)))
    between.not_inferred(frame(1))
    due = between.around(result(frame(2), (0, 0, 9, 9)), moving((0, 0)))
    assert seqs(due) == [(1, True), (2, False)]
    np.testing.assert_allclose(due[0].detections.boxes, [[20, 20, 60, 100]], atol=1e-4)


def test_a_camera_has_no_predictions_before_its_first_result() -> None:
    between = filler()
    between.not_inferred(frame(0))
    between.not_inferred(frame(2))
    assert seqs(between.around(result(frame(1)), moving())) == [(1, False)]
    between.not_inferred(frame(3))
    assert seqs(between.around(result(frame(0, "yard")), moving())) == [(0, False)], "3 waits for 2, told of too early"
    assert seqs(between.around(result(frame(4)), moving())) == [(3, True), (4, False)]


def test_a_frame_without_objects_is_predicted_when_none_were_seen() -> None:
    between = filler()
    empty = replace(result(frame(0)), detections=result(frame(0)).detections.where(np.array([False])))
    between.around(empty, np.zeros((0, 2), np.float32))
    between.not_inferred(frame(1))
    (predicted,) = between.around(result(frame(0, "yard")), moving())[:1]
    assert (predicted.frame.seq, len(predicted.detections)) == (1, 0)


def test_what_is_too_old_or_not_live_is_not_filled_in() -> None:
    clock = Clock()
    between = Filler(max_age_ms=100, monotonic_ns=clock)
    between.around(result(frame(0)), moving())
    for seq in (1, 2, 3, 4):
        between.not_inferred(frame(seq, live=seq != 4))
    clock.now_ns = 2 * S // FPS + 101 * MS
    assert seqs(between.around(result(frame(5)), moving())) == [(3, True), (5, False)]


def test_cameras_do_not_wait_for_one_another() -> None:
    between = filler()
    for camera in ("gate", "yard"):
        between.around(result(frame(0, camera)), moving())
    between.not_inferred(frame(2, "gate"))
    between.not_inferred(frame(1, "yard"))
    due = between.around(result(frame(1, "gate")), moving())
    assert [(each.frame.camera, each.frame.seq) for each in due] == [("yard", 1), ("gate", 1), ("gate", 2)]


def test_an_engine_that_hangs_breaks_no_order() -> None:
    """Too many frames wait for frame 1: those that find no room are not filled in."""
    between = filler()
    between.around(result(frame(0)), moving())
    for seq in range(2, 102):
        between.not_inferred(frame(seq))
    due = seqs(between.around(result(frame(1)), moving()))
    assert due[0] == (1, False)
    assert due[1:] == [(seq, True) for seq in range(2, len(due) + 1)]
    assert seqs(between.around(result(frame(102)), moving())) == [(102, False)]
    between.not_inferred(frame(103))
    assert seqs(between.around(result(frame(104)), moving())) == [(103, True), (104, False)]


def test_a_camera_whose_numbers_begin_anew_begins_anew() -> None:
    between = filler()
    between.around(result(frame(100)), moving())
    between.not_inferred(frame(101))
    assert seqs(between.around(result(frame(3)), moving())) == [(101, True), (3, False)]
    between.not_inferred(frame(4))
    assert seqs(between.around(result(frame(5)), moving())) == [(4, True), (5, False)]


def test_no_pixels_are_kept() -> None:
    between = filler()
    inferred, told = frame(0), frame(2)
    pictures = [weakref.ref(each.picture.planes[0]) for each in (inferred, told)]
    between.around(result(inferred), moving())
    between.not_inferred(told)
    del inferred, told
    gc.collect()
    assert [picture() for picture in pictures] == [None, None]
    predicted = between.around(result(frame(1)), moving())[1]
    assert predicted.frame.picture.size == SIZE


async def test_frames_are_told_of_on_any_thread_until_the_end() -> None:
    between = filler()
    between.around(result(frame(0)), moving())

    def told() -> None:
        for seq in range(1, 20):
            between.not_inferred(frame(seq))
        between.close()
        between.not_inferred(frame(20))

    telling = asyncio.create_task(asyncio.to_thread(told))
    due = [each async for some in between.predictions() for each in some]
    await telling
    assert seqs(due) == [(seq, True) for seq in range(1, 20)]


@given(st.lists(st.sampled_from(["infer", "drop", "result", "lose"]), max_size=22))
def test_whenever_it_is_known_what_becomes_of_frames_all_of_them_come_out_in_order(events: list[str]) -> None:
    between = filler()
    out = seqs(between.around(result(frame(0)), moving()))
    in_flight: list[int] = []
    came = 1
    for event in (*events, *["result"] * len(events)):
        if event in ("infer", "drop"):
            if event == "infer":
                in_flight.append(came)
            else:
                between.not_inferred(frame(came))
            came += 1
        elif in_flight and event == "result":
            out += seqs(between.around(result(frame(in_flight.pop(0))), moving()))
        elif in_flight:
            between.not_inferred(frame(in_flight.pop()))
    out += seqs(between.around(result(frame(came)), moving()))
    assert [seq for seq, _ in out] == list(range(came + 1))
