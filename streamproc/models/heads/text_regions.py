"""Lines of text: the output of a DB detector, a map of how likely each pixel is within the core of a text.

Differentiable Binarization (Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", AAAI 2020):
the network learns texts that are shrunk towards their middle, so that lines that touch stay apart; each core that is
found is grown again by what the paper gives for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import TensorInfo
from streamproc.grids import is_text_map
from streamproc.models.heads import Thresholds
from streamproc.types import Detections, Letterbox

__all__ = ["TextRegionsDecoder"]

_LIKELY = 0.3  # a pixel of a core; 0.2 in the paper, 0.3 in its authors' code and in PaddleOCR
_GROWTH = 1.5  # the paper's r', which it found by trying
_LEAST_SIDE_PX = 3  # in the map, of a core: below that there is nothing to read (as in its authors' code)
_MAX_CANDIDATES = 1000  # the largest: a damaged map may have a hundred thousand specks
# A text with this much more height than width is written downwards or lies on its side (as in PaddleOCR); a smaller
# difference may come from a word of one or two letters.
_CLEARLY_LONGER = 1.5
# What a reading direction has to point along: to the right or downwards, and what rises by just 45 degrees, right.
_ONWARDS = (1.0, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Core:
    """A core of a text in pixels of the map: its smallest rectangle, and the mean probability within."""

    centre: tuple[float, float]
    length: float
    height: float
    direction: tuple[float, float]
    score: float


class TextRegionsDecoder:
    """(batch, 1, height, width), the size of the input: how likely each pixel is within the core of a text.

    ``tensor``: the output's name.
    """

    name = "text regions"
    has_corners = True

    def __init__(self, tensor: str) -> None:
        self._tensor = tensor

    @classmethod
    def matching(cls, outputs: Sequence[TensorInfo], size: tuple[int, int]) -> TextRegionsDecoder | None:
        """The decoder for a model's outputs; None where they are not just this map."""
        return cls(outputs[0].name) if is_text_map([tensor.shape for tensor in outputs], size) else None

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The texts in one picture; see :class:`Decoder`. All are of class 0; their keypoints are the corners,
        clockwise from the text's own top left, each as sure as the box.

        A text reads along its longer side, to the right or downwards. Texts do not suppress each other.
        """
        likely = outputs[self._tensor][row, 0].astype(np.float32, copy=False)
        wanted = thresholds.class_ids is None or 0 in thresholds.class_ids
        cores = [core for core in _cores(likely) if core.score >= thresholds.confidence] if wanted else []
        cores.sort(key=lambda core: -core.score)
        corners = np.array([_grown(core) for core in cores], dtype=np.float32).reshape(-1, 4, 2)
        placed = letterbox.points_to_source(corners)
        boxes = np.hstack([placed.min(axis=1), placed.max(axis=1)])
        visible = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))[: thresholds.max_detections]
        scores = np.array([core.score for core in cores], dtype=np.float32)[visible]
        sure = np.broadcast_to(scores[:, None, None], (len(visible), 4, 1))
        keypoints = np.concatenate([placed[visible], sure], axis=2)
        return Detections.of(boxes[visible], scores, np.zeros(len(visible), dtype=np.int64), keypoints=keypoints)


def _cores(likely: NDArray[np.float32]) -> Iterator[_Core]:
    """Those that a map (height, width) has, the largest first; what is not a number is no text."""
    mask = (likely >= _LIKELY).view(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return
    mask = mask[y : y + height, x : x + width]
    _, numbers, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    areas = statistics[1:, cv2.CC_STAT_AREA]  # 0 is what lies between them
    large = np.flatnonzero(areas >= _LEAST_SIDE_PX**2)
    for index in large[np.argsort(-areas[large], kind="stable")[:_MAX_CANDIDATES]]:
        left, top, across, down = statistics[index + 1, : cv2.CC_STAT_AREA].tolist()
        region = numbers[top : top + down, left : left + across] == index + 1
        core = _core(region, (x + left, y + top), likely)
        if core is not None:
            yield core


def _core(region: NDArray[np.bool_], offset: tuple[int, int], likely: NDArray[np.float32]) -> _Core | None:
    """What a connected ``region`` of the map is the core of, None where it is too narrow; ``offset``: its left, top."""
    (outline,), _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    rectangle = cv2.minAreaRect(outline)
    (x, y), sides, degrees = rectangle
    # An outline goes through the middles of its pixels, which have half a pixel more on every side.
    width, height = (side + 1 for side in sides)
    if min(width, height) < _LEAST_SIDE_PX:
        return None
    across = (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    direction, is_across = _reading_direction(across, width, height)
    return _Core(
        centre=(x + 0.5, y + 0.5),
        length=width if is_across else height,
        height=height if is_across else width,
        direction=direction,
        score=_mean_within(np.asarray(cv2.boxPoints(rectangle), dtype=np.float32), likely),
    )


def _reading_direction(across: tuple[float, float], width: float, height: float) -> tuple[tuple[float, float], bool]:
    """The unit vector along which a rectangle is read, and whether that is along its ``width``, which lies ``across``.

    >>> _reading_direction((1, 0), 80, 10), _reading_direction((1, 0), 10, 80), _reading_direction((0, -1), 9, 8)
    (((1, 0), True), ((0, 1), False), ((1, 0), False))
    """
    x, y = across
    is_clear = max(width, height) >= _CLEARLY_LONGER * min(width, height)
    is_across = width > height if is_clear else abs(x) >= abs(y)
    x, y = (x, y) if is_across else (-y, x)
    if x * _ONWARDS[0] + y * _ONWARDS[1] < 0:
        x, y = -x, -y
    return (x, y), is_across


def _mean_within(corners: NDArray[np.float32], likely: NDArray[np.float32]) -> float:
    """The mean of a map within a quadrilateral (4, 2)."""
    limit = np.array(likely.shape[::-1])
    first = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, limit - 1)
    end = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, first + 1, limit)
    part = likely[first[1] : end[1], first[0] : end[0]]
    inside = np.zeros(part.shape, dtype=np.uint8)
    cv2.fillConvexPoly(inside, np.rint(corners - first).astype(np.int32), 1)
    values = np.nan_to_num(part[inside != 0], nan=0.0)
    return float(np.clip(values, 0, 1).mean())


def _grown(core: _Core) -> list[tuple[float, float]]:
    """The corners of the text around a core, in pixels of the map, clockwise from its own top left.

    Every side moves out by D' = A' * r' / L', with the core's area A' and perimeter L'.
    """
    distance = core.length * core.height * _GROWTH / (2 * (core.length + core.height))
    along, down = core.length / 2 + distance, core.height / 2 + distance
    (x, y), (right_x, right_y) = core.centre, core.direction
    return [
        (x + along * a * right_x - down * b * right_y, y + along * a * right_y + down * b * right_x)
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
