"""Identities on real motion: the MOT15 detections of two street scenes, whole and with frames lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import supervision as sv
from numpy.typing import NDArray
from trackers import BoTSORTTracker, ByteTrackTracker, OCSORTTracker

from streamproc.tracking import Algorithm, CameraTracker
from tests.scoring import FrameBoxes, TrackingScore, score_tracking

pytestmark = pytest.mark.shared_data

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
SEQUENCES = ("TUD-Campus", "TUD-Stadtmitte")
FPS = 25
SEEDS = range(20)

# The ids of one frame's detections, 0 where there is none.
Update = Callable[[NDArray[np.float32], NDArray[np.float32], float], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotFrame:
    """A frame's true objects, and what a detector found in it."""

    truth: FrameBoxes
    boxes: NDArray[np.float32]
    confidence: NDArray[np.float32]


@pytest.fixture(scope="module")
def sequences(shared_data: Path) -> dict[str, list[MotFrame]]:
    return {name: read_mot(shared_data / "mot" / name) for name in SEQUENCES}


def read_mot(folder: Path) -> list[MotFrame]:
    """Columns: frame from 1, id, left, top, width, height, confidence."""
    truth, found = (np.loadtxt(folder / name, delimiter=",") for name in ("gt.txt", "det.txt"))
    frames = []
    for number in range(1, int(truth[:, 0].max()) + 1):
        true_rows, found_rows = truth[truth[:, 0] == number], found[found[:, 0] == number]
        frames.append(
            MotFrame(
                truth=FrameBoxes(ids=true_rows[:, 1].astype(np.int64), boxes=to_xyxy(true_rows)),
                boxes=to_xyxy(found_rows),
                confidence=found_rows[:, 6].astype(np.float32),
            )
        )
    return frames


def to_xyxy(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.hstack([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]]).astype(np.float32)


def ours(algorithm: Algorithm = "bytetrack") -> Update:
    tracker = CameraTracker(algorithm)
    return lambda boxes, confidence, time_s: tracker.update(boxes, confidence, np.zeros(len(boxes), np.int64), time_s)


def library_alone(algorithm: Algorithm = "bytetrack") -> Update:
    """The library with its defaults, and with time stamps."""
    tracker: ByteTrackTracker | OCSORTTracker | BoTSORTTracker
    if algorithm == "bytetrack":
        tracker = ByteTrackTracker(frame_rate=FPS)
    elif algorithm == "ocsort":
        tracker = OCSORTTracker(frame_rate=FPS)
    else:
        tracker = BoTSORTTracker(frame_rate=FPS, enable_cmc=False)

    def update(boxes: NDArray[np.float32], confidence: NDArray[np.float32], time_s: float) -> NDArray[np.int64]:
        detections = sv.Detections(xyxy=boxes, confidence=confidence, data={"row": np.arange(len(boxes))})
        tracked = tracker.update(detections, timestamp=time_s)
        ids = np.zeros(len(boxes), dtype=np.int64)
        if tracked.tracker_id is not None and len(tracked) > 0:
            ids[np.asarray(tracked.data["row"])] = tracked.tracker_id + 1
        return ids

    return update


def track(update: Update, frames: Sequence[MotFrame], kept: Iterable[int]) -> tuple[list[FrameBoxes], list[FrameBoxes]]:
    """The truth and the tracks of the frames kept."""
    truth, predicted = [], []
    for index in kept:
        frame = frames[index]
        ids = update(frame.boxes, frame.confidence, index / FPS)
        truth.append(frame.truth)
        predicted.append(FrameBoxes(ids=ids[ids > 0], boxes=frame.boxes[ids > 0]))
    return truth, predicted


def score(update: Update, frames: Sequence[MotFrame], kept: Iterable[int] | None = None) -> TrackingScore:
    return score_tracking(*track(update, frames, range(len(frames)) if kept is None else kept))


def every_second_by_chance(count: int, seed: int) -> list[int]:
    return np.flatnonzero(np.random.default_rng(seed).random(count) < 0.5).tolist()


def bursts_lost(count: int, seed: int) -> list[int]:
    """Runs of 0.2-0.5 s are lost, 0.3-1.2 s apart, as under overload."""
    random = np.random.default_rng(seed)
    kept: list[int] = []
    start = 0
    while start < count:
        end = start + int(random.integers(8, 31))
        kept += range(start, min(end, count))
        start = end + int(random.integers(5, 14))
    return kept


def at_10_fps(count: int, seed: int) -> list[int]:
    return sorted({int(2.5 * i + 0.5 * (seed % 5)) for i in range(count)} & set(range(count)))


def at_5_fps(count: int, seed: int) -> list[int]:
    return list(range(seed % 5, count, 5))


def kept_share(
    algorithm: Algorithm, sequences: dict[str, list[MotFrame]], lose: Callable[[int, int], list[int]]
) -> float:
    """Mean IDF1 with frames lost, as a share of the mean IDF1 with none lost."""
    whole = [score(ours(algorithm), frames).idf1 for frames in sequences.values()]
    lossy = [
        score(ours(algorithm), frames, lose(len(frames), seed)).idf1 for frames in sequences.values() for seed in SEEDS
    ]
    return float(np.mean(lossy) / np.mean(whole))


@pytest.mark.parametrize("name", SEQUENCES)
def test_bytetrack_is_better_than_the_library_alone(sequences: dict[str, list[MotFrame]], name: str) -> None:
    mine, theirs = score(ours(), sequences[name]), score(library_alone(), sequences[name])
    assert mine.idf1 >= theirs.idf1 + 0.03
    assert mine.mota >= theirs.mota


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_better_than_the_library_alone_with_half_the_frames_lost(
    sequences: dict[str, list[MotFrame]], algorithm: Algorithm
) -> None:
    mean_idf1 = [
        np.mean(
            [
                score(make(algorithm), frames, every_second_by_chance(len(frames), seed)).idf1
                for frames in sequences.values()
                for seed in SEEDS
            ]
        )
        for make in (ours, library_alone)
    ]
    assert mean_idf1[0] >= mean_idf1[1] + 0.02


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_identities_outlast_the_loss_of_half_the_frames(
    sequences: dict[str, list[MotFrame]], algorithm: Algorithm
) -> None:
    assert kept_share(algorithm, sequences, every_second_by_chance) >= 0.93


@pytest.mark.parametrize("lose", [bursts_lost, at_10_fps, at_5_fps])
def test_identities_outlast_bursts_and_low_frame_rates(
    sequences: dict[str, list[MotFrame]], lose: Callable[[int, int], list[int]]
) -> None:
    assert kept_share("bytetrack", sequences, lose) >= 0.93


@pytest.mark.filterwarnings("ignore")  # motmetrics and pandas warn about their own ways
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", SEQUENCES)
def test_the_scorer_agrees_with_motmetrics(
    sequences: dict[str, list[MotFrame]], name: str, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "asfarray", np.asarray, raising=False)  # gone from numpy 2, and motmetrics calls it
    import motmetrics

    truth, predicted = track(ours(algorithm), sequences[name], range(len(sequences[name])))
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for t, p in zip(truth, predicted, strict=True):
        distances = motmetrics.distances.iou_matrix(to_xywh(t.boxes), to_xywh(p.boxes), max_iou=0.5)
        accumulator.update(t.ids, p.ids, distances)
    names = ["idf1", "mota", "num_switches", "precision", "recall"]
    theirs = motmetrics.metrics.create().compute(accumulator, metrics=names, name="x").iloc[0]
    mine = score_tracking(truth, predicted)
    assert mine.id_switches == theirs["num_switches"]
    assert [mine.idf1, mine.mota, mine.precision, mine.recall] == pytest.approx(
        [theirs["idf1"], theirs["mota"], theirs["precision"], theirs["recall"]], abs=1e-9
    )


def to_xywh(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
