"""The output of YOLOX, which leaves it to the reader where on its grids a box lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.grids import cell_table
from streamproc.models.heads import Thresholds
from streamproc.models.heads.yolo import ObjectnessDecoder
from streamproc.types import Detections, Letterbox

__all__ = ["YoloxDecoder"]

# Beyond these no box means anything, and what is computed of it does not overflow either.
_FARTHEST_CELLS = 1e4
_LARGEST_LOG = 10.0


class YoloxDecoder(ObjectnessDecoder):
    """(batch, n, 5 + classes): a row a cell, centre x and y beside the cell's corner in cells, the logarithms of width
    and height in cells, objectness, then a score a class.

    ``grids``: (columns, rows, stride) of each feature map; their cells follow one another row by row (YOLOX's own code,
    ``YOLOXHead.decode_outputs``).
    """

    name = "yolox"

    def __init__(self, tensor: str, classes: int, *, grids: Sequence[tuple[int, int, int]]) -> None:
        super().__init__(tensor, classes)
        self._cells = cell_table(grids)

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture; see :class:`Decoder`. A score is objectness times class score."""
        values = outputs[self._tensor][row]
        clear = np.flatnonzero(values[:, 4] >= thresholds.confidence)
        clear = clear[np.isfinite(values[clear]).all(axis=1)]
        candidates = values[clear].astype(np.float32, copy=False)
        candidates[:, :4] = _placed(candidates[:, :4], self._cells[clear])
        return self._of_rows(candidates, letterbox, thresholds)


def _placed(boxes: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 4) centre x, centre y, width, height in input pixels."""
    corner, stride = cells[:, :2], cells[:, 2:]
    centre = np.clip(boxes[:, :2], -_FARTHEST_CELLS, _FARTHEST_CELLS) + corner
    return np.hstack([centre, np.exp(np.minimum(boxes[:, 2:], _LARGEST_LOG))]) * stride
