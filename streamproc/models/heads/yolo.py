"""The outputs of the YOLO family's detectors: raw (v8, v9, 11, 12), with objectness (v5, v7), end-to-end (v10, 26).

Nothing here moves or copies a whole output: thresholds come first, on contiguous rows where the layout has them, and
everything else works on what is left. A damaged model may give anything: values that are not finite are dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.models.heads import Thresholds
from streamproc.models.nms import class_aware_nms
from streamproc.types import Detections, Letterbox

__all__ = ["EndToEndDecoder", "ObjectnessDecoder", "RawDecoder"]

_log = logging.getLogger(__name__)

# Suppression compares every candidate with all that were kept: 1000 take 2 to 4 ms, 3000 take 20. Real scenes have
# below 500; at a score threshold of 0.001, yolov8n scored an mAP50-95 of 0.414 on 128 pictures of COCO with either.
_MAX_CANDIDATES = 1000
# No input is that large; what lies beyond is nonsense, and so limited cannot overflow or blur what is not.
_FARTHEST_PX = 1e5


class _YoloDecoder:
    """What the three have in common: the way from candidates to detections."""

    has_corners = False

    def __init__(self, tensor: str, classes: int) -> None:
        self._tensor = tensor
        self._classes = classes
        self._warned = False

    def _detections(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        class_ids: NDArray[np.int64],
        letterbox: Letterbox,
        thresholds: Thresholds,
        *,
        suppress: bool,
        keypoints: NDArray[np.float32] | None = None,
    ) -> Detections:
        """Detections from candidates: ``boxes`` (n, 4) xyxy in input pixels, ``scores`` (n,), ``class_ids`` (n,), and
        where there are some ``keypoints`` (n, k, 3), x and y in input pixels and a confidence."""
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if thresholds.class_ids is not None:
            keep &= np.isin(class_ids, list(thresholds.class_ids))
        best = _best(np.flatnonzero(keep), scores, _MAX_CANDIDATES)
        if suppress:
            best = best[class_aware_nms(boxes[best], scores[best], class_ids[best], thresholds.iou)]
        placed = letterbox.to_source(boxes[best])
        visible = (placed[:, 2] > placed[:, 0]) & (placed[:, 3] > placed[:, 1])
        best = best[visible][: thresholds.max_detections]
        return Detections.of(
            placed[visible][: thresholds.max_detections],
            self._clamped(scores[best]),
            class_ids[best],
            keypoints=None if keypoints is None else _placed(keypoints[best], letterbox),
        )

    def _clamped(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(scores) and scores[0] > 1:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "the model gives scores above 1 (%.2f in %s), as badly quantised files do; they count as 1. "
                    "Export the model again if its detections look wrong.",
                    scores[0],
                    self._tensor,
                )
            return np.minimum(scores, np.float32(1))
        return scores


class RawDecoder(_YoloDecoder):
    """(batch, 4 + classes, n): a column a box, centre x, centre y, width, height, then a score a class."""

    name = "yolo"

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture; see :class:`Decoder`."""
        values = outputs[self._tensor][row].astype(np.float32, copy=False)
        end = 4 + self._classes
        # The maximum over contiguous rows: 0.07 ms for 84 x 8400, where a transposed argmax takes 0.6.
        candidates = values[:, values[4:end].max(axis=0) >= thresholds.confidence]
        candidates = candidates[:, np.isfinite(candidates).all(axis=0)]
        return self._detections(
            _corners(candidates[:4].T),
            candidates[4:end].max(axis=0),
            candidates[4:end].argmax(axis=0),
            letterbox,
            thresholds,
            suppress=True,
            keypoints=self._keypoints(candidates[end:]),
        )

    def _keypoints(self, rows: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """(n, k, 3) of what follows the scores of ``n`` candidates, (rows, n); a view."""
        return None


class ObjectnessDecoder(_YoloDecoder):
    """(batch, n, 5 + classes): a row a box, centre x, centre y, width, height, objectness, then a score a class."""

    name = "yolo with objectness"

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture; see :class:`Decoder`. A score is objectness times class score."""
        values = outputs[self._tensor][row]
        candidates = values[values[:, 4] >= thresholds.confidence].astype(np.float32, copy=False)
        return self._of_rows(candidates[np.isfinite(candidates).all(axis=1)], letterbox, thresholds)

    def _of_rows(self, candidates: NDArray[np.float32], letterbox: Letterbox, thresholds: Thresholds) -> Detections:
        """Detections from finite rows (n, 5 + classes) whose boxes are in input pixels."""
        class_ids = candidates[:, 5:].argmax(axis=1)
        scores = candidates[:, 4] * candidates[:, 5:].max(axis=1)
        keep = scores >= thresholds.confidence
        return self._detections(
            _corners(candidates[keep, :4]), scores[keep], class_ids[keep], letterbox, thresholds, suppress=True
        )


class EndToEndDecoder(_YoloDecoder):
    """(batch, n, 6): a row a detection, x1, y1, x2, y2, score, class; suppressed within the model."""

    name = "yolo end-to-end"

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture; see :class:`Decoder`. Classes that have no name are dropped."""
        values = outputs[self._tensor][row].astype(np.float32, copy=False)
        values = values[np.isfinite(values).all(axis=1)]
        named = (values[:, 5] >= 0) & (values[:, 5] < self._classes)
        values = values[named & (values[:, 4] >= thresholds.confidence)]
        boxes = np.clip(values[:, :4], -_FARTHEST_PX, _FARTHEST_PX)
        class_ids = values[:, 5].astype(np.int64)
        return self._detections(boxes, values[:, 4], class_ids, letterbox, thresholds, suppress=False)


def _corners(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """xyxy from centre x, centre y, width, height; a new, contiguous array (n, 4)."""
    centre, half = np.clip(boxes[:, :2], -_FARTHEST_PX, _FARTHEST_PX), np.clip(boxes[:, 2:], 0, _FARTHEST_PX) / 2
    return np.hstack([centre - half, centre + half])


def _placed(keypoints: NDArray[np.float32], letterbox: Letterbox) -> NDArray[np.float32]:
    """Keypoints (n, k, 3) from input pixels to source pixels, their confidences within 0..1; a new array."""
    places = letterbox.points_to_source(np.clip(keypoints[:, :, :2], -_FARTHEST_PX, _FARTHEST_PX))
    return np.concatenate([places, np.clip(keypoints[:, :, 2:], 0, 1)], axis=2)


def _best(candidates: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """Of some indices, the ``limit`` with the highest scores, best first; among equals the earlier."""
    return candidates[np.argsort(-scores[candidates], kind="stable")[:limit]]
