"""Cameras spread over worker processes: to the outside one run, whatever happens to a process inside."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.brokers import mosquitto
from tests.e2e.harness import Subscriber, started, streamproc, wait_for_log, write_config
from tests.viewers import Answer, LiveRun, Watcher, as_cameras_send, live_run, play_all, viewers

NAMES = ("gate", "plaza", "yard")
GRACE_S = 30
PATIENT = {"max_frame_age_ms": 400}
"""Room for a machine that tests share with the run."""


@pytest.fixture(scope="module")
def clips(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: as_cameras_send(samples / f"{name}.mp4", folder, "-s", "640x360") for name in NAMES}


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Subscriber]:
    with mosquitto(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        subscriber.wait_subscribed()
        yield subscriber


def endless(clips: dict[str, Path]) -> dict[str, dict[str, Any]]:
    return {name: {"url": clip, "loop": True} for name, clip in clips.items()}


def workers_of(run: psutil.Process) -> list[psutil.Process]:
    return [child for child in run.children() if "streamproc.fleet.process" in child.cmdline()]


def test_one_port_one_broker_one_report_and_a_crash_in_between(
    tmp_path: Path, clips: dict[str, Path], heard: Subscriber
) -> None:
    mqtt = {"url": f"mqtt://127.0.0.1:{heard.port}"}
    topics = {name: f"streamproc/local/{name}/detections" for name in NAMES}

    async def scene(run: LiveRun) -> dict[str, Answer]:
        watcher = Watcher(run.url("plaza"), "tcp")
        async with watcher.watching():
            before = {name: len(heard.messages[topic]) for name, topic in topics.items()}
            min(workers_of(run.process), key=lambda process: process.pid).kill()  # the first, which has two cameras
            await asyncio.to_thread(wait_for_log, run.log, "worker 1 crashed")
            await asyncio.to_thread(
                heard.wait_for, lambda seen: all(len(seen[topics[name]]) > before[name] + 30 for name in NAMES)
            )
            players = {name: play for name, play in viewers().items() if name in ("ffmpeg tcp", "ffprobe udp")}
            return await play_all(players, run.url("gate"), 24)

    with live_run(tmp_path, endless(clips), "--workers", "2", rtsp={}, mqtt=mqtt, budget=PATIENT) as run:
        answers = asyncio.run(scene(run))
        processes = workers_of(run.process)
    heard.wait_for_end("streamproc/local")
    assert answers == dict.fromkeys(answers, Answer(code=0, pictures=24))
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes), "a worker outlived its run"

    workers = run.report["workers"]
    assert [worker["restarts"] for worker in workers] == [1, 0]
    assert sorted(name for worker in workers for name in worker["cameras"]) == sorted(NAMES)
    for name, topic in topics.items():
        messages = heard.messages[topic]
        assert all(one["seq"] < other["seq"] for one, other in pairwise(messages)), f"{name}: seq goes on"
        assert all(one["pts_s"] < other["pts_s"] for one, other in pairwise(messages)), f"{name}: media time goes on"
        row = run.report["cameras"][name]
        died = row["dropped"].get("unpublished", 0)  # killed between sending and booking, it sent
        assert row["published"] <= len(messages) <= row["published"] + died
    crashed = workers[0]["cameras"][0]
    states = [(each["state"], each["reason"]) for each in heard.messages[f"streamproc/local/{crashed}/status"]]
    assert ("offline", "worker") in states
    assert states[-1] == ("offline", "shutdown")
    *site, _ = [each["state"] for each in heard.messages["streamproc/local/status"]]
    assert set(site) == {"online"}


def test_files_that_end_end_the_run(tmp_path: Path, clips: dict[str, Path]) -> None:
    cameras = {name: {"url": clip, "realtime": False} for name, clip in clips.items()}
    out, report = tmp_path / "all.jsonl", tmp_path / "report.json"
    model = {"path": Path(__file__).parents[2] / "samples" / "streetnet.onnx", "size": [640, 384]}
    path = write_config(tmp_path, cameras=cameras, model=model, file={"path": out})
    done = streamproc("run", path, "--workers", "3", "--report", report)
    assert done.code == 0, done.err
    assert "workers 3: as asked for" in done.err
    assert len(out.read_text().splitlines()) == 3 * 144, "three processes append whole lines to one file"


def test_workers_end_with_their_run(tmp_path: Path, clips: dict[str, Path]) -> None:
    model = {"path": Path(__file__).parents[2] / "samples" / "streetnet.onnx", "size": [640, 384]}
    path, log = write_config(tmp_path, cameras=endless(clips), model=model), tmp_path / "log"
    with started("run", path, "--workers", "2", log=log) as process:
        wait_for_log(log, "published")
        processes = workers_of(psutil.Process(process.pid))
        assert len(processes) == 2
        process.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    assert not alive


@pytest.mark.parametrize(
    ("model", "cameras", "arguments", "code", "said"),
    [
        ({}, {}, ("--workers", "0"), 2, "--workers: found '0'; expected auto, or a number from 1 to 256"),
        ({}, {}, ("--workers", "many"), 2, "--workers: found 'many'; expected auto, or a number from 1 to 256"),
        ({}, {"classes": ["unicorn"]}, ("--workers", "2"), 2, "unicorn"),
        ({"path": "missing.onnx"}, {}, ("--workers", "2"), 2, "missing.onnx"),
        ({"path": "broken.onnx"}, {}, ("--workers", "2"), 1, "broken.onnx"),
    ],
)
def test_what_is_wrong_is_said_once(
    tmp_path: Path,
    clips: dict[str, Path],
    model: dict[str, Any],
    cameras: dict[str, Any],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    model = {"path": Path(__file__).parents[2] / "samples" / "streetnet.onnx", **model}
    (tmp_path / "broken.onnx").write_text("no model")
    path = write_config(tmp_path, cameras={n: {**c, **cameras} for n, c in endless(clips).items()}, model=model)
    done = streamproc("run", path, *arguments)
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.err.count("error: ") == 1
