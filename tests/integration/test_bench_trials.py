"""Trials in processes of their own: real ones, and those that end as they should not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from streamproc.bench import trials
from streamproc.bench.trials import Record, run_trial
from streamproc.bench.usage import GpuMeter
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig
from streamproc.errors import FatalError, ModelError


def config(video: Path, **settings: object) -> Config:
    camera = CameraConfig(url=str(video), files=(video,), loop=True)
    base = Config(engine=EngineConfig(kind="null"), model=ModelConfig(name="null"), cameras={"gate": camera})
    return base.model_copy(update=settings)


async def trial(wanted: Config, looks: int = 1) -> Record:
    with GpuMeter() as gpus:
        return await run_trial(wanted, looks=looks, workers=1, gpus=gpus)


async def test_a_trial_tells_every_second(samples: Path) -> None:
    seen: list[int] = []
    with GpuMeter() as gpus:
        record = await run_trial(
            config(samples / "gate.mp4"), looks=2, workers=1, gpus=gpus, on_look=lambda number: seen.append(number)
        )
    assert seen == [1, 2]
    first, second = record.moments
    assert second.second.at_s > first.second.at_s
    assert second.usage.cpu_s >= first.usage.cpu_s > 0
    assert second.usage.rss_bytes > 50e6
    assert sum(moment.second.cameras["gate"].ages.count for moment in record.moments) > 0
    assert record.ended.report["engine"]["kind"] == "null"
    assert record.ended.failures == ()


async def test_a_model_that_cannot_be_used(tmp_path: Path, samples: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("no model")
    wanted = config(samples / "gate.mp4", engine=EngineConfig(), model=ModelConfig(path=path))
    with pytest.raises(ModelError, match=r"m\.onnx: OpenVINO cannot read it"):
        await trial(wanted)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('rtsp://u:secret@h: a bug')", r"exit code 1: rtsp://\*\*\*@h: a bug"),
        ("import os; os.abort()", "exit code -6: it said nothing"),
    ],
)
async def test_a_trial_that_dies(samples: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str) -> None:
    monkeypatch.setattr(trials, "_PROGRAM", (sys.executable, "-c", program))
    with pytest.raises(FatalError, match=f"a trial ended early, with {said}"):
        await trial(config(samples / "gate.mp4"))


async def test_a_trial_that_is_stuck(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_PROGRAM", (sys.executable, "-c", "import threading; threading.Event().wait()"))
    monkeypatch.setattr(trials, "_OPENING_S", 0.1)
    with pytest.raises(FatalError, match=r"said nothing for 0\.1 s and was ended"):
        await trial(config(samples / "gate.mp4"))


async def test_whoever_is_cancelled_leaves_no_process(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_PROGRAM", (sys.executable, "-c", "import threading; threading.Event().wait()"))
    started: list[asyncio.subprocess.Process] = []
    has_started = asyncio.Event()
    start = asyncio.create_subprocess_exec

    async def remember(*args: object, **kwargs: object) -> asyncio.subprocess.Process:
        started.append(await start(*args, **kwargs))  # type: ignore[arg-type]
        has_started.set()
        return started[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    running = asyncio.ensure_future(trial(config(samples / "gate.mp4")))
    await has_started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert started[0].returncode == -9
