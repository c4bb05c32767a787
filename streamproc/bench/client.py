"""The pipeline's own way from a picture to its detections through an engine, without cameras and sinks around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import Engine, Outputs, Slot
from streamproc.engines.factory import open_engine
from streamproc.models.heads import Thresholds
from streamproc.models.spec import Head, recognise
from streamproc.preprocess import letterbox_into
from streamproc.types import Detections, Fit, Letterbox, Picture

__all__ = ["PipelineClient", "open_client"]


class PipelineClient:
    """Detects in batches of the same picture: letterbox into a slot, infer, decode, with the pixels on threads."""

    def __init__(self, engine: Engine, head: Head, pixels: ThreadPoolExecutor) -> None:
        self.engine = engine
        self.head = head
        self._pixels = pixels

    async def detect(self, picture: Picture, count: int, thresholds: Thresholds) -> list[Detections]:
        """What is found in each of ``count`` copies of a picture; raises what the engine raises."""
        loop = asyncio.get_running_loop()
        async with self.engine.lease() as slot:
            boxes = await loop.run_in_executor(self._pixels, _fill, picture, slot, count, self.engine.info.fit)
            outputs = await self.engine.infer(slot, count)
            return await loop.run_in_executor(self._pixels, _decode, self.head, outputs, boxes, thresholds)


@asynccontextmanager
async def open_client(engine: EngineConfig, model: ModelConfig, *, threads: int) -> AsyncIterator[PipelineClient]:
    """A client for as long as the block lasts, with ``threads`` for pixels.

    Raises:
        FatalError: the engine or its model cannot be opened, or it is no detector that can be read.
    """
    opened = await open_engine(engine, model)
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="pixels") as pixels:
            yield PipelineClient(opened, recognise(opened.info), pixels)
    finally:
        await opened.close()


def _fill(picture: Picture, slot: Slot, count: int, fit: Fit) -> list[Letterbox]:
    return [letterbox_into(picture, row, fit=fit) for row in slot.images[:count]]


def _decode(head: Head, outputs: Outputs, boxes: list[Letterbox], thresholds: Thresholds) -> list[Detections]:
    return [head.decode(outputs, row, letterbox, thresholds) for row, letterbox in enumerate(boxes)]
