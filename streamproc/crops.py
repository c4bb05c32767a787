"""What a model sees of an object: its box, or what its four corners enclose, cut out of the whole picture."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.preprocess import crop_into, warp_into
from streamproc.types import Detections, Fit, Letterbox, Picture, UInt8Array

__all__ = ["Box", "Corners", "corners_of", "grown_box", "grown_corners", "is_large_enough", "object_into"]

Box: TypeAlias = tuple[float, float, float, float]
"""xyxy in source pixels."""
Corners: TypeAlias = NDArray[np.float32]
"""(4, 2): x and y in source pixels, clockwise from the object's own top left."""


def object_into(
    picture: Picture, box: Box, corners: Corners | None, target: UInt8Array, *, fit: Fit, expand: float = 0.0
) -> Letterbox:
    """Write an object of a picture, grown by ``expand``, into ``target`` (height, width, 3) as ``fit`` says:
    straightened where there are ``corners``.

    The answer maps the target's pixels to those of the whole picture; but not those of what was straightened, which is
    for models that find no objects.
    """
    if corners is None:
        return crop_into(picture, grown_box(box, expand), target, fit=fit)
    warp_into(picture, grown_corners(corners, expand), target, fit=fit)
    height, width = target.shape[:2]
    return Letterbox.fit(picture.size, (width, height), "stretch")


def is_large_enough(box: Box, min_size: float) -> bool:
    """Whether the shorter side of a box has ``min_size`` pixels."""
    x1, y1, x2, y2 = box
    return min(x2 - x1, y2 - y1) >= min_size


def corners_of(found: Detections) -> list[Corners | None]:
    """Each object's corners; None where four keypoints are no corners of anything that is seen from its front."""
    keypoints = found.keypoints
    if keypoints is None or keypoints.shape[1] != 4:
        return [None] * len(found)
    return [corners if _are_around(corners) else None for corners in keypoints[:, :, :2]]


def grown_box(box: Box, share: float) -> Box:
    """The box moved apart, each side by so much of the box's width or height as ``share`` says.

    >>> grown_box((10, 10, 30, 20), 0.1)
    (8.0, 9.0, 32.0, 21.0)
    """
    x1, y1, x2, y2 = box
    width, height = share * (x2 - x1), share * (y2 - y1)
    return (x1 - width, y1 - height, x2 + width, y2 + height)


def grown_corners(corners: Corners, share: float) -> Corners:
    """The corners moved away from their middle, each by so much of its way to the opposite side as ``share`` says.

    >>> grown_corners(np.array([[10, 10], [30, 10], [30, 20], [10, 20]], np.float32), 0.1).tolist()
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
