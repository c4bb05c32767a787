"""What the engine's contract costs: the same model and settings, bare and through the engine, in turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino.preprocess import PrePostProcessor

from streamproc.engines.base import Engine
from streamproc.engines.openvino import OpenVinoEngine
from tests.engines import open_model

ROUNDS = 8
PICTURES = 100


class Bare:
    """OpenVINO with nothing around it: as many requests at once, each started again as soon as it is done."""

    def __init__(self, path: Path, precision: str, requests: int) -> None:
        core = ov.Core()
        steps = PrePostProcessor(core.read_model(path))
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        model = steps.build()
        model.reshape([1, 640, 640, 3])
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
        self._queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", settings), requests)
        self._image = np.zeros((1, 640, 640, 3), dtype=np.uint8)

    def run(self, count: int) -> float:
        """Pictures a second."""
        started = time.perf_counter()
        for _ in range(count):
            self._queue.start_async({0: self._image}, share_inputs=True)
        self._queue.wait_all()
        return count / (time.perf_counter() - started)


async def through_engine(engine: Engine, count: int) -> float:
    """Pictures a second."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            async with engine.lease() as slot:
                await engine.infer(slot, 1)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(engine.slots):
            group.create_task(work())
    return count / (time.perf_counter() - started)


@pytest.mark.bench
@pytest.mark.shared_data
async def test_close_to_the_bare_engine(shared_data: Path) -> None:
    path = shared_data / "models" / "yolov8n.onnx"
    engine = await open_model(OpenVinoEngine, path, name="yolov8n")
    try:
        precision = {"fp32": "f32"}.get(str(engine.description["precision"]), str(engine.description["precision"]))
        bare = Bare(path, precision, engine.slots)
        ratios = []
        for _ in range(ROUNDS):
            alone, ours = bare.run(PICTURES), await through_engine(engine, PICTURES)
            ratios.append(ours / alone)
            print(f"bare {alone:.1f}, engine {ours:.1f} pictures/s: {ours / alone:.3f}")
    finally:
        await engine.close()
    print(f"median ratio {statistics.median(ratios):.3f}, {engine.description}")
