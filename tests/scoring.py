"""Scores of a tracker's output against ground truth: IDF1 and CLEAR MOT, in numpy and scipy.

IDF1 follows Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera
Tracking" (2016); MOTA follows Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking
Performance: The CLEAR MOT Metrics" (2008): a pair that was matched in an earlier frame stays matched
while it overlaps enough, and only what is left over is assigned anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = ["FrameBoxes", "TrackingScore", "box_iou", "score_tracking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBoxes:
    """The objects of one frame.

    ids: (n,) int, unique within the frame. boxes: (n, 4) xyxy, pixels. ignore: (n,) bool or None; truth
    objects so marked are neither demanded nor punished, a prediction that matches one is taken out.
    """

    ids: NDArray[np.int64]
    boxes: NDArray[np.floating]
    ignore: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        count = len(self.ids)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes: expected shape ({count}, 4) for {count} ids, got {self.boxes.shape}")
        if self.ignore is not None and self.ignore.shape != (count,):
            raise ValueError(f"ignore: expected shape ({count},), got {self.ignore.shape}")
        if len(np.unique(self.ids)) != count:
            raise ValueError(f"ids: expected no id twice in a frame, got {self.ids.tolist()}")

    def where(self, keep: NDArray[np.bool_]) -> "FrameBoxes":
        """The objects selected by keep, (n,) bool, with nothing ignored any more."""
        return FrameBoxes(ids=self.ids[keep], boxes=self.boxes[keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingScore:
    """Scores over a whole sequence, as fractions; all are 1.0 when truth and prediction are both empty.

    precision, recall and f1 count the boxes matched for MOTA. mota has no lower bound.
    """

    idf1: float
    mota: float
    id_switches: int
    precision: float
    recall: float
    f1: float


def box_iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, m) intersection over union of (n, 4) and (m, 4) xyxy boxes; 0 where both have no area."""
    a = first.astype(np.float64)[:, None, :]
    b = second.astype(np.float64)[None, :, :]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0, None)
    intersection = sides[..., 0] * sides[..., 1]
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1) - intersection
    overlap: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return overlap


def score_tracking(truth: Sequence[FrameBoxes], predicted: Sequence[FrameBoxes], iou: float = 0.5) -> TrackingScore:
    """Scores predicted against truth, frame by frame; a pair may match at an overlap of iou or more.

    Raises ValueError if the two sequences differ in length.
    """
    if len(truth) != len(predicted):
        raise ValueError(f"expected as many predicted as truth frames, got {len(predicted)} for {len(truth)}")
    pairs = [_without_ignored(t, p, iou) for t, p in zip(truth, predicted, strict=True)]
    truth_boxes = sum(len(t.ids) for t, _ in pairs)
    predicted_boxes = sum(len(p.ids) for _, p in pairs)
    matches, id_switches = _clear_mot(pairs, iou)
    errors = (truth_boxes - matches) + (predicted_boxes - matches) + id_switches
    total = truth_boxes + predicted_boxes
    return TrackingScore(
        idf1=2 * _identity_true_positives(pairs, iou) / total if total else 1.0,
        mota=1 - errors / truth_boxes if truth_boxes else float(not predicted_boxes),
        id_switches=id_switches,
        precision=matches / predicted_boxes if predicted_boxes else float(not truth_boxes),
        recall=matches / truth_boxes if truth_boxes else 1.0,
        f1=2 * matches / total if total else 1.0,
    )


def _assign(overlap: NDArray[np.float64], iou: float) -> list[tuple[int, int]]:
    """The most pairs of overlap >= iou, and among those the largest sum of overlaps."""
    allowed = overlap >= iou
    # 1 for being a pair at all outweighs any sum of overlaps, each scaled to less than 1 / pairs.
    gain = np.where(allowed, 1 + overlap / (min(overlap.shape, default=0) + 1), 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if allowed[r, c]]


def _without_ignored(truth: FrameBoxes, predicted: FrameBoxes, iou: float) -> tuple[FrameBoxes, FrameBoxes]:
    if truth.ignore is None or not truth.ignore.any():
        return truth, predicted
    keep = np.ones(len(predicted.ids), dtype=np.bool_)
    for row, column in _assign(box_iou(truth.boxes, predicted.boxes), iou):
        keep[column] = not truth.ignore[row]
    return truth.where(~truth.ignore), predicted.where(keep)


def _clear_mot(pairs: Sequence[tuple[FrameBoxes, FrameBoxes]], iou: float) -> tuple[int, int]:
    """Matched boxes and identity switches."""
    last_match: dict[int, int] = {}  # truth id -> the predicted id that it was matched with last
    matches = switches = 0
    for truth, predicted in pairs:
        overlap = box_iou(truth.boxes, predicted.boxes)
        column_of = {int(identity): column for column, identity in enumerate(predicted.ids)}
        matched: list[tuple[int, int]] = []
        taken: set[int] = set()
        for row, identity in enumerate(truth.ids):
            column = column_of.get(last_match.get(int(identity), -1), -1)
            if column >= 0 and column not in taken and overlap[row, column] >= iou:
                matched.append((row, column))
                taken.add(column)
        for row, column in matched:
            overlap[row, :] = overlap[:, column] = -1.0
        matched += _assign(overlap, iou)
        for row, column in matched:
            identity, candidate = int(truth.ids[row]), int(predicted.ids[column])
            switches += last_match.get(identity, candidate) != candidate
            last_match[identity] = candidate
        matches += len(matched)
    return matches, switches


def _identity_true_positives(pairs: Sequence[tuple[FrameBoxes, FrameBoxes]], iou: float) -> int:
    """Boxes that agree under the one-to-one map of identities, over the sequence, that agrees most."""
    truth_index = _index([t.ids for t, _ in pairs])
    predicted_index = _index([p.ids for _, p in pairs])
    agreeing = np.zeros((len(truth_index), len(predicted_index)), dtype=np.int64)
    for truth, predicted in pairs:
        for row, column in np.argwhere(box_iou(truth.boxes, predicted.boxes) >= iou):
            agreeing[truth_index[int(truth.ids[row])], predicted_index[int(predicted.ids[column])]] += 1
    rows, columns = linear_sum_assignment(agreeing, maximize=True)
    return int(agreeing[rows, columns].sum())


def _index(ids: Sequence[NDArray[np.int64]]) -> dict[int, int]:
    return {identity: i for i, identity in enumerate(sorted({int(v) for array in ids for v in array}))}
