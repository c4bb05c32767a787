"""Keypoints as a skeleton: the points that are clear, and the limbs between them."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from streamproc.types import UInt8Array

__all__ = ["draw_skeleton"]

_CLEAR = 0.5  # below it a point is mostly a guess at what is hidden or beyond the picture

_LIMBS: Mapping[int, NDArray[np.intp]] = {
    17: np.array(
        [
            *((0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6)),  # the head: nose, eyes, ears, down to shoulders
            *((5, 7), (7, 9), (6, 8), (8, 10)),  # arms: shoulders, elbows, wrists
            *((5, 6), (5, 11), (6, 12), (11, 12)),  # the body: shoulders and hips
            *((11, 13), (13, 15), (12, 14), (14, 16)),  # legs: hips, knees, ankles
        ],
        dtype=np.intp,
    )
}
"""Pairs of keypoints with a line between them, by how many keypoints there are; a person's 17 as in the annotations of
COCO (Lin et al., "Microsoft COCO: Common Objects in Context", 2014)."""


def draw_skeleton(bgr: UInt8Array, keypoints: NDArray[np.float32], ink: tuple[int, int, int], *, line: int) -> None:
    """Draw one object's keypoints (k, 3), x and y in pixels of ``bgr`` and a confidence, in place.

    Those below a confidence of 0.5 are left out. ``line`` is the width of the limbs that a person's 17 have; other
    numbers of keypoints are drawn as points alone.
    """
    clear = keypoints[:, 2] >= _CLEAR
    places = np.rint(keypoints[:, :2]).astype(np.int32)
    limbs = _LIMBS.get(len(keypoints))
    if limbs is not None:
        whole = limbs[clear[limbs].all(axis=1)]
        cv2.polylines(bgr, list(places[whole]), False, ink, line, cv2.LINE_AA)
    for x, y in places[clear].tolist():
        cv2.circle(bgr, (x, y), line + 1, ink, cv2.FILLED, cv2.LINE_AA)
