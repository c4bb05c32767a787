"""Decoders: from a model's output tensors to detections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from streamproc.types import Detections, Letterbox

__all__ = ["Decoder", "Thresholds"]


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

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture of a batch, in source pixels, best first; copies, independent of the slot."""
        ...
