"""Stand-ins that keep the same contracts as the real parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import ModelInfo, Slot, TensorInfo
from streamproc.engines.pool import PooledSlot, SlotPool
from streamproc.errors import EngineError
from streamproc.types import UInt8Array

__all__ = ["FakeEngine"]


class FakeEngine:
    """An engine whose model is a Python function.

    Args:
        model: from the images (n, height, width, 3) to the outputs, each with n as its first dimension; an exception
            of its own becomes an EngineError, as a real engine's would.
        size: (width, height) of the pictures it takes.
        gate: inferences wait until it is set; without one they end at once.
    """

    def __init__(
        self,
        model: Callable[[UInt8Array], dict[str, NDArray[Any]]],
        *,
        size: tuple[int, int] = (640, 640),
        max_batch: int = 1,
        slots: int = 3,
        gate: asyncio.Event | None = None,
        name: str = "fake",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        width, height = size
        self.max_batch = max_batch
        self.slots = slots
        self.concurrency = slots
        self.description: Mapping[str, str | int] = {"kind": "fake", "max_batch": max_batch}
        self.gate = gate
        self.started = 0
        self._model = model
        self._pool = SlotPool(
            [PooledSlot(np.zeros((max_batch, height, width, 3), dtype=np.uint8)) for _ in range(slots)]
        )
        outputs = model(np.zeros((1, height, width, 3), dtype=np.uint8))
        self.info = ModelInfo(
            name=name,
            size=size,
            inputs=(TensorInfo(name="images", dtype="uint8", shape=(-1, height, width, 3)),),
            outputs=tuple(
                TensorInfo(name=key, dtype=str(value.dtype), shape=value.shape) for key, value in outputs.items()
            ),
            metadata=metadata or {},
        )

    @property
    def available(self) -> bool:
        """Always."""
        return True

    def lease(self) -> AbstractAsyncContextManager[Slot]:
        """Wait for a free slot; leaving the context releases it."""
        return self._pool.lease()

    async def infer(self, slot: Slot, count: int, *, patient: bool = False) -> Mapping[str, NDArray[Any]]:
        """Run the function on the first ``count`` pictures, once the gate is open."""
        own = self._pool.claim(slot, count)
        self.started += 1
        try:
            return await self._pool.outcome(own, asyncio.ensure_future(self._answer(own.images[:count])))
        except ArithmeticError as exc:
            raise EngineError(f"model {self.info.name}: the fake failed in an inference: {exc}") from exc

    async def close(self) -> None:
        """Wait for what is in flight."""
        await self._pool.settle()

    async def _answer(self, images: UInt8Array) -> dict[str, NDArray[Any]]:
        if self.gate is not None:
            await self.gate.wait()
        return self._model(images)
