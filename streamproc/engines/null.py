"""An engine that answers at once and finds nothing: whoever measures with it measures everything but inference.

Its slots, leases and waits are those of a real engine. Its answer has the size of a YOLOv8's, all zeros, and comes with
the event loop's next turn, so that post-processing reads as much as it does of a model that looks at an empty scene.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import ModelInfo, Slot, TensorInfo
from streamproc.engines.intake import DEFAULT_SIZE
from streamproc.engines.pool import PooledSlot, SlotPool
from streamproc.labels import COCO_80, resolve_labels

__all__ = ["NullEngine"]

_STRIDES = (8, 16, 32)  # of YOLOv8's feature maps: a box a cell
_OUTPUT = "output0"


class NullEngine:
    """No model at all, in slots of the size that one would have. Made by :meth:`open`."""

    def __init__(self, info: ModelInfo, *, max_batch: int) -> None:
        self.info = info
        self.max_batch = max_batch
        self.concurrency = len(os.sched_getaffinity(0))
        self.description: Mapping[str, str | int] = {
            "kind": "null",
            "finds": "nothing (for measuring only)",
            "requests": self.concurrency,
            "max_batch": max_batch,
        }
        width, height = info.size
        self._pool = SlotPool(
            [PooledSlot(np.zeros((max_batch, height, width, 3), dtype=np.uint8)) for _ in range(self.concurrency + 1)]
        )
        answer = np.zeros(info.outputs[0].shape, dtype=np.float32)
        self._answer: NDArray[np.float32] = np.broadcast_to(answer, (max_batch, *answer.shape[1:]))  # read-only

    @classmethod
    async def open(cls, engine: EngineConfig, model: ModelConfig) -> NullEngine:
        """Make an engine for pictures of ``model.size`` (640 x 640 where it is left out), and for the classes of
        ``model.labels`` (COCO's); no file is read.

        Raises:
            ModelError: the labels file cannot be read.
        """
        labels = resolve_labels(model.labels) or COCO_80
        width, height = size = model.size or DEFAULT_SIZE
        cells = sum(-(-width // stride) * -(-height // stride) for stride in _STRIDES)
        info = ModelInfo(
            name=model.name,
            size=size,
            inputs=(TensorInfo(name="images", dtype="uint8", shape=(-1, height, width, 3)),),
            outputs=(TensorInfo(name=_OUTPUT, dtype="float32", shape=(1, 4 + len(labels), cells)),),
            metadata={"names": str(dict(enumerate(labels)))},
            fit="letterbox" if model.fit == "auto" else model.fit,
        )
        # One picture at a time, as engines on a processor do: more would wait for company that brings nothing.
        return cls(info, max_batch=1 if engine.max_batch == "auto" else engine.max_batch)

    @property
    def slots(self) -> int:
        """Slots in the pool."""
        return len(self._pool)

    @property
    def available(self) -> bool:
        """Always."""
        return True

    def lease(self) -> AbstractAsyncContextManager[Slot]:
        """Wait for a free slot; leaving the context releases it."""
        return self._pool.lease()

    async def infer(self, slot: Slot, count: int, *, patient: bool = False) -> Mapping[str, NDArray[Any]]:
        """Nothing in any of the first ``count`` pictures of a leased slot; views that nobody may write to."""
        own = self._pool.claim(slot, count)
        loop = asyncio.get_running_loop()
        running: asyncio.Future[dict[str, NDArray[Any]]] = loop.create_future()
        loop.call_soon(running.set_result, {_OUTPUT: self._answer[:count]})
        return await self._pool.outcome(own, running)

    async def close(self) -> None:
        """Wait for what is in flight."""
        await self._pool.settle()
