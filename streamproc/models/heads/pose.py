"""The raw output of the YOLO family's pose models (v8, 11, 12): keypoints behind the scores of each box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamproc.models.heads.yolo import RawDecoder

__all__ = ["PoseDecoder", "PoseLayout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseLayout:
    """What the rows of a raw output hold: a box, a score for each of ``classes``, and ``values`` for each of
    ``keypoints``, which are x, y and a confidence, or x and y alone."""

    classes: int
    keypoints: int
    values: Literal[2, 3]

    @property
    def rows(self) -> int:
        """How many these are.

        >>> PoseLayout(classes=1, keypoints=17, values=3).rows
        56
        """
        return 4 + self.classes + self.keypoints * self.values


class PoseDecoder(RawDecoder):
    """(batch, rows, n) as of a :class:`PoseLayout`: a column a box, centre x, centre y, width, height, a score a class,
    then the keypoints in input pixels. Those without a confidence of their own are given one of 1."""

    name = "yolo pose"

    def __init__(self, tensor: str, layout: PoseLayout) -> None:
        super().__init__(tensor, layout.classes)
        self._layout = layout

    def _keypoints(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        count, values = self._layout.keypoints, self._layout.values
        keypoints = rows.reshape(count, values, rows.shape[1]).transpose(2, 0, 1)
        if values == 3:
            return keypoints
        return np.concatenate([keypoints, np.ones((len(keypoints), count, 1), np.float32)], axis=2)
