"""Figures: how many cameras everything but inference carries, and what two processes make of it."""

from __future__ import annotations

import asyncio
import statistics
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream

from streamproc.bench.capacity import Plan, measure_capacity
from streamproc.bench.capacity_report import sentence, trial_line
from streamproc.bench.measured import figures_of
from streamproc.bench.trials import run_trial
from streamproc.bench.usage import GpuMeter
from streamproc.bench.workload import Workload, look_around
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig

pytestmark = [pytest.mark.bench, pytest.mark.shared_data]

RATE, BITS_PER_S = 24, 4_000_000
TARGET, MAX_AGE_MS, TARGET_CORES = 14, 100, 2
WORKER_CAMERAS, ROUNDS = 24, 3


@pytest.fixture(scope="module")
def camera_video(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a camera sends: 1080p24 at 4 Mb/s in H.264, a keyframe each second, no B-frames."""
    path = tmp_path_factory.mktemp("video") / "camera.mp4"
    source = shared_data / "videos" / "yard_ru_1.ts"
    with av.open(str(source)) as given, av.open(str(path), "w") as written:
        encoder = an_encoder(written)
        for index, frame in enumerate(given.decode(video=0)):
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            frame.pict_type = PictureType.NONE  # or its keyframes would be where the source has them
            written.mux(encoder.encode(frame))
        written.mux(encoder.encode(None))
    return path


def an_encoder(container: OutputContainer) -> VideoStream:
    options = {"preset": "veryfast", "bf": "0", "maxrate": str(BITS_PER_S), "bufsize": str(BITS_PER_S)}
    stream = container.add_stream("libx264", rate=RATE, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
    stream.bit_rate, stream.gop_size = BITS_PER_S, RATE
    stream.codec_context.time_base = Fraction(1, RATE)
    return stream


def null_cameras(video: Path) -> Workload:
    camera = CameraConfig(url=str(video), files=(video,), loop=True)
    config = Config(engine=EngineConfig(kind="null"), model=ModelConfig(name="null"), cameras={"camera": camera})
    return asyncio.run(look_around(config))


def test_cameras_without_inference(camera_video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(rates=(RATE,), warm_up=5, seconds=10, limit=256, workers=1)
    with capsys.disabled():
        print()
        report = asyncio.run(
            measure_capacity(null_cameras(camera_video), plan, on_trial=lambda trial: print(trial_line(trial)))
        )
        (answer,) = report.answers
        print(f"{sentence(answer)}; target on {TARGET_CORES} cores: {TARGET} cameras, p95 at most {MAX_AGE_MS} ms")
        if answer.held is not None:
            figures = answer.held.figures
            print(f"CPU a frame: {1e3 * figures.cpu_cores / figures.published_fps:.2f} ms; {report.memory}")
        print(*report.notes, sep="\n")


def test_two_processes_against_one(camera_video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many frames, no older: in turns, as the machine has its moods."""
    config = null_cameras(camera_video).with_cameras(WORKER_CAMERAS, RATE)
    rates: dict[int, list[float]] = {1: [], 2: []}
    ages_ms: dict[int, list[float]] = {1: [], 2: []}
    with GpuMeter() as gpus:
        for _ in range(ROUNDS):
            for workers in rates:
                record = asyncio.run(run_trial(config, looks=15, workers=workers, gpus=gpus))
                figures = figures_of(record, warm_up=5)
                rates[workers].append(figures.published_fps)
                ages_ms[workers].append(figures.ages.percentile(95) or 0.0)
    with capsys.disabled():
        for workers in rates:
            print(
                f"\n{workers} worker(s), {WORKER_CAMERAS} cameras: {statistics.median(rates[workers]):.0f} frames/s, "
                f"p95 age {statistics.median(ages_ms[workers]):.0f} ms",
                end="",
            )
        print(f"\nratio {statistics.median(rates[2]) / statistics.median(rates[1]):.2f}")
