"""Scores detections against the truth in plain numpy: suppression, matching, precision, recall, F1, average precision.

Rows of detections are (x1, y1, x2, y2, score, class); rows of truth are (x1, y1, x2, y2, class, demanded).
A detection that only fits an ignored truth row counts neither as found nor as false.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samples.camera import Floats
from samples.truth import demanded
from samples.world import Seen

__all__ = ["Match", "average_precision", "detections", "f1", "match", "overlaps", "suppress", "truth_rows"]


@dataclass(frozen=True, slots=True)
class Match:
    """Of one frame: the rows that count, (score, class, found), and how many of each class are demanded."""

    rows: Floats
    demanded: NDArray[np.int64]


def overlaps(left: Floats, right: Floats) -> Floats:
    """Intersection over union (N, M) of xyxy boxes."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:4], right[None, :, 2:4])
    shared = np.clip(high - low, 0, None).prod(2)
    sizes = [(boxes[:, 2:4] - boxes[:, :2]).prod(1) for boxes in (left, right)]
    union: Floats = sizes[0][:, None] + sizes[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def suppress(rows: Floats, iou: float = 0.45) -> Floats:
    """Greedy non-maximum suppression within each class, best score first."""
    rows = rows[np.argsort(-rows[:, 4], kind="stable")][:300]
    shifted = rows[:, :4] + rows[:, 5:6] * 1e5  # boxes of different classes never meet
    table = overlaps(shifted, shifted)
    kept: list[int] = []
    for index in range(len(rows)):
        if not kept or table[index, kept].max() <= iou:
            kept.append(index)
    return rows[kept]


def detections(output: NDArray[np.float32], confidence: float, pad: float = 12, scale: float = 2) -> Floats:
    """Suppressed detections of one network output (4 + classes, N) in the pixels of the 1280x720 frame."""
    classes = output[4:].argmax(0)
    scores = output[4:].max(0)
    keep = scores >= confidence
    x, y, width, height = output[:4, keep].astype(np.float64)
    boxes = np.stack((x - width / 2, y - height / 2 - pad, x + width / 2, y + height / 2 - pad), 1) * scale
    boxes = np.clip(boxes, 0, (1280, 720, 1280, 720))
    return suppress(np.column_stack((boxes, scores[keep], classes[keep])))


def truth_rows(frame: Sequence[Seen]) -> Floats:
    """Truth rows of one frame."""
    return np.array([(*one.box, one.class_id, demanded(one)) for one in frame], np.float64).reshape(-1, 6)


def match(found: Floats, truth: Floats, classes: int = 3, iou: float = 0.5) -> Match:
    """Greedy matching by score within each class; a truth row is taken once, an ignored one any number of times."""
    wanted = truth[:, 5] > 0
    table = overlaps(found, truth) * (found[:, None, 5] == truth[None, :, 4])
    table[table < iou] = 0
    taken = np.zeros(len(truth), bool)
    rows: list[tuple[float, float, float]] = []
    for index in np.argsort(-found[:, 4], kind="stable"):
        fits = table[index] * wanted * ~taken
        if fits.any():
            taken[fits.argmax()] = True
        elif (table[index] * ~wanted).any():
            continue
        rows.append((found[index, 4], found[index, 5], float(fits.any())))
    counts = np.bincount(truth[wanted, 4].astype(np.int64), minlength=classes)
    return Match(np.array(rows, np.float64).reshape(-1, 3), counts)


def f1(matches: Sequence[Match], confidence: float) -> tuple[float, float, float]:
    """F1, precision and recall over all classes of the detections at or above a confidence."""
    rows = np.concatenate([one.rows for one in matches])
    rows = rows[rows[:, 0] >= confidence]
    found, total = rows[:, 2].sum(), sum(int(one.demanded.sum()) for one in matches)
    precision, recall = found / max(len(rows), 1), found / max(total, 1)
    return float(2 * precision * recall / max(precision + recall, 1e-9)), float(precision), float(recall)


def average_precision(matches: Sequence[Match], class_id: int) -> float:
    """Area under the precision envelope over recall (all points, as COCO defines it without its 101 samples)."""
    rows = np.concatenate([one.rows for one in matches])
    rows = rows[rows[:, 1] == class_id]
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    total = sum(int(one.demanded[class_id]) for one in matches)
    if not total or not len(rows):
        return 0.0
    found = np.cumsum(rows[:, 2])
    precision = np.maximum.accumulate((found / np.arange(1, len(rows) + 1))[::-1])[::-1]
    return float((precision * np.diff(found, prepend=0.0)).sum() / total)
