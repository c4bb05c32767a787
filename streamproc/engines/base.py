"""The contract between the pipeline and whatever runs the model.

An engine owns a fixed pool of slots. The pipeline leases one, writes a batch of letterboxed pictures into it, asks for
inference, reads the outputs, and releases the lease exactly once. Outputs are views into the slot: finish with them
before the release.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from streamproc.types import Fit, UInt8Array

__all__ = ["UNIT_RGB", "Engine", "ModelInfo", "Outputs", "Pixels", "Slot", "TensorInfo"]

Outputs: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a model: its name, numpy dtype name ("string" for text), shape with -1 for an open dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """What a model is given of a pixel: (value - mean) * scale for each channel, from values of 0..255.

    ``color`` is the order of its channels, and of the numbers in ``mean`` and ``scale``. Models of uint8 take the
    values as they are.
    """

    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1 / 255, 1 / 255, 1 / 255)


UNIT_RGB = Pixels()
"""What most models take: red, green and blue from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a loaded model takes and gives, as the engine runs it.

    ``size`` is the picture the model sees, (width, height) in pixels. ``inputs`` are the model's own tensors;
    ``outputs`` have the shapes of a real inference of one picture (batch 1), so nothing but an odd batch is open.
    ``metadata`` is what the exporter wrote into the file (``names``, ``task``, ``stride``, ...), empty if nothing.
    ``fit``: how pictures are to lie in its input.
    """

    name: str
    size: tuple[int, int]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    fit: Fit = "letterbox"


class Slot(Protocol):
    """One leased input buffer."""

    @property
    def images(self) -> UInt8Array:
        """(max_batch, height, width, 3) uint8 RGB, writable; row i is the batch's i-th picture."""
        ...


class Engine(Protocol):
    """A model that is loaded, warmed up and ready."""

    @property
    def info(self) -> ModelInfo:
        """What the model takes and gives."""
        ...

    @property
    def max_batch(self) -> int:
        """Most pictures in one batch."""
        ...

    @property
    def concurrency(self) -> int:
        """Batches that it works on at once; one more would wait."""
        ...

    @property
    def slots(self) -> int:
        """Slots in the pool: how many batches may be in preparation, in flight and in post-processing at once."""
        ...

    @property
    def description(self) -> Mapping[str, str | int]:
        """For people and the report: kind, device, precision, ..."""
        ...

    def lease(self) -> AbstractAsyncContextManager[Slot]:
        """Wait for a free slot; leaving the context releases it. A slot that an unfinished inference may still
        touch is held back until it cannot."""
        ...

    @property
    def available(self) -> bool:
        """Whether it can take work now; an engine in this process always can."""
        ...

    async def infer(self, slot: Slot, count: int, *, patient: bool = False) -> Outputs:
        """Run the first ``count`` pictures of a leased slot; each output has ``count`` as its first dimension.

        ``patient``: where the engine is away (a server that restarts), wait and try again rather than raise.

        Raises:
            EngineAwayError: this batch is lost, but the engine may come back.
            EngineError: the inference failed; the message names the model and the cause.
            ValueError: ``count`` is not in 1..max_batch.
        """
        ...

    async def close(self) -> None:
        """Wait for what is in flight, then free everything. No call may follow."""
        ...
