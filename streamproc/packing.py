"""Whole pictures in the rows of a tensor: what a decoder gave goes to a server as it is, half the bytes of RGB.

A row has a first line that says what follows, and then the planes one behind the other. Behind that line there is room
for YUV 4:2:0 of a given size: any picture of no more samples goes in untouched, and only a larger one is scaled.

The line begins with width and height as stored (little-endian uint16 each) and four bytes: layout, clockwise quarter
turns that bring the picture upright, colour matrix, and 1 for full range. A row of zeros is a black picture.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np

from streamproc.sampling import scale_plane
from streamproc.types import ColorMatrix, Letterbox, Picture, PixelLayout, Rotation, UInt8Array

__all__ = ["pack_into", "packed_shape", "unpack"]

_SAYS: Final = struct.Struct("<HHBBBB")
_LAYOUTS: tuple[PixelLayout, ...] = ("yuv420p", "nv12", "rgb24")
_TURNS: tuple[Rotation, ...] = (0, 90, 180, 270)
_MATRICES: tuple[ColorMatrix, ...] = ("bt601", "bt709", "bt2020")


def packed_shape(size: tuple[int, int]) -> tuple[int, int, int]:
    """The shape of a row with room for YUV 4:2:0 of ``size``, (width, height), both even.

    >>> packed_shape((1920, 1080))
    (541, 1920, 3)
    """
    width, height = size
    return 1 + height // 2, width, 3


def pack_into(picture: Picture, row: UInt8Array) -> Letterbox:
    """Write a picture into a contiguous row of a slot; the answer maps the pixels of what :func:`unpack` makes of it to
    those of the picture. Safe from every thread."""
    assert row.flags.c_contiguous
    room = _room(row)
    width, height = picture.stored_size
    samples = sum(plane.size for plane in picture.planes)
    if samples > len(room):
        shrink = math.sqrt(len(room) / samples)
        # Even sides, for which half a side of chroma is enough.
        width, height = (max(2, 2 * int(side * shrink / 2)) for side in (width, height))
    turn, matrix = _TURNS.index(picture.rotation), _MATRICES.index(picture.matrix)
    said = _SAYS.pack(width, height, _LAYOUTS.index(picture.layout), turn, matrix, picture.full_range)
    row[0] = 0
    row[0].reshape(-1)[: _SAYS.size] = np.frombuffer(said, dtype=np.uint8)
    for plane, place in zip(picture.planes, _planes(room, width, height, picture.layout), strict=True):
        scale_plane(plane, place)
    upright = (height, width) if picture.rotation in (90, 270) else (width, height)
    return Letterbox(source=picture.size, inner=upright, pad=(0, 0))


def unpack(row: UInt8Array) -> Picture:
    """The picture in a row, as views into it.

    Raises:
        ValueError: the row does not say what it holds, or is too short for that.
    """
    width, height, layout, turn, matrix, full_range = _SAYS.unpack(row[0].reshape(-1)[: _SAYS.size].tobytes())
    if not (width or height):
        return Picture(planes=(np.zeros((2, 2, 3), dtype=np.uint8),), layout="rgb24")
    room = _room(row)
    try:
        return Picture(
            planes=tuple(_planes(room, width, height, _LAYOUTS[layout])),
            layout=_LAYOUTS[layout],
            rotation=_TURNS[turn],
            matrix=_MATRICES[matrix],
            full_range=bool(full_range),
        )
    except (IndexError, ValueError) as exc:
        raise ValueError(
            f"a packed picture of {width}x{height}, layout {layout}, {turn} quarter turns, matrix {matrix}: expected "
            f"one of {len(_LAYOUTS)} layouts, {len(_TURNS)} turns and {len(_MATRICES)} matrices, and at most "
            f"{len(room)} samples"
        ) from exc


def _room(row: UInt8Array) -> UInt8Array:
    """What lies behind the first line."""
    return row[1:].reshape(-1)


def _planes(room: UInt8Array, width: int, height: int, layout: PixelLayout) -> Sequence[UInt8Array]:
    """Where the planes of a picture lie; ValueError where there is no room for them."""
    half = ((height + 1) // 2, (width + 1) // 2)
    shapes: dict[PixelLayout, tuple[tuple[int, ...], ...]] = {
        "yuv420p": ((height, width), half, half),
        "nv12": ((height, width), (*half, 2)),
        "rgb24": ((height, width, 3),),
    }
    planes, start = [], 0
    for shape in shapes[layout]:
        stop = start + math.prod(shape)
        planes.append(room[start:stop].reshape(shape))
        start = stop
    return planes
