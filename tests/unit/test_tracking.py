"""Identities on made-up motion, where the right answer is known; and the scorer that judges them on real motion."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from trackers import BIoU, BoTSORTTracker, ByteTrackTracker, OCSORTTracker

from streamproc.tracking import Algorithm, CameraTracker, _BoxMotion
from tests.scoring import FrameBoxes, box_iou, score_tracking

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
FPS = 24

Path = Callable[[float], tuple[float, float]]  # the centre of an object at a time, in pixels and seconds


def boxes_at(paths: Iterable[Path], time_s: float, side: float = 80.0) -> NDArray[np.float32]:
    centres = np.array([path(time_s) for path in paths], dtype=np.float32).reshape(-1, 2)
    half = np.array([side / 2, side], dtype=np.float32)
    return np.hstack([centres - half, centres + half])


def line(x: float, y: float, vx: float, vy: float = 0.0) -> Path:
    return lambda time_s: (x + vx * time_s, y + vy * time_s)


def feed(tracker: CameraTracker, boxes: NDArray[np.float32], time_s: float, confidence: float = 0.9) -> list[int]:
    count = len(boxes)
    ids = tracker.update(boxes, np.full(count, confidence, np.float32), np.zeros(count, np.int64), time_s)
    assert ids.dtype == np.int64
    assert ids.shape == (count,)
    return [int(v) for v in ids]


def run(tracker: CameraTracker, paths: Sequence[Path], times_s: Iterable[float], side: float = 80.0) -> list[list[int]]:
    return [feed(tracker, boxes_at(paths, time_s, side), time_s) for time_s in times_s]


def frames(seconds: float, fps: float = FPS, start_s: float = 0.0) -> list[float]:
    return [start_s + i / fps for i in range(round(seconds * fps))]


def kept_half(times_s: Sequence[float], seed: int) -> list[float]:
    keep = np.random.default_rng(seed).random(len(times_s)) < 0.5
    return [time_s for time_s, kept in zip(times_s, keep, strict=True) if kept]


# --- motion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_velocities_are_those_of_the_tracks_in_pixels_a_second(algorithm: Algorithm) -> None:
    tracker = CameraTracker(algorithm)
    assert tracker.velocities().shape == (0, 2)
    paths = [line(100, 200, 60, -30), line(600, 200, 0, 90)]
    for time_s in kept_half(frames(2.0), 1):
        boxes = np.vstack([boxes_at(paths, time_s)[::-1], np.full((1, 4), np.nan, np.float32)])
        feed(tracker, boxes, time_s)
    velocities = tracker.velocities()
    assert velocities.dtype == np.float32
    np.testing.assert_allclose(velocities, [[0, 90], [60, -30], [0, 0]], atol=2)
    np.testing.assert_array_equal(tracker.velocities(), velocities, "asking changes nothing")
    feed(tracker, boxes_at([line(300, 300, 0)], time_s + 1 / FPS), time_s + 1 / FPS)
    np.testing.assert_array_equal(tracker.velocities(), [[0, 0]], "what was seen once has no velocity yet")
    feed(tracker, boxes_at([], time_s + 2 / FPS), time_s + 2 / FPS)
    assert tracker.velocities().shape == (0, 2)


# --- ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ids_start_at_one_in_every_instance_even_interleaved(algorithm: Algorithm) -> None:
    earlier = CameraTracker(algorithm)
    run(earlier, [line(100, 200, 20), line(600, 200, 20)], frames(1.0))
    first, second = CameraTracker(algorithm), CameraTracker(algorithm)
    for time_s in frames(0.5):
        ids_first = feed(first, boxes_at([line(100, 200, 30), line(500, 200, 30)], time_s), time_s)
        ids_second = feed(second, boxes_at([line(300, 300, -30)], time_s), time_s)
    assert sorted(ids_first) == [1, 2]
    assert ids_second == [1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("confidence", "detections"), [(0.9, 2), (0.75, 2), (0.4, 3)])
def test_a_clear_object_has_an_id_at_its_second_detection_a_faint_one_at_its_third(
    algorithm: Algorithm, confidence: float, detections: int
) -> None:
    tracker = CameraTracker(algorithm)
    feed(tracker, boxes_at([], 0.0), 0.0)  # BoT-SORT makes the very first frame's tracks public at once
    given = [feed(tracker, boxes_at([line(100, 200, 60)], t), t, confidence)[0] for t in frames(0.25, FPS, 1 / FPS)]
    assert given.index(1) + 1 <= detections
    assert set(given[given.index(1) :]) == {1}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_flicker_never_gets_an_id(algorithm: Algorithm) -> None:
    tracker = CameraTracker(algorithm)
    ids = [feed(tracker, boxes_at([line(200.0 * (i % 5), 200, 0)], t), t)[0] for i, t in enumerate([0.0, 0.04, 0.08])]
    assert ids[1:] == [0, 0]


def test_detections_below_the_activation_confidence_start_no_track() -> None:
    tracker = CameraTracker(activation_confidence=0.5)
    assert {feed(tracker, boxes_at([line(100, 200, 10)], t), t, 0.45)[0] for t in frames(1.0)} == {0}


@pytest.mark.parametrize("algorithm", ["bytetrack", "botsort"])
def test_a_faint_detection_continues_a_track(algorithm: Algorithm) -> None:
    tracker = CameraTracker(algorithm, activation_confidence=0.5)
    run(tracker, [line(100, 200, 30)], frames(0.5))
    assert feed(tracker, boxes_at([line(100, 200, 30)], 0.5), 0.5, confidence=0.3) == [1]


def test_a_changing_class_keeps_the_id() -> None:
    tracker = CameraTracker()
    for i, time_s in enumerate(frames(0.5)):
        ids = tracker.update(
            boxes_at([line(100, 200, 50)], time_s), np.array([0.9], np.float32), np.array([i % 2]), time_s
        )
    assert ids.tolist() == [1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ids_come_in_the_order_of_the_input(algorithm: Algorithm) -> None:
    tracker = CameraTracker(algorithm)
    paths = [line(100 + 200 * i, 200, 25) for i in range(6)]
    known = run(tracker, paths, frames(0.5))[-1]
    order = [3, 0, 5, 1, 4, 2]
    shuffled = feed(tracker, boxes_at(paths, 0.5)[order], 0.5)
    assert shuffled == [known[i] for i in order]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_input_gives_the_same_ids(algorithm: Algorithm) -> None:
    paths = [line(100 + 90 * i, 200 + 5 * i, 60 * (-1) ** i) for i in range(8)]
    times_s = kept_half(frames(4.0), seed=1)
    assert run(CameraTracker(algorithm), paths, times_s) == run(CameraTracker(algorithm), paths, times_s)


def test_the_resolution_does_not_matter() -> None:
    paths = [line(100 + 90 * i, 200 + 5 * i, 60 * (-1) ** i) for i in range(8)]
    large: list[Path] = [lambda t, p=p: (4 * p(t)[0], 4 * p(t)[1]) for p in paths]  # type: ignore[misc]
    times_s = kept_half(frames(4.0), seed=2)
    assert run(CameraTracker(), paths, times_s) == run(CameraTracker(), large, times_s, side=320.0)


# --- motion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", range(4))
def test_people_who_cross_keep_their_ids_with_half_the_frames_lost(algorithm: Algorithm, seed: int) -> None:
    paths = [line(100, 200, 120), line(700, 210, -120)]  # side by side at 2.5 s
    times_s = kept_half(frames(5.0), seed)
    ids = run(CameraTracker(algorithm), paths, times_s)
    assert {tuple(sorted(i)) for i in ids[4:]} == {(1, 2)}
    assert ids[-1] == ids[4]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fps", [24, 10, 5])
def test_a_walker_keeps_the_id_at_every_frame_rate(algorithm: Algorithm, fps: float) -> None:
    ids = run(CameraTracker(algorithm), [line(50, 200, 150)], frames(4.0, fps))
    assert {i[0] for i in ids[2:]} == {1}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_somebody_fast_is_picked_up_at_a_low_frame_rate(algorithm: Algorithm) -> None:
    ids = run(CameraTracker(algorithm), [line(50, 200, 275)], frames(3.0, 5))  # a step is 0.7 of a box's width
    assert {i[0] for i in ids[2:]} == {1}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ids_survive_bursts_of_lost_frames(algorithm: Algorithm) -> None:
    times_s = [t for t in frames(6.0) if t % 1.0 < 0.5]
    ids = run(CameraTracker(algorithm), [line(50, 200, 100), line(900, 320, -100)], times_s)
    assert {tuple(i) for i in ids[3:]} == {tuple(ids[3])}
    assert sorted(ids[3]) == [1, 2]


def test_a_walker_who_turns_round_keeps_the_id() -> None:
    there_and_back: Path = lambda t: (100 + 150 * (t if t < 2 else 4 - t), 200)  # noqa: E731 - a Path like the others
    ids = run(CameraTracker(), [there_and_back], kept_half(frames(4.0), seed=3))
    assert {i[0] for i in ids[2:]} == {1}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_hidden_object_keeps_its_id_until_the_track_is_given_up(algorithm: Algorithm) -> None:
    for hidden_s, expected in ((1.2, 1), (1.7, 2)):
        tracker = CameraTracker(algorithm)
        run(tracker, [line(100, 200, 40)], frames(1.0))
        run(tracker, [], frames(hidden_s, start_s=1.0))
        again = run(tracker, [line(100, 200, 40)], frames(0.25, start_s=1.0 + hidden_s))
        assert again[-1] == [expected]


# --- time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("start_s", [-1e6, 0.0, 1e-9, 3600.0, 1.8e9])
def test_time_may_begin_anywhere(algorithm: Algorithm, start_s: float) -> None:
    assert run(CameraTracker(algorithm), [line(100, 200, 0)], frames(0.25, start_s=start_s))[-1] == [1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("jump_s", [-3600.0, -10.0, 5.1, 1e9])
def test_after_a_jump_in_time_everybody_is_new(algorithm: Algorithm, jump_s: float) -> None:
    tracker = CameraTracker(algorithm)
    run(tracker, [line(100, 200, 0), line(400, 200, 0)], frames(1.0))
    after = run(tracker, [line(100, 200, 0)], frames(0.5, start_s=1.0 + jump_s))
    assert after[-1] == [3]
    if algorithm != "botsort":  # which makes the tracks of a first frame public at once
        assert after[0] == [0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("step_s", [0.0, -0.04, -1.0])
def test_standing_or_slightly_backward_time_keeps_the_ids(algorithm: Algorithm, step_s: float) -> None:
    tracker = CameraTracker(algorithm)
    run(tracker, [line(100, 200, 0)], frames(1.0))
    last_s = 1.0 - 1 / FPS
    assert feed(tracker, boxes_at([line(100, 200, 0)], 1.0), last_s + step_s) == [1]
    assert run(tracker, [line(100, 200, 0)], frames(0.5, start_s=1.0 + step_s))[-1] == [1]


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_no_number_is_refused(time_s: float) -> None:
    tracker = CameraTracker()
    run(tracker, [line(100, 200, 0)], frames(0.5))
    with pytest.raises(ValueError, match="time_s: expected a finite media time"):
        feed(tracker, boxes_at([], 0.0), time_s)
    assert feed(tracker, boxes_at([line(100, 200, 0)], 0.0), 0.55) == [1]


# --- input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_frames_without_detections(algorithm: Algorithm) -> None:
    tracker = CameraTracker(algorithm)
    assert run(tracker, [], frames(0.25)) == [[]] * 6
    assert run(tracker, [line(100, 200, 0)], frames(0.25, start_s=0.25))[-1] == [1]
    assert run(tracker, [], frames(3.0, start_s=0.5))[-1] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_impossible_boxes_get_no_id_and_do_no_harm(algorithm: Algorithm) -> None:
    tracker = CameraTracker(algorithm)
    impossible = np.array(
        [[math.nan, 0, 10, 10], [0, 0, math.inf, 10], [50, 50, 50, 90], [90, 90, 50, 50]], dtype=np.float32
    )
    for time_s in frames(0.5):
        ids = feed(tracker, np.vstack([impossible, boxes_at([line(300, 200, 40)], time_s)]), time_s)
    assert ids == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("boxes", "confidence", "class_ids"), [((2, 4), 1, 2), ((2, 4), 2, 1), ((2, 5), 2, 2), ((4,), 4, 4)]
)
def test_mismatched_input_is_refused(boxes: tuple[int, ...], confidence: int, class_ids: int) -> None:
    with pytest.raises(ValueError, match="of one length"):
        CameraTracker().update(
            np.zeros(boxes, np.float32), np.zeros(confidence, np.float32), np.zeros(class_ids, np.int64), 0.0
        )


coordinate = st.one_of(st.integers(0, 4).map(lambda i: 50.0 * i), st.sampled_from([math.nan, math.inf, -1e9]))
detection = st.tuples(
    coordinate, coordinate, st.sampled_from([30.0, 60.0, 0.0]), st.sampled_from([0.05, 0.3, 0.6, 1.0])
)
step = st.sampled_from([1 / 24, 1 / 24, 0.2, 0.0, -0.02, 2.0, -100.0])


@settings(max_examples=60, deadline=None)
@given(
    algorithm=st.sampled_from(ALGORITHMS),
    scene=st.lists(st.tuples(st.lists(detection, max_size=5), step), max_size=25),
)
def test_ids_are_unique_in_a_frame_and_issued_one_after_another(
    algorithm: Algorithm, scene: list[tuple[list[tuple[float, float, float, float]], float]]
) -> None:
    tracker = CameraTracker(algorithm)
    time_s, issued = 0.0, 0
    for detections, step_s in scene:
        time_s += step_s
        table = np.array(detections, dtype=np.float32).reshape(-1, 4)
        boxes = np.column_stack([table[:, :2], table[:, :2] + table[:, 2:3]])
        ids = tracker.update(boxes, table[:, 3], np.zeros(len(table), np.int64), time_s)
        given_out = ids[ids > 0]
        assert len(np.unique(given_out)) == len(given_out)
        assert (ids >= 0).all()
        assert not ids[~(np.isfinite(boxes).all(axis=1) & (table[:, 2] > 0))].any()
        fresh = sorted(given_out[given_out > issued].tolist())
        assert fresh == list(range(issued + 1, issued + 1 + len(fresh)))
        issued += len(fresh)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_memory_stays_bounded_over_ten_thousand_frames(algorithm: Algorithm) -> None:
    tracker = CameraTracker(algorithm)
    size_at: list[int] = []
    for frame in range(10_000):
        # Every half second the object in view is another one, elsewhere, and now and then one is seen but once.
        present = [line(100 + 211 * (frame // 12) % 1500, 200, 0)] + [line(frame % 1900, 800, 0)] * (frame % 7 == 0)
        ids = feed(tracker, boxes_at(present, 0.0), frame / FPS)
        if frame % 1000 == 999:
            size_at.append(len(pickle.dumps(tracker)))
    assert ids[0] >= 10_000 // 12 - 1
    assert max(size_at) < 1.3 * size_at[0]


# --- what is relied on in the library -----------------------------------------------------------------------------


def library_trackers(**options: Any) -> list[ByteTrackTracker | OCSORTTracker | BoTSORTTracker]:
    return [ByteTrackTracker(**options), OCSORTTracker(**options), BoTSORTTracker(enable_cmc=False, **options)]


def one_detection(x: float = 0.0) -> sv.Detections:
    return sv.Detections(
        xyxy=np.array([[x, 0.0, x + 30, 70.0]]), confidence=np.array([0.9]), data={"row": np.array([7])}
    )


def test_the_library_counts_ids_in_each_instance_and_carries_row_numbers() -> None:
    for _ in range(2):
        for tracker in library_trackers():
            for i in range(6):
                tracked = tracker.update(one_detection(), timestamp=i / 25)
            assert tracked.tracker_id is not None
            assert tracked.tracker_id.tolist() == [0]
            assert np.asarray(tracked.data["row"]).tolist() == [7]
            assert [track.tracker_id for track in tracker.tracks] == [0]


def test_the_library_keeps_lost_tracks_by_the_clock() -> None:
    for tracker in library_trackers(lost_track_buffer=45, frame_rate=1.0):
        for i in range(6):
            tracker.update(one_detection(), timestamp=i / 25)
        tracker.update(sv.Detections.empty(), timestamp=0.2 + 1.45)
        assert len(tracker.tracks) == 1
        tracker.update(sv.Detections.empty(), timestamp=0.2 + 1.55)
        assert len(tracker.tracks) == 0


def test_the_library_lets_the_estimator_and_the_overlap_be_chosen() -> None:
    steps_s: list[float] = []

    class Spied(_BoxMotion):
        def predict(self, frame_step: float = 1.0, frame_rate: float | None = None) -> None:
            steps_s.append(frame_step)
            super().predict(frame_step, frame_rate)

    overlap = BIoU(0.0)
    for tracker in library_trackers(state_estimator_class=Spied, iou=overlap, frame_rate=1.0):
        tracker.update(one_detection(), timestamp=0.0)
        motion: Any = tracker.tracks[0].state_estimator
        assert isinstance(motion, Spied)
        assert motion.kf.noise == pytest.approx(0.06**2 * 30 * 70)  # not what the library's tracker asked for
        tracker.update(one_detection(), timestamp=0.25)
        assert steps_s.pop() == pytest.approx(0.25)  # seconds
    apart = np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([[11.0, 0.0, 21.0, 10.0]])
    assert overlap.compute(*apart)[0, 0] == 0
    overlap.buffer_ratio = 0.5
    assert overlap.compute(*apart)[0, 0] > 0.2


# --- the scorer ---------------------------------------------------------------------------------------------------


def frame(*objects: tuple[int, float], ignore: Sequence[bool] | None = None) -> FrameBoxes:
    """Objects (id, x) of 10 by 10 pixels at (x, 0)."""
    return FrameBoxes(
        ids=np.array([identity for identity, _ in objects], dtype=np.int64),
        boxes=np.array([[x, 0, x + 10, 10] for _, x in objects], dtype=np.float64).reshape(-1, 4),
        ignore=None if ignore is None else np.array(ignore, dtype=np.bool_),
    )


def test_overlap_of_touching_empty_and_equal_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [5, 0, 15, 10], [3, 3, 3, 3]], dtype=np.float32)
    expected = np.array([[1, 0, 1 / 3, 0], [0, 1, 1 / 3, 0], [1 / 3, 1 / 3, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(box_iou(boxes, boxes), expected)
    assert box_iou(boxes, boxes[:0]).shape == (4, 0)


def test_a_switch_costs_once_in_mota_and_all_its_frames_in_idf1() -> None:
    truth = [frame((1, 0))] * 4
    score = score_tracking(truth, [frame((5, 0))] * 2 + [frame((6, 0))] * 2)
    assert score.id_switches == 1
    assert score.mota == pytest.approx(3 / 4)
    assert score.idf1 == pytest.approx(2 * 2 / 8)
    assert (score.precision, score.recall, score.f1) == (1.0, 1.0, 1.0)


def test_a_pair_stays_matched_though_another_fits_better() -> None:
    truth = [frame((1, 0)), frame((1, 0))]
    score = score_tracking(truth, [frame((5, 0)), frame((6, 0), (5, 2))])
    assert score.id_switches == 0
    assert score.mota == pytest.approx(1 - 1 / 2)


def test_misses_and_false_alarms() -> None:
    score = score_tracking([frame((1, 0), (2, 50))] * 2, [frame((7, 0), (8, 200))] * 2)
    assert score.mota == pytest.approx(1 - 4 / 4)
    assert score.idf1 == pytest.approx(2 * 2 / 8)
    assert score.precision == score.recall == score.f1 == 0.5


def test_ignored_objects_are_neither_demanded_nor_punished() -> None:
    truth = [frame((1, 0), (2, 50), ignore=[False, True])] * 3
    for predicted in ([frame((7, 0))] * 3, [frame((7, 0), (8, 51))] * 3):
        score = score_tracking(truth, predicted)
        assert (score.idf1, score.mota, score.precision) == (1.0, 1.0, 1.0)
    assert score_tracking(truth, [frame((7, 0), (8, 90))] * 3).precision == 0.5


def test_scores_of_nothing() -> None:
    empty = [frame()] * 2
    assert score_tracking(empty, empty).mota == score_tracking(empty, empty).idf1 == 1.0
    assert score_tracking([frame((1, 0))] * 2, empty).f1 == 0.0
    assert score_tracking(empty, [frame((1, 0))] * 2).mota == 0.0


def test_the_scorer_refuses_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="as many predicted as truth"):
        score_tracking([frame()], [])
    with pytest.raises(ValueError, match="no id twice"):
        frame((1, 0), (1, 50))
