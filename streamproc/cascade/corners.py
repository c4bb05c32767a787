"""The four corners of objects, such as plates that are seen at an angle."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.types import Detections

__all__ = ["Corners", "corners_of", "grown"]

Corners: TypeAlias = NDArray[np.float32]
"""(4, 2): x and y in source pixels, clockwise from the object's own top left."""


def corners_of(found: Detections) -> list[Corners | None]:
    """Each object's corners; None where four keypoints are no corners of anything that is seen from its front."""
    keypoints = found.keypoints
    if keypoints is None or keypoints.shape[1] != 4:
        return [None] * len(found)
    return [corners if _are_around(corners) else None for corners in keypoints[:, :, :2]]


def grown(corners: Corners, share: float) -> Corners:
    """The corners moved away from their middle, each by so much of its way to the opposite side as ``share`` says.

    >>> grown(np.array([[10, 10], [30, 10], [30, 20], [10, 20]], np.float32), 0.1).tolist()
    [[8.0, 9.0], [32.0, 9.0], [32.0, 21.0], [8.0, 21.0]]
    """
    middle = corners.mean(axis=0)
    larger: Corners = middle + (corners - middle) * np.float32(1 + 2 * share)
    return larger


def _are_around(corners: Corners) -> bool:
    """Whether they go clockwise around a convex shape: every turn from side to side is to the right."""
    sides = np.roll(corners, -1, axis=0) - corners
    following = np.roll(sides, -1, axis=0)
    return bool((sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0] > 0).all())
