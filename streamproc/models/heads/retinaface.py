"""Boxes with four corners, as of licence plates: a RetinaFace of one class whose landmarks are the corners.

RetinaFace (Deng et al., CVPR 2020) predicts offsets from fixed priors, encoded as in SSD (Liu et al., ECCV 2016,
section 2.2; the variances are those of its authors' code). Two square priors lie on each cell of its feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import TensorInfo
from streamproc.grids import cell_table, cells, grids_of, is_retinaface
from streamproc.models.heads import Thresholds
from streamproc.models.heads.scores import are_probabilities
from streamproc.models.nms import class_aware_nms
from streamproc.types import Detections, Letterbox

__all__ = ["RetinaFaceDecoder"]

# Sides of the priors in input pixels, by the stride of their feature map, as published plate detectors have them.
# Detectors of faces have smaller ones, and five landmarks, which tells them apart.
_PRIORS_PX = {8: (24, 48), 16: (96, 192), 32: (384, 768)}
_PLACE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
_BOX, _SCORES, _CORNERS = 4, 2, 8  # columns of the three tensors
# Models begin at the bottom right and go on to the bottom left, as the plates of CCPD are labelled (Xu et al., ECCV
# 2018), which they learn from; here corners begin at the top left and go on to the top right.
_CLOCKWISE = (2, 3, 0, 1)

_MAX_CANDIDATES = 1000  # that suppression compares, as in the other decoders
_LARGEST_OFFSET = 25.0  # e^5 times a prior's size: what lies beyond is nonsense, and so limited cannot overflow


class RetinaFaceDecoder:
    """Three tensors, a row a prior: ``boxes`` (batch, n, 4), offsets of centre x and y, logarithms of width and height;
    ``scores`` (batch, n, 2), background and object, logits or their softmax; ``corners`` (batch, n, 8), offsets of
    four x and y. ``size``: (width, height) of the input in pixels.
    """

    name = "retinaface with corners"
    has_corners = True

    def __init__(self, *, boxes: str, scores: str, corners: str, size: tuple[int, int]) -> None:
        self._boxes = boxes
        self._scores = scores
        self._corners = corners
        self._priors = _priors(size)

    @classmethod
    def matching(cls, outputs: Sequence[TensorInfo], size: tuple[int, int]) -> RetinaFaceDecoder | None:
        """The decoder for a model's outputs; None where they are not just these three tensors."""
        if not is_retinaface([tensor.shape for tensor in outputs], size):
            return None
        names = {tensor.shape[2]: tensor.name for tensor in outputs}
        return cls(boxes=names[_BOX], scores=names[_SCORES], corners=names[_CORNERS], size=size)

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture; see :class:`Decoder`. All are of class 0; their keypoints are the corners,
        clockwise from the plate's own top left, each as sure as the box."""
        scores = _objectness(outputs[self._scores][row])
        likely = np.flatnonzero(scores >= thresholds.confidence)
        if thresholds.class_ids is not None and 0 not in thresholds.class_ids:
            likely = likely[:0]
        offsets = np.hstack([outputs[name][row][likely] for name in (self._boxes, self._corners)]).astype(np.float32)
        sound = np.isfinite(offsets).all(axis=1)
        likely, offsets = likely[sound], np.clip(offsets[sound], -_LARGEST_OFFSET, _LARGEST_OFFSET)
        best = np.argsort(-scores[likely], kind="stable")[:_MAX_CANDIDATES]
        scores, priors, offsets = scores[likely[best]], self._priors[likely[best]], offsets[best]
        boxes = _decoded_boxes(priors, offsets[:, :_BOX])
        kept = class_aware_nms(boxes, scores, np.zeros(len(boxes), dtype=np.int64), thresholds.iou)
        placed = letterbox.to_source(boxes[kept])
        visible = np.flatnonzero((placed[:, 2:] > placed[:, :2]).all(axis=1))[: thresholds.max_detections]
        kept = kept[visible]
        corners = letterbox.points_to_source(_decoded_corners(priors[kept], offsets[kept, _BOX:]))
        sure = np.broadcast_to(scores[kept, None, None], (*corners.shape[:2], 1))
        keypoints = np.concatenate([corners, sure], axis=2)
        return Detections.of(placed[visible], scores[kept], np.zeros(len(kept), dtype=np.int64), keypoints=keypoints)


def _priors(size: tuple[int, int]) -> NDArray[np.float32]:
    """(n, 3): centre x, centre y and side in input pixels; by feature map, then by row, column and side.

    >>> _priors((640, 640))[[0, 1, 2, -1]].tolist()
    [[4.0, 4.0, 24.0], [4.0, 4.0, 48.0], [12.0, 4.0, 24.0], [624.0, 624.0, 768.0]]
    """
    table = cell_table(grids_of(min(cells(size)), size))
    sides = np.array([_PRIORS_PX[int(stride)] for stride in table[:, 2]], dtype=np.float32)
    centres = (table[:, :2] + 0.5) * table[:, 2:]
    return np.column_stack([centres.repeat(sides.shape[1], axis=0), sides.reshape(-1)])


def _objectness(values: NDArray[Any]) -> NDArray[np.float32]:
    """(n,): the probability of the second of two classes; NaN where there is none. ``values`` (n, 2)."""
    pairs = values.astype(np.float32, copy=False)
    sound = np.isfinite(pairs).all(axis=1)
    scores = pairs[:, 1]
    if not are_probabilities(pairs[sound]):
        with np.errstate(invalid="ignore", over="ignore"):
            margin = pairs[:, 1] - pairs[:, 0]
        scores = 1 / (1 + np.exp(-np.clip(margin, -_LARGEST_OFFSET, _LARGEST_OFFSET)))
    certain: NDArray[np.float32] = np.where(sound, np.minimum(scores, 1), np.float32(np.nan))
    return certain


def _decoded_boxes(priors: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """xyxy in input pixels, (n, 4)."""
    sides = priors[:, 2:]
    centre = priors[:, :2] + offsets[:, :2] * _PLACE_VARIANCE * sides
    half = sides * np.exp(offsets[:, 2:] * _SIZE_VARIANCE) / 2
    return np.hstack([centre - half, centre + half])


def _decoded_corners(priors: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """x and y in input pixels, (n, 4, 2), clockwise from the top left."""
    ordered = offsets.reshape(-1, _CORNERS // 2, 2)[:, _CLOCKWISE]
    return priors[:, None, :2] + ordered * _PLACE_VARIANCE * priors[:, None, 2:]
