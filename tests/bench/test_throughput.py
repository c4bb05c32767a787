"""Figures, side by side in one run: decoding alone, the bare engine, and the whole pipeline."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from pathlib import Path

import psutil
import pytest

from streamproc import app
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig
from streamproc.engines.factory import open_engine
from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader

pytestmark = [pytest.mark.bench, pytest.mark.shared_data]

ROUNDS = 3
CAMERAS = 4


def cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


def decode_only(video: Path) -> float:
    """CPU milliseconds a frame of demuxing, decoding and stamping, on one thread."""
    reader = AvReader(
        "bench",
        emit=lambda _: None,
        ledger=CameraLedger("bench"),
        on_online=lambda: None,
        stop=threading.Event(),
        realtime=False,
    )
    before_s = cpu_s()
    reader.read_file(video)
    return (cpu_s() - before_s) * 1e3 / reader.emitted


async def bare_engine(model: Path, images: int) -> tuple[float, float]:
    """(images/s, CPU ms an image) of the engine with every slot kept busy and nothing around it."""
    engine = await open_engine(EngineConfig(), ModelConfig(path=model))
    left = images

    async def worker() -> None:
        nonlocal left
        async with engine.lease() as slot:
            while left > 0:
                left -= 1
                await engine.infer(slot, 1)

    before_s, started_s = cpu_s(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(engine.slots)))
    wall_s, used_s = time.perf_counter() - started_s, cpu_s() - before_s
    await engine.close()
    return images / wall_s, used_s * 1e3 / images


async def whole_pipeline(model: Path, video: Path) -> tuple[float, float]:
    """(frames/s, CPU ms a frame) of four files through the whole pipeline, without a broker."""
    cameras = {f"camera{i}": CameraConfig(url=str(video), realtime=False, files=(video,)) for i in range(CAMERAS)}
    config = Config(model=ModelConfig(path=model, labels="coco"), cameras=cameras)
    before_s = cpu_s()
    outcome = await app.run(config, stop=asyncio.Event())
    totals = outcome.report["totals"]
    assert totals["published"] == totals["received"]
    return totals["published"] / outcome.report["active_s"], (cpu_s() - before_s) * 1e3 / totals["published"]


def test_pipeline_against_bare_engine(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = shared_data / "videos" / "pedestrians_street_1080p.mp4"
    model = shared_data / "models" / "yolov8n.onnx"
    rows = []
    for _ in range(ROUNDS):
        decode_ms = decode_only(video)
        bare_fps, bare_ms = asyncio.run(bare_engine(model, 300))
        fps, ms = asyncio.run(whole_pipeline(model, video))
        rows.append((decode_ms, bare_fps, fps, fps / bare_fps, ms - bare_ms - decode_ms))
    names = ("decode only, CPU ms", "bare engine, images/s", "pipeline, images/s", "ratio", "CPU ms beyond both")
    with capsys.disabled():
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            print(f"\n{name:24}" + "".join(f"{v:9.2f}" for v in values) + f"   median {statistics.median(values):.2f}")
