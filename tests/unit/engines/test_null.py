"""The engine that answers at once: what it answers, and that it can stand in for any model."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import numpy as np
import pytest

from streamproc.config import CameraConfig, EngineConfig, ModelConfig
from streamproc.engines.factory import open_engine
from streamproc.engines.null import NullEngine
from streamproc.labels import COCO_80
from streamproc.models.spec import recognise
from streamproc.types import Letterbox

NULL = EngineConfig(kind="null")


async def test_finds_nothing_in_any_picture_of_a_batch() -> None:
    engine = await open_engine(EngineConfig(kind="null", max_batch=3), ModelConfig(name="m", size=(64, 32)))
    head = recognise(engine.info)
    box = Letterbox.fit((64, 32), (64, 32))
    thresholds = head.thresholds(ModelConfig(name="m", confidence=0.001), CameraConfig(url="a.mp4"))
    async with engine.lease() as slot:
        slot.images[:] = 255
        outputs = await engine.infer(slot, 2)
        assert [len(head.decode(outputs, row, box, thresholds).boxes) for row in range(2)] == [0, 0]
        assert all(values.shape[0] == 2 for values in outputs.values())
    await engine.close()


@pytest.mark.parametrize(
    ("labels", "expected"), [(None, COCO_80), ("coco", COCO_80), (("person", "car"), ("person", "car"))]
)
async def test_is_taken_for_a_yolov8(labels: object, expected: tuple[str, ...]) -> None:
    model = ModelConfig.model_validate({"name": "m", "labels": labels})
    engine = await NullEngine.open(NULL, model)
    head = recognise(engine.info)
    assert (head.name, head.labels, engine.info.size) == ("yolo", expected, (640, 640))
    assert engine.info.outputs[0].shape == (1, 4 + len(expected), 8400)
    assert "measuring" in str(engine.description["finds"])


async def test_answers_are_read_only() -> None:
    engine = await NullEngine.open(NULL, ModelConfig(name="m", size=(64, 64)))
    async with engine.lease() as slot:
        (values,) = (await engine.infer(slot, 1)).values()
    assert not values.flags.writeable
    assert not np.any(values)


async def test_a_cancelled_inference_gives_its_slot_back() -> None:
    engine = await NullEngine.open(NULL, ModelConfig(name="m", size=(64, 64)))
    for _ in range(2 * engine.slots):
        async with engine.lease() as slot:
            task = asyncio.ensure_future(engine.infer(slot, 1))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    async with AsyncExitStack() as stack:
        for _ in range(engine.slots):
            await stack.enter_async_context(engine.lease())
    await engine.close()
