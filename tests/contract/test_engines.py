"""What every engine promises, the fake one as well."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import pytest_asyncio

from streamproc.config import EngineConfig, ModelConfig, PixelsConfig
from streamproc.engines.base import Engine, Slot
from streamproc.engines.null import NullEngine
from streamproc.engines.onnxruntime import OnnxRuntimeEngine
from streamproc.engines.openvino import OpenVinoEngine
from streamproc.engines.triton import TritonEngine
from streamproc.errors import EngineError
from streamproc.types import UInt8Array
from tests.engines import Kind, open_model
from tests.fakes import FakeEngine
from tests.tiny_models import InputType, save_fragile, save_means
from tests.triton import RunningServer

BATCH = 4

Open: TypeAlias = Callable[[], Awaitable[Engine]]


def means(images: UInt8Array) -> dict[str, np.ndarray]:
    return {"means": images.mean(axis=(1, 2), dtype=np.float32) / np.float32(255)}


def fragile(images: UInt8Array) -> dict[str, np.ndarray]:
    if images[0, 0, 0, 0] == 7:
        raise ArithmeticError("seven")
    return {"mean": images.mean(dtype=np.float32, keepdims=True)[:, :, 0, 0]}


KINDS = [
    "openvino",
    "onnxruntime",
    "fake",
    "triton by system shared memory",
    "triton inline",
    pytest.param("triton by cuda shared memory", marks=pytest.mark.gpu),
]


async def open_served(request: pytest.FixtureRequest, model: str, **settings: Any) -> Engine:
    server: RunningServer = request.getfixturevalue("tiny_triton")
    transport: Any = "none" if request.param == "triton inline" else request.param.split()[2]
    return await TritonEngine.open(
        EngineConfig(kind="triton", url=server.url, shared_memory=transport, **settings), ModelConfig(name=model)
    )


async def open_means(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An engine whose model gives the mean of each channel; batches of up to four pictures of 64 x 32."""
    if request.param == "fake":
        metadata = {"names": "{0: 'red', 1: 'green', 2: 'blue'}"}
        return FakeEngine(means, size=(64, 32), max_batch=BATCH, name="means", metadata=metadata)
    if request.param.startswith("triton"):
        return await open_served(request, "means", max_batch=BATCH)
    kind = OpenVinoEngine if request.param == "openvino" else OnnxRuntimeEngine
    path = save_means(tmp_path / "means.onnx", size=(64, 32))
    return await open_model(kind, path, name="means", max_batch=BATCH, precision="fp32")


@pytest_asyncio.fixture(params=KINDS)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that gives the mean of each channel."""
    opened = await open_means(request, tmp_path)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(params=[*KINDS, "null"])
async def any_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine of the same size, whatever it answers."""
    opened: Engine
    if request.param == "null":
        opened = await NullEngine.open(EngineConfig(max_batch=BATCH), ModelConfig(name="null", size=(64, 32)))
    else:
        opened = await open_means(request, tmp_path)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(params=KINDS)
async def fragile_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine whose model fails where a picture's first value is 7."""
    opened: Engine
    if request.param == "fake":
        opened = FakeEngine(fragile, size=(32, 32), name="fragile")
    elif request.param.startswith("triton"):
        opened = await open_served(request, "fragile")
    else:
        kind = OpenVinoEngine if request.param == "openvino" else OnnxRuntimeEngine
        opened = await open_model(kind, save_fragile(tmp_path / "fragile.onnx"), name="fragile")
    yield opened
    await opened.close()


def paint(slot: Slot, row: int, number: int) -> None:
    """Fill a row with a colour that tells its number, 0..65535."""
    slot.images[row] = (number % 256, number // 256, 99)


def number_of(row: np.ndarray) -> int:
    red, green, blue = np.rint(row * 255).astype(int)
    assert blue == 99
    return int(red + 256 * green)


def test_says_what_it_runs(engine: Engine) -> None:
    assert engine.info.name == "means"
    assert engine.info.size == (64, 32)
    assert len(engine.info.inputs) == 1
    (output,) = engine.info.outputs
    assert (output.name, output.dtype, output.shape) == ("means", "float32", (1, 3))
    assert engine.info.metadata["names"].startswith("{0: 'red'")
    assert engine.max_batch == BATCH
    assert engine.slots >= 2
    assert engine.description["kind"] in ("openvino", "onnxruntime", "triton", "fake")


async def test_a_slot_is_writable_pixels(any_engine: Engine) -> None:
    async with any_engine.lease() as slot:
        assert slot.images.shape == (BATCH, 32, 64, 3)
        assert slot.images.dtype == np.uint8
        assert slot.images.flags.writeable
        assert slot.images.flags.c_contiguous


@pytest.mark.parametrize("count", range(1, BATCH + 1))
async def test_row_by_row(engine: Engine, count: int) -> None:
    async with engine.lease() as slot:
        for row in range(BATCH):
            paint(slot, row, 1000 + row)
        outputs = await engine.infer(slot, count)
        assert outputs["means"].shape == (count, 3)
        assert [number_of(row) for row in outputs["means"]] == [1000 + row for row in range(count)]


async def test_batches_at_once_are_not_mixed_up(engine: Engine) -> None:
    async def run(first: int) -> list[int]:
        async with engine.lease() as slot:
            for row in range(BATCH):
                paint(slot, row, first + row)
            outputs = await engine.infer(slot, BATCH)
            return [number_of(row) for row in outputs["means"]]

    async with asyncio.TaskGroup() as group:
        tasks = {first: group.create_task(run(first)) for first in range(0, 400, BATCH)}
    for first, task in tasks.items():
        assert task.result() == list(range(first, first + BATCH))


async def test_each_slot_has_one_holder(any_engine: Engine) -> None:
    async with AsyncExitStack() as stack:
        leased = [await stack.enter_async_context(any_engine.lease()) for _ in range(any_engine.slots)]
        assert len({id(slot) for slot in leased}) == any_engine.slots
        waiting = asyncio.ensure_future(stack.enter_async_context(any_engine.lease()))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await lease_all(any_engine)


async def lease_all(engine: Engine) -> None:
    """Ends when every slot is in the pool."""
    async with AsyncExitStack() as stack:
        for _ in range(engine.slots):
            await stack.enter_async_context(engine.lease())


@pytest.mark.parametrize("count", [-1, 0, BATCH + 1])
async def test_refuses_a_count_out_of_range(any_engine: Engine, count: int) -> None:
    async with any_engine.lease() as slot:
        with pytest.raises(ValueError, match=rf"count: expected 1\.\.{BATCH}, got {count}"):
            await any_engine.infer(slot, count)


async def test_refuses_a_slot_that_was_released(any_engine: Engine) -> None:
    async with any_engine.lease() as slot:
        pass
    with pytest.raises(ValueError, match="leased"):
        await any_engine.infer(slot, 1)


async def test_a_cancelled_inference_gives_its_slot_back_in_the_end(engine: Engine) -> None:
    async def run() -> None:
        async with engine.lease() as slot:
            await engine.infer(slot, BATCH)

    for _ in range(2 * engine.slots):
        task = asyncio.ensure_future(run())
        await asyncio.sleep(0)  # leases
        await asyncio.sleep(0)  # starts
        task.cancel()
        await asyncio.wait([task])
    await lease_all(engine)
    async with engine.lease() as slot:
        paint(slot, 0, 77)
        assert number_of((await engine.infer(slot, 1))["means"][0]) == 77


async def test_a_failure_names_the_model_and_the_engine_goes_on(fragile_engine: Engine) -> None:
    async with fragile_engine.lease() as slot:
        slot.images[:] = 7
        with pytest.raises(EngineError, match=r"model fragile: .*failed in an inference"):
            await fragile_engine.infer(slot, 1)
        slot.images[:] = 0
        assert (await fragile_engine.infer(slot, 1))["mean"].shape == (1, 1)
    await lease_all(fragile_engine)


async def test_a_failure_that_nobody_waits_for_gives_its_slot_back(fragile_engine: Engine) -> None:
    for _ in range(fragile_engine.slots):
        async with fragile_engine.lease() as slot:
            slot.images[:] = 7
            task = asyncio.ensure_future(fragile_engine.infer(slot, 1))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    await lease_all(fragile_engine)


async def test_close_waits_for_what_is_in_flight(engine: Engine) -> None:
    answered = asyncio.Event()

    async def run() -> int:
        async with engine.lease() as slot:
            paint(slot, 0, 5)
            number = number_of((await engine.infer(slot, 1))["means"][0])
            answered.set()
            return number

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await engine.close()
    assert await task == 5
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("onnxruntime") for name in names)


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime", "triton"])
async def test_a_closed_engine_leaves_nothing_behind(kind: str, tmp_path: Path, tiny_triton: RunningServer) -> None:
    engine: Engine
    if kind == "triton":
        engine = await TritonEngine.open(EngineConfig(kind="triton", url=tiny_triton.url), ModelConfig(name="means"))
    else:
        in_process: Kind = OpenVinoEngine if kind == "openvino" else OnnxRuntimeEngine
        engine = await open_model(in_process, save_means(tmp_path / "means.onnx"), name="means")
    async with engine.lease() as slot:
        await engine.infer(slot, 1)
    traces: list[weakref.ref[object]] = [weakref.ref(engine), weakref.ref(slot)]
    await engine.close()
    del engine, slot
    gc.collect()
    assert [trace() for trace in traces] == [None, None]
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"streamproc-{os.getpid()}-")]
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith(("onnxruntime", "triton_")) for name in names)


@pytest.mark.parametrize("kind", [OpenVinoEngine, OnnxRuntimeEngine])
@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize(
    ("dtype", "pixels"),
    [
        ("float32", PixelsConfig(color="bgr", scale=(1, 1, 1))),
        ("float32", PixelsConfig(mean=(123.675, 116.28, 103.53), scale=(0.01712, 0.01751, 0.01743))),
        ("float16", PixelsConfig(color="bgr", mean=(104, 117, 123), scale=(0.5, 0.25, -0.125))),
        ("float32", PixelsConfig(color="bgr", mean=(127.5,) * 3, scale=(0.0078125,) * 3)),
        ("uint8", PixelsConfig(color="bgr")),
    ],
)
async def test_a_model_gets_the_pixels_that_it_wants(
    kind: Kind, tmp_path: Path, channels_first: bool, dtype: InputType, pixels: PixelsConfig
) -> None:
    path = save_means(tmp_path / "means.onnx", dtype=dtype, channels_first=channels_first, size=(64, 32))
    engine = await open_model(kind, path, name="means", precision="fp32", max_batch=2, pixels=pixels)
    images = np.random.default_rng(2).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    try:
        async with engine.lease() as slot:
            slot.images[:] = images
            found = (await engine.infer(slot, 2))["means"].copy()
    finally:
        await engine.close()
    ordered = images.mean(axis=(1, 2))[:, :: -1 if pixels.color == "bgr" else 1]
    factor = np.array(pixels.scale or (1 if dtype == "uint8" else 1 / 255))
    np.testing.assert_allclose(found, (ordered - pixels.mean) * factor, rtol=2e-3, atol=2e-3)
