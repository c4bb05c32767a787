"""Pixels: from a decoder's YUV straight into the model's input, and to full-size BGR for whoever draws.

Planes are scaled first and turned into RGB at the size that the model sees, so no full-size RGB picture exists on the
way to inference; what is RGB already stays so. Every OpenCV call here releases the GIL and runs on the calling thread's
account.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from streamproc.sampling import PartSampler, Region, Resample, quadrilateral_sampler, scale_plane
from streamproc.types import ColorMatrix, Fit, Letterbox, Picture, Rotation, UInt8Array

__all__ = ["crop_into", "letterbox_into", "to_bgr", "warp_into"]

Matrix: TypeAlias = NDArray[np.float64]

PAD = 114  # the grey that the YOLO family is trained with around letterboxed pictures

# Luma weights (red, blue): ITU-R BT.601-7 § 2.5.1, BT.709-6 § 3.2, BT.2020-2 table 4.
_LUMA_WEIGHTS: dict[ColorMatrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
_TURNS: dict[Rotation, int] = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


def letterbox_into(picture: Picture, target: UInt8Array, *, fit: Fit = "letterbox") -> Letterbox:
    """Write a picture upright, scaled to fit, on grey, as RGB into one row of an engine's slot.

    ``target``: (height, width, 3) uint8, written in full; rows may be apart, pixels and channels may not. Safe from
    every thread: each keeps scratch memory of up to nine bytes a pixel of the largest target it has written.
    """
    height, width = target.shape[:2]
    letterbox = Letterbox.fit(picture.size, (width, height), fit)
    _write(picture, letterbox, target)
    return letterbox


def crop_into(picture: Picture, box: Sequence[float], target: UInt8Array, *, fit: Fit = "letterbox") -> Letterbox:
    """Write a part of a picture in the same way: every pixel that ``box`` touches.

    ``box``: x1, y1, x2, y2 in pixels of the upright picture, finite. What lies beyond the picture is left out, though
    one pixel is always there. The answer maps the target's pixels to those of the whole picture.
    """
    height, width = target.shape[:2]
    letterbox = Letterbox.fit(picture.size, (width, height), fit, region=_touched(box, picture.size))
    _write(picture, letterbox, target)
    return letterbox


def warp_into(picture: Picture, corners: NDArray[np.float32], target: UInt8Array, *, fit: Fit = "stretch") -> None:
    """Write a quadrilateral of a picture, straightened, as RGB into one row of an engine's slot: all of it, or keeping
    the shape that the sides of the quadrilateral give it, with grey beside it.

    ``corners``: (4, 2), x and y in pixels of the upright picture, of what comes to the top left, top right, bottom
    right and bottom left of ``target``; in that order around a convex shape. Beyond the picture, its edge goes on.
    ``target`` and threads: as for :func:`letterbox_into`.
    """
    target = _framed(target, Letterbox.fit(_straight_size(corners), (target.shape[1], target.shape[0]), fit))
    height, width = target.shape[:2]
    straight = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    back = cv2.getPerspectiveTransform(straight, _points_as_stored(corners, picture))
    warp = quadrilateral_sampler(np.asarray(back, dtype=np.float64), picture.stored_size, (width, height))
    # The corners know which way is up, so that a turned picture takes no turning of its own.
    to_rgb = _yuv_to_rgb(picture.matrix, picture.full_range)
    _convert(picture, to_rgb, target, _scratch.take(6 * width * height), warp)


def _straight_size(corners: NDArray[np.float32]) -> tuple[int, int]:
    """(width, height) in whole pixels of a quadrilateral (4, 2) that is straightened: the longer of opposite sides.

    >>> _straight_size(np.array([[0, 0], [40, 30], [34, 38], [-6, 8]], np.float32))
    (50, 10)
    """
    top, right, bottom, left = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1).tolist()
    return max(1, round(max(top, bottom))), max(1, round(max(right, left)))


def _touched(box: Sequence[float], size: tuple[int, int]) -> Region:
    """The whole pixels, xyxy, of a picture of ``size`` (width, height) that a box touches, or those nearest to it.

    >>> _touched((-3.5, 7.2, 2.5, 7.4), (10, 5))
    (0, 4, 3, 5)
    """
    left, right = _span(box[0], box[2], size[0])
    top, bottom = _span(box[1], box[3], size[1])
    return left, top, right, bottom


def _span(start: float, end: float, length: int) -> tuple[int, int]:
    first = min(max(math.floor(start), 0), length - 1)
    return first, max(min(math.ceil(end), length), first + 1)


def _write(picture: Picture, letterbox: Letterbox, target: UInt8Array) -> None:
    """Put a picture, or the letterbox's region of it, where the letterbox says, and grey around it."""
    inner_width, inner_height = letterbox.inner
    inner = _framed(target, letterbox)
    to_rgb = _yuv_to_rgb(picture.matrix, picture.full_range)
    scale: Resample = scale_plane
    turned = picture.rotation in (90, 270)
    if letterbox.region is not None:
        out_size = (inner_height, inner_width) if turned else (inner_width, inner_height)
        scale = PartSampler(_as_stored(letterbox.region, picture), picture.stored_size, out_size)
    if picture.rotation == 0:
        _convert(picture, to_rgb, inner, _scratch.take(6 * inner_width * inner_height), scale)
        return
    shape = (inner_width, inner_height, 3) if turned else (inner_height, inner_width, 3)
    memory = _scratch.take(9 * inner_width * inner_height)
    stored, rest = _carve(memory, shape)
    _convert(picture, to_rgb, stored, rest, scale)
    cv2.rotate(stored, _TURNS[picture.rotation], dst=inner)


def _framed(target: UInt8Array, letterbox: Letterbox) -> UInt8Array:
    """The part of ``target`` where the letterbox has its picture, a view; around it, grey is written."""
    (inner_width, inner_height), (left, top) = letterbox.inner, letterbox.pad
    target[:top] = PAD
    target[top + inner_height :] = PAD
    inner = target[top : top + inner_height]
    inner[:, :left] = PAD
    inner[:, left + inner_width :] = PAD
    return inner[:, left : left + inner_width]


def _as_stored(region: Region, picture: Picture) -> Region:
    """Where a region of the upright picture, xyxy, lies in the picture as it is stored."""
    left, top, right, bottom = region
    width, height = picture.stored_size
    match picture.rotation:
        case 90:
            return top, height - right, bottom, height - left
        case 180:
            return width - right, height - bottom, width - left, height - top
        case 270:
            return width - bottom, left, width - top, right
        case _:
            return region


def _points_as_stored(points: NDArray[np.float32], picture: Picture) -> NDArray[np.float32]:
    """Where points (n, 2) of the upright picture lie in the picture as it is stored; contiguous."""
    x, y = points.astype(np.float32).T
    width, height = picture.stored_size
    match picture.rotation:
        case 90:
            x, y = y, height - x
        case 180:
            x, y = width - x, height - y
        case 270:
            x, y = width - y, x
    return np.column_stack([x, y])


def to_bgr(picture: Picture) -> UInt8Array:
    """The whole picture, upright, as a new (height, width, 3) uint8 BGR array that belongs to the caller."""
    width, height = picture.stored_size
    bgr = np.empty((height, width, 3), dtype=np.uint8)
    if picture.layout == "rgb24":
        cv2.cvtColor(picture.planes[0], cv2.COLOR_RGB2BGR, dst=bgr)
    else:
        to_rgb = _yuv_to_rgb(picture.matrix, picture.full_range)
        _convert(picture, np.ascontiguousarray(to_rgb[::-1]), bgr, np.empty(6 * width * height, dtype=np.uint8))
    if picture.rotation == 0:
        return bgr
    turned: UInt8Array = cv2.rotate(bgr, _TURNS[picture.rotation])  # type: ignore[assignment]  # cv2: any array
    return turned


class _Scratch(threading.local):
    """One thread's reusable memory; grows to what the largest request needed and stays there."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)

    def take(self, size: int) -> UInt8Array:
        """``size`` bytes that hold whatever they held before."""
        if len(self._memory) < size:
            self._memory = np.empty(size, dtype=np.uint8)
        return self._memory[:size]


_scratch = _Scratch()


def _carve(memory: UInt8Array, shape: tuple[int, ...]) -> tuple[UInt8Array, UInt8Array]:
    """An array of ``shape`` from the start of ``memory``, and the rest of it."""
    size = math.prod(shape)
    return memory[:size].reshape(shape), memory[size:]


def _convert(
    picture: Picture, matrix: Matrix, out: UInt8Array, memory: UInt8Array, scale: Resample | None = None
) -> None:
    """Bring a picture's planes to ``out``'s size, whole or as ``scale`` does it, and turn them into colours there;
    rotation is left alone. What is RGB stays so, whatever the ``matrix``.

    Chroma goes from its own plane's size to the final one in one step, whatever the parity of either. Measured at
    1920x1080 to 640x360, planes not in the caches: 0.17 ms luma, 0.33 ms chroma, 0.09 ms colours. OpenCV's own 4:2:0
    conversions would save 0.1 ms but know even sizes and limited-range BT.601 only.
    """
    scale = scale or scale_plane
    if picture.layout == "rgb24":
        scale(picture.planes[0], out)
        return
    shape = out.shape[:2]
    merged, memory = _carve(memory, (*shape, 3))
    y, memory = _carve(memory, shape)
    u, memory = _carve(memory, shape)
    v, memory = _carve(memory, shape)
    if picture.layout == "yuv420p":
        for plane, scaled in zip(picture.planes, (y, u, v), strict=True):
            scale(plane, scaled)
    else:
        uv = merged.reshape(-1)[: 2 * math.prod(shape)].reshape(*shape, 2)
        scale(picture.planes[0], y)
        scale(picture.planes[1], uv)
        cv2.split(uv, mv=[u, v])
    cv2.merge([y, u, v], dst=merged)
    cv2.transform(merged, matrix, dst=out)


@lru_cache
def _yuv_to_rgb(matrix: ColorMatrix, full_range: bool) -> Matrix:
    """(3, 4): R, G, B as weights of Y, U, V and 1, all in 0..255 (ITU-T H.273 § 8.3, equations for MatrixCoefficients).

    >>> _yuv_to_rgb("bt601", True).round(3).tolist()[0]
    [1.0, 0.0, 1.402, -179.456]
    """
    red, blue = _LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    from_v, from_u = 2 * (1 - red), 2 * (1 - blue)
    linear = np.array([[1, 0, from_v], [1, -from_u * blue / green, -from_v * red / green], [1, from_u, 0]])
    black = 0 if full_range else 16
    if not full_range:
        linear *= [255 / 219, 255 / 224, 255 / 224]
    offset = -linear @ [black, 128, 128]
    return np.column_stack([linear, offset])
