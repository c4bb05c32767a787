"""Pictures to calibrate int8 with: from a folder of pictures, of recordings, or of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamproc.errors import ModelError
from streamproc.repository.pictures import PICTURE_SUFFIXES, Sample, as_sample, read_samples
from streamproc.types import Fit, UInt8Array

__all__ = ["DEFAULT_PICTURES", "CalibrationSet", "find_calibration"]

DEFAULT_PICTURES = 100  # 300 kept no more of yolov8n's accuracy, and took three times as long
_VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".ts", ".m4v", ".webm"}
_FEW = 20  # fewer hardly show the range of what a camera sees


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Which pictures: ``pictures`` are files, ``videos`` maps files to the numbers of the frames that are taken."""

    pictures: tuple[Path, ...]
    videos: dict[Path, tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.pictures) + sum(map(len, self.videos.values()))

    def __str__(self) -> str:
        frames = len(self) - len(self.pictures)
        parts = [_counted(len(self.pictures), "picture")] if self.pictures else []
        if self.videos:
            parts.append(f"{_counted(frames, 'frame')} of {_counted(len(self.videos), 'video')}")
        return " and ".join(parts)

    @property
    def is_small(self) -> bool:
        """Whether what the cameras see is hardly to be found in so few."""
        return len(self) < _FEW

    def samples(self, size: tuple[int, int], fit: Fit = "letterbox") -> Iterator[Sample]:
        """Each picture, fitted into ``size`` (width, height).

        Raises:
            ModelError: a file cannot be read, or a video ends early.
        """
        yield from read_samples(self.pictures, size, fit)
        for path, numbers in self.videos.items():
            for bgr in _frames(path, numbers):
                yield as_sample(path.name, bgr, size, fit)


def find_calibration(place: Path, *, limit: int = DEFAULT_PICTURES) -> CalibrationSet:
    """The pictures and the videos in a folder, or in one file, and which of their pictures to take: always the same.

    Of more than ``limit``, every file has an equal share, evenly spread over a video's length; among files that are
    more than ``limit`` themselves, evenly spread ones are taken.

    Raises:
        ModelError: the place does not exist or holds neither, or a video cannot be read.
    """
    paths = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    if not place.exists():
        raise ModelError(f"calibration {place}: there is no such folder. Name one with pictures like the cameras'.")
    pictures = [path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES]
    videos = [path for path in paths if path.suffix.lower() in _VIDEO_SUFFIXES]
    if not pictures and not videos:
        known = ", ".join(sorted(PICTURE_SUFFIXES | _VIDEO_SUFFIXES))
        raise ModelError(f"calibration {place}: neither pictures nor videos there. Name a folder with some ({known}).")
    there = dict.fromkeys(pictures, 1) | {path: _length(path) for path in videos}
    shares = _shares(there, limit)
    return CalibrationSet(
        pictures=tuple(path for path in pictures if shares[path]),
        videos={path: _spread(there[path], shares[path]) for path in videos if shares[path]},
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


def _shares(there: dict[Path, int], limit: int) -> dict[Path, int]:
    """How many to take of each, at most ``limit`` in all: equal shares, and what the short ones leave to the others."""
    if len(there) > limit:
        chosen = set(_spread(len(there), limit))
        return {path: int(index in chosen) for index, path in enumerate(there)}
    shares: dict[Path, int] = {}
    left = limit
    for count, path in enumerate(sorted(there, key=lambda path: (there[path], path))):
        shares[path] = min(there[path], left // (len(there) - count))
        left -= shares[path]
    return shares


def _spread(count: int, wanted: int) -> tuple[int, ...]:
    """``wanted`` numbers below ``count``, each from the middle of its part.

    >>> _spread(100, 4)
    (12, 37, 62, 87)
    """
    return tuple((2 * index + 1) * count // (2 * wanted) for index in range(wanted))


def _length(path: Path) -> int:
    """Frames of a video as its file tells."""
    video = cv2.VideoCapture(str(path))
    try:
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    finally:
        video.release()
    if frames < 1:
        raise ModelError(f"calibration {path}: it cannot be read as a video. Remove it, or name other files.")
    return frames


def _frames(path: Path, numbers: tuple[int, ...]) -> Iterator[UInt8Array]:
    """The frames of these ascending numbers, (height, width, 3) uint8 BGR; files tell their length imprecisely, so
    what lies beyond the end is left out, unless nothing is left."""
    video = cv2.VideoCapture(str(path))
    wanted, given = set(numbers), 0
    try:
        for number in range(max(numbers) + 1):
            if not video.grab():
                break
            if number in wanted:
                ok, bgr = video.retrieve()
                if ok and min(bgr.shape[:2]) >= 2:
                    given += 1
                    yield np.asarray(bgr, dtype=np.uint8)
    finally:
        video.release()
    if not given:
        raise ModelError(f"calibration {path}: none of its frames can be read. Remove it, or name other files.")
