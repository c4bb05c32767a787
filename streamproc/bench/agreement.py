"""Whether two clients found the same: a comparison of clients that do different work would mean nothing."""

from __future__ import annotations

import cv2
import numpy as np

from streamproc.boxes import ious
from streamproc.errors import ModelError
from streamproc.types import Detections

__all__ = ["check_agreement"]

# Pictures are scaled before or after their colours are converted, and models run in 8 bits of mantissa: scores differ
# in the second digit, boxes by a pixel or two.
_LEAST_IOU = 0.9
_SCORE_TOLERANCE = 0.05


def check_agreement(ours: Detections, theirs: Detections, *, confidence: float, iou: float) -> int:
    """Hold our detections against those of a client that suppresses regardless of class; how many are the same.

    Those within the scores' tolerance of ``confidence`` may be missing on either side.

    Raises:
        ModelError: one has found what the other has not.
    """
    rects = np.hstack([ours.boxes[:, :2], ours.boxes[:, 2:] - ours.boxes[:, :2]])
    kept = [int(index) for index in cv2.dnn.NMSBoxes(rects.tolist(), ours.confidence.tolist(), confidence, iou)]
    mine = Detections.of(ours.boxes[kept], ours.confidence[kept], ours.class_ids[kept])
    sure = confidence + _SCORE_TOLERANCE
    for name, some, others in (("ours", mine, theirs), ("the tutorial's", theirs, mine)):
        for index in np.flatnonzero(some.confidence >= sure):
            if not _is_among(some, int(index), others):
                raise ModelError(
                    f"the two clients disagree: only {name} finds class {some.class_ids[index]} with confidence "
                    f"{some.confidence[index]:.2f} at {np.round(some.boxes[index]).astype(int).tolist()}, so comparing "
                    "their speed would mean nothing. Name the same network for both models."
                )
    return int((mine.confidence >= sure).sum())


def _is_among(some: Detections, index: int, others: Detections) -> bool:
    alike = (others.class_ids == some.class_ids[index]) & (
        np.abs(others.confidence - some.confidence[index]) <= _SCORE_TOLERANCE
    )
    return bool((ious(some.boxes[index], others.boxes[alike]) >= _LEAST_IOU).any())
