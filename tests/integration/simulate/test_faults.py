"""Every fault of a simulated camera, as the camera side of streamproc sees it."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from streamproc.backoff import RetryDelays
from streamproc.ledger import CameraLedger
from streamproc.simulate import parse_faults, simulated_cameras
from streamproc.sources.opening import Transport
from streamproc.sources.supervisor import CameraSource
from streamproc.telemetry import StatusBoard
from streamproc.types import CameraState, Frame
from tests.integration.sources.reading import assert_closed
from tests.media import number_in, write_video

SIZE = (320, 192)
FPS = 25
PICTURES = 500
SECONDS = 9.0
FAULTS = {
    "healthy": (),
    "refuse": ("refuse:3@1", "drop@2"),
    "drop": ("drop@3",),
    "stall": ("stall:2.5@2",),
    "hang": ("hang:3@1", "drop@2"),
    "password": ("password:3@2",),
    "corrupt": ("corrupt:3@2",),
    "loss": ("loss:3@2",),
    "lossless": ("loss:3@2",),
    "jump": ("jump:5@2",),
    "resize": ("resize:3@2",),
    "reboot": ("reboot:3@2",),
}
UDP = {"loss"}


class Quick(RetryDelays):
    """Without the patience that real cameras need after a wrong password."""

    first_s = 0.4
    cap_s = 0.4
    auth_floor_s = 0.5


class History(StatusBoard):
    """A board that remembers."""

    def __init__(self, camera: str) -> None:
        super().__init__([camera])
        self.told: list[tuple[float, CameraState, str | None]] = []

    def set(self, camera: str, state: CameraState, reason: str | None = None) -> None:
        super().set(camera, state, reason)
        self.told.append((time.monotonic(), state, reason))


class Seen(NamedTuple):
    """A frame, when it came, and the number in its picture."""

    at_s: float
    number: int
    frame: Frame


@dataclass
class Watched:
    """What a source saw of one camera."""

    name: str
    frames: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = CameraLedger(self.name)
        self.board = History(self.name)

    @property
    def lost(self) -> dict[str, int]:
        """What was dropped before the end of the run."""
        dropped = self.ledger.tally().dropped
        return {str(reason): count for reason, count in dropped.items() if reason not in ("shutdown", "undecoded")}

    def take(self, frame: Frame) -> None:
        self.frames.append(Seen(time.monotonic(), number_in(frame.picture), frame))

    async def watch(self, port: int, transport: Transport) -> None:
        source = CameraSource(
            self.name,
            url=f"rtsp://viewer:secret@127.0.0.1:{port}/{self.name}",
            transport=transport,
            emit=self.take,
            ledger=self.ledger,
            status=self.board,
            retry=Quick(),
            read_timeout_s=1.5,
        )
        asyncio.get_running_loop().call_later(SECONDS, source.request_stop)
        await source.run()
        self.ledger.close()


async def watch_all(clip: Path) -> tuple[dict[str, Watched], list[str]]:
    watched = {name: Watched(name) for name in FAULTS}
    specs = [f"{name}/{fault}" for name, faults in FAULTS.items() for fault in faults]
    told: list[str] = []
    async with (
        simulated_cameras(
            dict.fromkeys(FAULTS, clip), "127.0.0.1", 0, faults=parse_faults(specs, list(FAULTS)), seed=1
        ) as cameras,
        asyncio.timeout(60),
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(cameras.fail(lambda elapsed_s, change: told.append(str(change))))
        for name, one in watched.items():
            tasks.create_task(one.watch(cameras.port, "udp" if name in UDP else "tcp"))
    return watched, told


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Watched], list[str]]:
    folder = tmp_path_factory.mktemp("simulate")
    return asyncio.run(watch_all(write_video(folder / "clip.mp4", frames=PICTURES, size=SIZE, gop=FPS)))


@pytest.fixture
def watched(story: tuple[dict[str, Watched], list[str]]) -> dict[str, Watched]:
    return story[0]


def test_every_change_is_told(story: tuple[dict[str, Watched], list[str]]) -> None:
    _, told = story
    assert told[:3] == ["refuse refuse begins", "hang hang begins", "refuse drop happens"]
    assert len(told) == sum(1 if "drop" in fault else 2 for faults in FAULTS.values() for fault in faults)


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("refuse", {"eof", "refused"}),
        ("drop", {"eof"}),
        ("stall", {"stalled"}),
        ("hang", {"eof", "timeout"}),
        ("password", {"eof", "auth"}),
        ("reboot", {"eof", "refused"}),
    ],
)
def test_a_connection_that_is_lost_has_its_reason_and_comes_back(
    watched: dict[str, Watched], name: str, reasons: set[str]
) -> None:
    one = watched[name]
    assert set(one.ledger.reconnects) == reasons
    assert one.ledger.reconnects.get("eof", 0) <= 1
    assert [state for _, state, _ in one.board.told][-2:] == [CameraState.ONLINE, CameraState.OFFLINE]
    assert not one.lost, "what a connection brought is sound"
    assert_closed(one.ledger.tally())


@pytest.mark.parametrize("name", ["healthy", "lossless", "corrupt", "loss", "jump", "resize"])
def test_the_others_are_watched_throughout(watched: dict[str, Watched], name: str) -> None:
    assert [(state, reason) for _, state, reason in watched[name].board.told[1:]] == [
        (CameraState.ONLINE, None),
        (CameraState.OFFLINE, "shutdown"),
    ]
    assert_closed(watched[name].ledger.tally())


@pytest.mark.parametrize("name", ["healthy", "lossless", "jump"])
def test_a_camera_without_trouble_loses_nothing(watched: dict[str, Watched], name: str) -> None:
    """Nor over TCP, where packets do not get lost; nor one whose clock jumps, whose media time does not."""
    numbers = [seen.number for seen in watched[name].frames]
    assert not watched[name].lost
    assert all((later - earlier) % PICTURES == 1 for earlier, later in itertools.pairwise(numbers))
    steps_s = [later.frame.pts_s - earlier.frame.pts_s for earlier, later in itertools.pairwise(watched[name].frames)]
    assert 0 < min(steps_s) <= max(steps_s) < 0.2


@pytest.mark.parametrize("name", ["corrupt", "loss"])
def test_damage_is_counted_and_what_comes_out_is_sound(watched: dict[str, Watched], name: str) -> None:
    one = watched[name]
    assert set(one.lost) == {"corrupt"}
    assert one.lost["corrupt"] > 5
    assert len(one.frames) > FPS * (SECONDS - 5)


def test_who_watches_goes_on_while_others_are_refused(watched: dict[str, Watched]) -> None:
    for name in ("refuse", "hang"):
        went_offline_s = next(at_s for at_s, state, _ in watched[name].board.told if state is CameraState.OFFLINE)
        assert sum(seen.at_s < went_offline_s for seen in watched[name].frames) > 1.5 * FPS


def test_the_size_changes_in_mid_stream_and_back(watched: dict[str, Watched]) -> None:
    sizes = [size for size, _ in itertools.groupby(seen.frame.picture.size for seen in watched["resize"].frames)]
    assert sizes == [SIZE, (SIZE[0] // 2, SIZE[1] // 2), SIZE]
    small = [seen.number for seen in watched["resize"].frames if seen.frame.picture.size != SIZE]
    assert all((later - earlier) % PICTURES == 1 for earlier, later in itertools.pairwise(small))


def test_a_camera_starts_over_when_it_has_rebooted(watched: dict[str, Watched]) -> None:
    one = watched["reboot"]
    back_s = [at_s for at_s, state, _ in one.board.told if state is CameraState.ONLINE][1]
    assert min(seen.number for seen in one.frames if seen.at_s >= back_s) < FPS


def play(url: str, *options: str) -> tuple[int, str]:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-rtsp_transport", "tcp", *options, "-i", url, "-t", "1"]
    done = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


async def test_what_ffmpeg_says(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=100, size=SIZE, gop=FPS)
    names = ["healthy", "refuse", "hang", "password"]
    faults = parse_faults([f"{name}/{name}" for name in names[1:]], names)
    async with simulated_cameras(dict.fromkeys(names, clip), "127.0.0.1", 0, faults=faults) as cameras:
        await cameras.fail(lambda elapsed_s, change: None)
        urls = [f"rtsp://127.0.0.1:{cameras.port}/{name}" for name in names]
        said = [await asyncio.to_thread(play, url, "-timeout", "1000000") for url in urls]
    assert said[0] == (0, "")
    assert all(code != 0 for code, _ in said[1:])
    assert "401 Unauthorized" in said[3][1]
