"""Figures of live streams: what watching costs, who pays, and how long a viewer waits."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import av
import psutil
import pytest

from tests.viewers import LiveRun, Watcher, as_cameras_send, live_run

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

NAMES = ("gate", "plaza", "yard", "crossing")
ROUNDS = 3
SETTLED_S = 2.0
WINDOW_S = 10.0
OPENINGS = 10
CLIENTS = {"as libav is": {}, "no guess of the rate": {"fpsprobesize": "0"}}
"""By default libav holds the first picture back until it has seen twenty, to guess their rate."""
LINGER_S = 2.0
"""For which a stream goes on when its last viewer has left."""


@pytest.fixture(scope="module")
def cameras(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("clips")
    clips = {name: as_cameras_send(samples / f"{name}.mp4", folder, seconds=18) for name in NAMES}
    return {name: {"url": clip, "loop": True} for name, clip in clips.items()}


def cpu_s(process: psutil.Process) -> dict[int, float]:
    """Of each of its threads."""
    return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}


async def cores_used(run: LiveRun, watched: Sequence[str]) -> tuple[float, float, int]:
    """CPU seconds a second while these streams have a viewer each: of the run, and of the threads that came with the
    viewers; and their number."""
    await asyncio.sleep(SETTLED_S)
    there = cpu_s(run.process)
    async with AsyncExitStack() as house:
        await asyncio.gather(*(house.enter_async_context(Watcher(run.url(path), "tcp").watching()) for path in watched))
        await asyncio.sleep(SETTLED_S)
        before, began_s = cpu_s(run.process), time.monotonic()
        await asyncio.sleep(WINDOW_S)
        after, wall_s = cpu_s(run.process), time.monotonic() - began_s
    used = {thread: (after[thread] - before.get(thread, 0.0)) / wall_s for thread in after}
    came = [share for thread, share in used.items() if thread not in there]
    return sum(used.values()), sum(came), len(came)


def test_only_what_is_watched_is_paid_for(
    cameras: Mapping[str, Mapping[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the CPU: how old a picture is when its detections are published, and when its packets are sent."""
    watched: dict[str, Sequence[str] | None] = {
        "no rtsp section": None,
        "no viewer": (),
        "one raw": ("gate/raw",),
        "one annotated": ("gate",),
        "four annotated": NAMES,
    }
    used: dict[str, list[tuple[float, float, int]]] = {name: [] for name in watched}
    ages: dict[str, list[tuple[float, float]]] = {"one annotated": [], "four annotated": []}
    for turn in range(ROUNDS):
        for name, paths in watched.items():
            (folder := tmp_path / f"{name} {turn}").mkdir()
            with live_run(folder, cameras, rtsp=None if paths is None else {}) as run:
                used[name].append(asyncio.run(cores_used(run, paths or ())))
            if paths == ():
                assert run.report["sinks"]["rtsp"]["taken"] == 0
            if name in ages:
                published, sent = run.report["totals"]["age_ms"]["p95"], run.report["rtsp"]["age_ms"]["p95"]
                ages[name].append((published, sent))
    with capsys.disabled():
        title = "CPU seconds a second, by round"
        print(f"\n{title:32}{'':{9 * (ROUNDS - 1)}}   median   of threads that came with viewers")
        for name, rounds in used.items():
            whole, came, threads = zip(*rounds, strict=True)
            print(
                f"{name:32}" + "".join(f"{share:9.3f}" for share in whole) + f"{statistics.median(whole):9.3f}",
                f"  {statistics.median(came):.3f} of {statistics.median(threads):.0f} threads",
            )
        for name, pairs in ages.items():
            print(f"{name}: age p95 when published -> when its packets are sent, ms: {pairs}")


def first_picture_s(url: str, transport: str, options: Mapping[str, str]) -> float:
    """From connecting to the first decoded picture."""
    began_s = time.monotonic()
    with av.open(url, options={"rtsp_transport": transport, **options}, timeout=20) as container:
        container.streams.video[0].codec_context.thread_count = 1
        next(container.decode(video=0))
        return time.monotonic() - began_s


async def openings(run: LiveRun, path: str, transport: str, *, others: bool) -> list[list[float]]:
    """Waits, in ms and sorted, of viewers one after the other, alone or beside another one; for each of CLIENTS."""
    waits_ms: list[list[float]] = [[] for _ in CLIENTS]
    async with AsyncExitStack() as house:
        if others:
            await house.enter_async_context(Watcher(run.url(path), "tcp").watching())
        for _ in range(OPENINGS):
            for waits, options in zip(waits_ms, CLIENTS.values(), strict=True):
                waits.append(1e3 * await asyncio.to_thread(first_picture_s, run.url(path), transport, options))
                await asyncio.sleep(0.3 if others else LINGER_S + 0.7)
    return [sorted(waits) for waits in waits_ms]


def test_time_to_the_first_picture(
    cameras: Mapping[str, Mapping[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live_run(tmp_path, cameras, rtsp={}) as run, capsys.disabled():
        print(f"\n{'first picture after, ms: p50, max':34}" + "".join(f"{name:>26}" for name in CLIENTS))
        for path in ("gate", "gate/raw"):
            for transport in ("tcp", "udp"):
                for others in (False, True):
                    waits_ms = asyncio.run(openings(run, path, transport, others=others))
                    name = f"{path} {transport}, {'others watch' if others else 'nobody watches'}"
                    figures = (f"{statistics.median(waits):.0f} {waits[-1]:5.0f}" for waits in waits_ms)
                    print(f"{name:34}" + "".join(f"{text:>26}" for text in figures))
