"""Pictures to calibrate and verify with, letterboxed as the cameras' are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamproc.errors import ModelError
from streamproc.preprocess import letterbox_into
from streamproc.types import Fit, Letterbox, Picture, UInt8Array

__all__ = ["PICTURE_SUFFIXES", "Sample", "as_sample", "drawn_sample", "find_pictures", "read_samples"]

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """``image`` (height, width, 3) uint8 RGB as a model sees it, and how the picture lies in it."""

    name: str
    image: UInt8Array
    letterbox: Letterbox


def find_pictures(places: Iterable[Path], *, limit: int) -> tuple[Path, ...]:
    """Picture files, and those in folders, in order of name; of more than ``limit``, evenly spread ones.

    Raises:
        ModelError: a place does not exist, or holds no picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        else:
            inside = [place] if place.is_file() else []
        if not inside:
            known = ", ".join(sorted(PICTURE_SUFFIXES))
            raise ModelError(f"{place}: no pictures there. Name a picture, or a folder with {known}.")
        found += inside
    step = max(1.0, len(found) / limit)
    return tuple(found[int(index * step)] for index in range(min(limit, len(found))))


def read_samples(paths: Iterable[Path], size: tuple[int, int], fit: Fit = "letterbox") -> Iterator[Sample]:
    """Pictures one by one, fitted into ``size`` (width, height).

    Raises:
        ModelError: a file cannot be read as a picture.
    """
    for path in paths:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None or min(bgr.shape[:2]) < 2:
            raise ModelError(f"{path}: it cannot be read as a picture. Remove it, or name others.")
        yield as_sample(path.name, np.asarray(bgr, dtype=np.uint8), size, fit)


def drawn_sample(size: tuple[int, int], fit: Fit = "letterbox") -> Sample:
    """A picture for when there is none: shapes of every colour and size on noise, and some words, always the same."""
    generator = np.random.default_rng(8400)
    canvas = generator.integers(90, 160, (720, 1280, 3), dtype=np.uint8)
    for _ in range(60):
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        x, y, across = (int(value) for value in generator.integers((0, 0, 20), (1280, 720, 200)))
        cv2.rectangle(canvas, (x, y), (x + across, y + 2 * across), colour, -1)
        cv2.circle(canvas, (x + across // 2, y), across // 2, colour[::-1], -1)
    for line, words in enumerate(("GATE 24", "EXIT NORTH", "4711")):
        corner = (120 + 380 * line, 180 + 160 * line)
        cv2.rectangle(canvas, (corner[0] - 30, corner[1] - 80), (corner[0] + 360, corner[1] + 40), (240, 240, 240), -1)
        cv2.putText(canvas, words, corner, cv2.FONT_HERSHEY_SIMPLEX, 1.8, (20, 20, 20), 5, cv2.LINE_AA)
    return as_sample("a drawn picture", canvas, size, fit)


def as_sample(name: str, bgr: UInt8Array, size: tuple[int, int], fit: Fit = "letterbox") -> Sample:
    """A decoded picture (height, width, 3), fitted into ``size`` (width, height).

    It goes the way of a camera's picture: 4:2:0 first, whose sides are even, then as :mod:`streamproc.preprocess` does.
    """
    height, width = (side & ~1 for side in bgr.shape[:2])
    planar = np.asarray(cv2.cvtColor(bgr[:height, :width], cv2.COLOR_BGR2YUV_I420), dtype=np.uint8)
    y, chroma = planar[:height], planar[height:].reshape(2, height // 2, width // 2)
    picture = Picture(planes=(y, chroma[0], chroma[1]), layout="yuv420p")
    image = np.empty((size[1], size[0], 3), dtype=np.uint8)
    letterbox = letterbox_into(picture, image, fit=fit)
    image.setflags(write=False)
    return Sample(name=name, image=image, letterbox=letterbox)
