"""The engine with nothing around it, as fast as it goes: what a pipeline is judged against."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from streamproc.bench.load import put_under_load
from streamproc.bench.pictures import drawn_picture
from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import Engine
from streamproc.engines.factory import open_engine
from streamproc.preprocess import letterbox_into

__all__ = ["BareEngine", "Way", "measure_bare_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How an engine is kept busy: ``concurrency`` batches of ``batch`` pictures at every moment."""

    batch: int
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BareEngine:
    """What an engine does by itself.

    ``cpu_ms`` is processor time of its process for each image, user + system; with a server, the client's alone.
    ``description`` is what the engine says of itself, ``metadata`` what the model's exporter wrote into the file.
    """

    way: Way
    images_per_s: float
    cpu_ms: float
    description: Mapping[str, str | int]
    metadata: Mapping[str, str]


def measure_bare_engine(engine: EngineConfig, model: ModelConfig, way: Way | None, seconds: float) -> BareEngine:
    """Keep an engine busy for ``seconds``; without a ``way``, in every way, of which the fastest is told. For a process
    of its own.

    Raises:
        FatalError: the engine or its model cannot be opened, or inference after inference fails.
    """
    return asyncio.run(_measure(engine, model, way, seconds))


async def _measure(engine: EngineConfig, model: ModelConfig, way: Way | None, seconds: float) -> BareEngine:
    opened = await open_engine(engine, model)
    try:
        await _fill_slots(opened)
        ways = _ways(opened) if way is None else [way]
        return max([await _keep_busy(opened, one, seconds) for one in ways], key=lambda found: found.images_per_s)
    finally:
        await opened.close()


def _ways(engine: Engine) -> list[Way]:
    """One picture a batch or as many as the engine takes; one batch at a time, or up to as many as there are slots."""
    return [
        Way(batch=batch, concurrency=concurrency)
        for batch in sorted({1, engine.max_batch})
        for concurrency in range(1, engine.slots + 1)
    ]


async def _keep_busy(engine: Engine, way: Way, seconds: float) -> BareEngine:
    async def request() -> None:
        async with engine.lease() as slot:
            await engine.infer(slot, way.batch)

    async def nothing_else() -> None:
        pass

    load = await put_under_load(request, workers=way.concurrency, seconds=seconds, read=nothing_else)
    images = load.requests * way.batch
    return BareEngine(
        way=way,
        images_per_s=images / load.wall_s,
        cpu_ms=load.cpu_s * 1e3 / images,
        description=dict(engine.description),
        metadata=dict(engine.info.metadata),
    )


async def _fill_slots(engine: Engine) -> None:
    """With a picture, as zeros may be faster than anything a camera sees."""
    picture = drawn_picture().yuv
    async with AsyncExitStack() as leased:
        for _ in range(engine.slots):
            slot = await leased.enter_async_context(engine.lease())
            letterbox_into(picture, slot.images[0])
            slot.images[1:] = slot.images[0]
