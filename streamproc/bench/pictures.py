"""The picture that every client of a comparison starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamproc.errors import ConfigError, Problem
from streamproc.preprocess import to_bgr
from streamproc.types import Picture, UInt8Array

__all__ = ["DecodedPicture", "drawn_picture", "read_picture"]

_SIZE = (1920, 1080)  # what most cameras send


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedPicture:
    """One picture in the two forms that decoders give: ``yuv`` as libav has it, ``bgr`` (height, width, 3) uint8 as
    OpenCV's readers have it. ``name`` is for people."""

    name: str
    yuv: Picture
    bgr: UInt8Array

    @classmethod
    def of(cls, name: str, bgr: UInt8Array) -> DecodedPicture:
        """The picture as 4:2:0, whose sides are even, and what that looks like in BGR: both show the same."""
        height, width = (side & ~1 for side in bgr.shape[:2])
        planar = np.asarray(cv2.cvtColor(bgr[:height, :width], cv2.COLOR_BGR2YUV_I420), dtype=np.uint8)
        chroma = planar[height:].reshape(2, height // 2, width // 2)
        yuv = Picture(planes=(planar[:height], chroma[0], chroma[1]), layout="yuv420p")
        return cls(name=name, yuv=yuv, bgr=to_bgr(yuv))


def read_picture(path: Path) -> DecodedPicture:
    """A picture file.

    Raises:
        ConfigError: it cannot be read as a picture.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if bgr is None or min(bgr.shape[:2]) < 2:
        expected, remedy = "a picture file (JPEG, PNG, ...)", "Correct the path, or leave it out."
        raise ConfigError("bench", [Problem(key="--picture", found=str(path), expected=expected, remedy=remedy)])
    return DecodedPicture.of(path.name, np.asarray(bgr, dtype=np.uint8))


def drawn_picture() -> DecodedPicture:
    """Shapes of every colour and size on noise, always the same; few detectors see anything in it."""
    width, height = _SIZE
    generator = np.random.default_rng(1080)
    canvas = generator.integers(90, 160, (height, width, 3), dtype=np.uint8)
    for _ in range(40):
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        x, y, across = (int(value) for value in generator.integers((0, 0, 20), (width, height, 200)))
        cv2.ellipse(canvas, (x, y), (across // 2, across), 0, 0, 360, colour, -1)
    return DecodedPicture.of("a drawn picture", canvas)
