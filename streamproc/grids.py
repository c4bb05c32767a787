"""The grids of cells that the boxes of a detector come from, and what the shapes of its outputs tell by them.

Whoever puts pictures into a model and whoever reads its outputs need to know alike, before there are any outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ANCHORS", "cell_table", "cells", "grids_of", "is_detector", "is_retinaface", "is_text_map", "is_yolox"]

# Strides of the feature maps that boxes come from: usual, with a map for small objects, with one for large ones.
_STRIDES = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
ANCHORS = 3  # boxes a cell in the models with objectness
_PRIORS = 2  # boxes a cell in RetinaFace, a small and a large one


def cells(size: tuple[int, int]) -> set[int]:
    """How many cells the feature maps have together, for each set of strides; ``size``: (width, height).

    >>> 8400 in cells((640, 640))
    True
    """
    return {sum(width * height for width, height, _ in grids) for grids in _grids(size)}


def grids_of(count: int, size: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """(columns, rows, stride) of each feature map of a model with ``count`` cells.

    >>> grids_of(3549, (416, 416))
    ((52, 52, 8), (26, 26, 16), (13, 13, 32))
    """
    return next(grids for grids in _grids(size) if sum(width * height for width, height, _ in grids) == count)


def cell_table(grids: Sequence[tuple[int, int, int]]) -> NDArray[np.float32]:
    """(n, 3): column, row and stride of each cell, feature map by feature map, row by row."""
    parts = []
    for columns, rows, stride in grids:
        row, column = np.divmod(np.arange(columns * rows), columns)
        parts.append(np.column_stack([column, row, np.full_like(row, stride)]))
    return np.concatenate(parts).astype(np.float32)


def is_yolox(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether an output is YOLOX's, (batch, cells, 5 + classes): a row a cell, where YOLOv5 has one an anchor."""
    return len(shape) == 3 and shape[1] in cells(size) and shape[2] > 5 and shape[2] not in cells(size)


def is_detector(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether an output has a box a cell, or several, or is a list of (x1, y1, x2, y2, score, class)."""
    if len(shape) != 3:
        return False
    counts = {boxes * count for count in cells(size) for boxes in (1, _PRIORS, ANCHORS)}
    return not counts.isdisjoint(shape[1:]) or shape[2] == 6


def is_text_map(shapes: Sequence[Sequence[int]], size: tuple[int, int]) -> bool:
    """Whether a model's only output is a map of one value a pixel of its input, as of detectors of text.

    >>> is_text_map([(1, 1, 384, 640)], (640, 384)), is_text_map([(1, 1, 96, 160)], (640, 384))
    (True, False)
    """
    return [tuple(shape[1:]) for shape in shapes] == [(1, size[1], size[0])]


def is_retinaface(shapes: Sequence[Sequence[int]], size: tuple[int, int]) -> bool:
    """Whether a model's outputs are those of a RetinaFace that finds corners: boxes, two scores, and four points.

    >>> is_retinaface([(1, 16800, 4), (1, 16800, 2), (1, 16800, 8)], (640, 640))
    True
    """
    count = _PRIORS * sum(width * height for width, height, _ in _grids(size)[0])
    return sorted(tuple(shape[1:]) for shape in shapes) == [(count, 2), (count, 4), (count, 8)]


def _grids(size: tuple[int, int]) -> list[tuple[tuple[int, int, int], ...]]:
    width, height = size
    return [tuple((-(-width // stride), -(-height // stride), stride) for stride in strides) for strides in _STRIDES]
