"""Whoever likes to may watch: viewers that others wrote, many at a time, coming and going; and cameras likewise."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import psutil
import pytest

from tests.cameras import serve
from tests.viewers import Answer, LiveRun, Viewer, Watcher, as_cameras_send, live_run, play_all, viewers, vlc_viewers

FPS = 24
NAMES = ("gate", "plaza", "yard", "crossing")
STEADY_TRIES = 300
LINGER_S = 2.0
"""For which a stream goes on when its last viewer has left."""
SMALL = ("-s", "640x360")
PATIENT = {"max_frame_age_ms": 400}
"""Room for a machine that viewers and tests share with the run."""


@pytest.fixture(scope="module")
def clips(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: as_cameras_send(samples / f"{name}.mp4", folder, *SMALL) for name in NAMES}


@pytest.fixture(params=[pytest.param(3, id="short"), pytest.param(60, marks=pytest.mark.drill, id="long")])
def pictures(request: pytest.FixtureRequest) -> int:
    """As many as a camera sends in that many seconds."""
    seconds: int = request.param
    return FPS * seconds


@pytest.fixture
def gate(clips: dict[str, Path], tmp_path: Path) -> Iterator[LiveRun]:
    with live_run(tmp_path, {"gate": {"url": clips["gate"], "loop": True}}, rtsp={}, budget=PATIENT) as run:
        yield run
    assert run.report["rtsp"]["refused"] == {}
    assert_uneventful(run)


@pytest.fixture
def vlc() -> dict[str, Viewer]:
    return vlc_viewers()


def assert_uneventful(run: LiveRun) -> None:
    """Nothing in the log but that all is well, and at most that the machine was too busy for its files: sixteen players
    that start at once are the test's load, not the program's."""
    log = run.log.read_text()
    eventful = [line for line in log.splitlines() if re.search("WARNING|ERROR|Traceback", line)]
    assert [line for line in eventful if not re.search("decoding is .* s behind", line)] == [], log


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", ["gate", "gate/raw"])
def test_every_viewer_plays_every_stream(gate: LiveRun, pictures: int, path: str) -> None:
    for transport in ("tcp", "udp"):
        players = {name: play for name, play in viewers().items() if name.endswith(transport)}
        answers = asyncio.run(play_all(players, gate.url(path), pictures))
        assert answers == dict.fromkeys(players, Answer(code=0, pictures=pictures))


@pytest.mark.timeout(600)
def test_vlc_in_a_terminal_plays_every_stream(vlc: dict[str, Viewer], gate: LiveRun, pictures: int) -> None:
    for path in ("gate", "gate/raw"):
        answers = asyncio.run(play_all(vlc, gate.url(path), pictures))
        assert answers == dict.fromkeys(vlc, Answer(code=0, pictures=pictures))


def test_cameras_that_others_wrote(samples: Path, tmp_path: Path) -> None:
    """H.264 and H.265 from GStreamer's RTSP server, over TCP and UDP; what they send is passed on to a viewer."""
    coding = {"h264": SMALL, "h265": (*SMALL, "-c:v", "libx265", "-x265-params", "log-level=none")}
    with ExitStack() as opened:
        cameras = {}
        for codec, options in coding.items():
            path = as_cameras_send(samples / "gate.mp4", tmp_path, *options, seconds=18, suffix=f".{codec}.mkv")
            for transport in ("tcp", "udp"):
                port = opened.enter_context(serve(path, options=["--codec", codec]))
                cameras[f"{codec}-{transport}"] = {"url": f"rtsp://127.0.0.1:{port}/cam", "transport": transport}
        with live_run(tmp_path, cameras, rtsp={}, budget=PATIENT) as run:
            players = {name: play for name, play in viewers().items() if name in ("ffmpeg tcp", "pyav udp")}
            for camera in ("h264-udp", "h265-tcp", "h265-udp"):
                answers = asyncio.run(play_all(players, run.url(f"{camera}/raw"), FPS))
                assert answers == dict.fromkeys(players, Answer(code=0, pictures=FPS))
    for name, camera in run.report["cameras"].items():
        assert camera["decoded"] > 2 * FPS, name
        assert camera["reconnects"] == {}, name
        assert "corrupt" not in camera["dropped"], name
    assert_uneventful(run)


class Footprint:
    """What a process holds: threads and open files, which must be the same again, and memory, which may vary."""

    def __init__(self, process: psutil.Process) -> None:
        with process.oneshot():
            self.held = (process.num_threads(), process.num_fds())
            self.resident_mb = process.memory_info().rss / 2**20


async def steady(process: psutil.Process, seconds: float) -> Footprint:
    """Its footprint, once that has held the same for so long."""
    before, since_s = Footprint(process), time.monotonic()
    for _ in range(STEADY_TRIES):
        await asyncio.sleep(0.1)
        footprint = Footprint(process)
        if footprint.held != before.held:
            before, since_s = footprint, time.monotonic()
        elif time.monotonic() - since_s >= seconds:
            break
    return footprint


async def come_and_go(watcher: Watcher, rng: random.Random, deadline_s: float) -> None:
    """Watch for a moment, die, and return, over and over."""
    now_s = asyncio.get_running_loop().time
    while now_s() < deadline_s:
        async with watcher.watching():
            await asyncio.sleep(rng.uniform(0, 2))
        await asyncio.sleep(rng.uniform(0, 1))


async def everybody(watchers: Sequence[Watcher], process: psutil.Process) -> tuple[Footprint, Footprint]:
    """The footprint while all of them watch at once, and when they have left, politely."""
    async with AsyncExitStack() as house:
        visits = await asyncio.gather(*(house.enter_async_context(watcher.watching()) for watcher in watchers))
        full = await steady(process, 1.0)
        for leave in visits:
            leave.set()
    return full, await steady(process, LINGER_S + 1.0)


async def restlessly(watchers: Sequence[Watcher], seconds: float) -> None:
    """Half of them come and go for so long while the others stay."""
    rng = random.Random(seed := random.randrange(1 << 32))
    print("seed", seed)
    restless = rng.sample(watchers, len(watchers) // 2)
    deadline_s = asyncio.get_running_loop().time() + seconds
    async with AsyncExitStack() as house:
        loyal = [watcher for watcher in watchers if watcher not in restless]
        visits = await asyncio.gather(*(house.enter_async_context(watcher.watching()) for watcher in loyal))
        await asyncio.gather(*(come_and_go(watcher, rng, deadline_s) for watcher in restless))
        for leave in visits:
            leave.set()


async def soak(
    watchers: Sequence[Watcher], process: psutil.Process, seconds: float
) -> list[tuple[Footprint, Footprint]]:
    """The footprints with everybody there, and with nobody, halfway and at the end: by the half, what is made once and
    kept is made, such as a heap for each thread that there ever was at a time."""
    await restlessly(watchers, seconds / 2)
    halfway = await everybody(watchers, process)
    await restlessly(watchers, seconds / 2)
    return [halfway, await everybody(watchers, process)]


@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seconds", "growth"), [(6, 1.15), pytest.param(150, 1.1, marks=pytest.mark.drill)])
def test_sixteen_restless_viewers_leave_nothing_behind(
    clips: dict[str, Path], tmp_path: Path, seconds: int, growth: float
) -> None:
    cameras = {name: {"url": clip, "loop": True} for name, clip in clips.items()}
    with live_run(tmp_path, cameras, rtsp={}, budget=PATIENT) as run:
        watchers = [
            Watcher(run.url(path), transport)
            for name in NAMES
            for path in (name, f"{name}/raw")
            for transport in ("tcp", "udp")
        ]
        (full, empty), (full_again, empty_again) = asyncio.run(soak(watchers, run.process, seconds))
    footprints = (full, empty, full_again, empty_again)
    print("threads and files, MB:", [(now.held, round(now.resident_mb)) for now in footprints])
    assert {f"{one.url} {one.transport}": one.complaints for one in watchers if one.complaints} == {}
    assert (full_again.held, empty_again.held) == (full.held, empty.held)
    assert empty.held[0] == full.held[0] - len(NAMES), "a thread for each camera that is drawn and encoded"
    assert max(full_again.resident_mb, empty_again.resident_mb) < growth * full.resident_mb
    assert_uneventful(run)
    told = run.report["rtsp"]
    assert told["refused"] == {}
    for path, feed in told["feeds"].items():
        assert (feed["viewers"], feed["overrun"], feed["invalid"]) == (0, 0, 0), path
        seen = sum(watcher.pictures for watcher in watchers if watcher.url.endswith(f"/{path}"))
        assert 0 < seen <= feed["sent"], path
