"""Non-maximum suppression: of boxes that overlap, the best stays."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["class_aware_nms"]


def class_aware_nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int64], iou: float
) -> NDArray[np.int64]:
    """Indices of the boxes to keep, best first: greedy, and boxes of different classes leave each other alone.

    A box goes when a better one of its class overlaps it by more than ``iou``. ``boxes`` (n, 4) xyxy of positive
    area and within ±1e6; ``scores`` (n,) above 0; ``class_ids`` (n,).

    OpenCV keeps classes apart by shifting each by the largest coordinate, which is wrong for negative ones: boxes are
    moved to start at 0 first.
    """
    if not len(boxes):
        return np.empty(0, dtype=np.int64)
    corners = boxes[:, :2].astype(np.float64)
    rects = np.hstack([corners - corners.min(axis=0), boxes[:, 2:] - corners])
    # The stubs ask for sequences of Python objects; arrays are taken as they are, and much faster.
    kept = cv2.dnn.NMSBoxesBatched(rects, scores, class_ids.astype(np.int32), 0.0, iou)  # type: ignore[arg-type]
    return np.asarray(kept, dtype=np.int64)
