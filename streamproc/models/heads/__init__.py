"""Heads: from a model's output tensors to detections, or to what it says of a whole crop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamproc.types import Detections, Letterbox

__all__ = ["Answer", "Classified", "Decoder", "Embedded", "Reader", "TextRead", "Thresholds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What counts as a detection.

    ``confidence``: least score, 0..1. ``iou``: boxes of a class that overlap by more are one object. ``class_ids``:
    the classes wanted, None for all. ``max_detections``: most of them, the best first.
    """

    confidence: float
    iou: float
    class_ids: frozenset[int] | None
    max_detections: int


class Decoder(Protocol):
    """Knows one kind of output. Safe from every thread."""

    @property
    def name(self) -> str:
        """The kind of output, for people."""
        ...

    @property
    def has_corners(self) -> bool:
        """Whether an object's keypoints are its four corners, clockwise from its own top left."""
        ...

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture of a batch, in source pixels, best first; copies, independent of the slot."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """``labels``: (name, confidence 0..1) pairs, best first; none, and false, where the model's answer is no answer."""

    labels: tuple[tuple[str, float], ...]

    def __bool__(self) -> bool:
        return bool(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRead:
    """``text`` as read, and a ``confidence`` in 0..1 that does not fall with its length; false where it is empty."""

    text: str
    confidence: float

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedded:
    """``embedding``: (d,) float32 of length 1, so that a scalar product is a cosine; all zero, and false, where the
    model's answer is no answer."""

    embedding: NDArray[np.float32]

    def __bool__(self) -> bool:
        return bool(self.embedding.any())


Answer: TypeAlias = Detections | Classified | TextRead | Embedded
"""What a secondary model says of a crop; false where that is nothing."""

AnswerT_co = TypeVar("AnswerT_co", bound=Answer, covariant=True)


class Reader(Protocol[AnswerT_co]):
    """Knows one kind of output that says something of a whole picture. Safe from every thread."""

    @property
    def name(self) -> str:
        """The kind of output, for people."""
        ...

    def read(self, outputs: Mapping[str, NDArray[Any]], row: int) -> AnswerT_co:
        """What is said of one picture of a batch; a copy, independent of the slot. Any values give an answer."""
        ...
