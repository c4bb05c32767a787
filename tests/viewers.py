"""Live streams of a whole run, and viewers that others wrote, which are asked what they thought of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

from tests.brokers import free_port
from tests.e2e.harness import assert_sums_close, started, wait_for_log, write_config

__all__ = [
    "Answer",
    "LiveRun",
    "Viewer",
    "Watcher",
    "as_cameras_send",
    "live_run",
    "play_all",
    "viewers",
    "vlc_viewers",
]

_PACKAGES = {
    "ffmpeg": "ffmpeg",
    "ffprobe": "ffmpeg",
    "gst-launch-1.0": "gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-libav",
    "setpriv": "util-linux",
}
_PATIENCE_S = 45.0
"""For a viewer's start on a machine with much else to do; then a third of the nominal rate is enough."""
_FPS = 24
_NOBODY = "65534"

_PYAV = """
import av, sys
av.logging.set_level(av.logging.ERROR)
with av.open(sys.argv[1], options={"rtsp_transport": sys.argv[2]}, timeout=10) as container:
    frames = container.decode(video=0)
    print(sum(not next(frames).is_corrupt for _ in range(int(sys.argv[3]))))
"""
_OPENCV = """
import cv2, sys
capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG)
print(sum(capture.read()[0] for _ in range(int(sys.argv[2]))))
"""


@dataclass(slots=True, kw_only=True)
class LiveRun:
    """A run that serves live streams at ``address``; ``report`` is there once it has ended."""

    address: str
    process: psutil.Process
    log: Path
    report: dict[str, Any] = field(default_factory=dict)

    def url(self, path: str) -> str:
        return f"rtsp://{self.address}/{path}"


@contextmanager
def live_run(
    folder: Path,
    cameras: Mapping[str, Mapping[str, Any]],
    *arguments: str,
    rtsp: Mapping[str, Any] | None = None,
    **config: Any,
) -> Iterator[LiveRun]:
    """A run of the sample model, or of another, over these cameras, told to end after the block; its sums close.

    ``arguments``: more of the command. ``rtsp``: more keys of that section; None serves no streams at all.
    """
    address, report, log = f"127.0.0.1:{free_port()}", folder / "report.json", folder / "log"
    streams = {} if rtsp is None else {"rtsp": {"listen": address, **rtsp}}
    model = {"path": Path(__file__).parents[1] / "samples" / "streetnet.onnx", "size": [640, 384]}
    path = write_config(folder, cameras=cameras, **streams, **{"model": model, **config})
    with started("run", path, "--report", report, *arguments, log=log) as process:
        wait_for_log(log, "INFO model " if rtsp is None else "live streams at rtsp://")
        run = LiveRun(address=address, process=psutil.Process(process.pid), log=log)
        yield run
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    run.report = json.loads(report.read_text())
    assert_sums_close(run.report)


def as_cameras_send(source: Path, folder: Path, *options: str, seconds: int = 6, suffix: str = ".mp4") -> Path:
    """A copy of a video as IP cameras encode: a keyframe a second and no B-pictures, of which ffmpeg complains where
    they come by RTSP, which has no decoding times."""
    path = (folder / source.name).with_suffix(suffix)
    coding = ("-bf", "0", "-g", str(_FPS), "-preset", "ultrafast", *options)
    command = [program("ffmpeg"), "-nostdin", "-v", "error", "-y", "-i", str(source), "-t", str(seconds), *coding]
    subprocess.run([*command, str(path)], check=True)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a viewer ended, how many pictures it has seen, and every line in which it complained."""

    code: int | None
    pictures: int
    complaints: str = ""


Viewer: TypeAlias = Callable[[str, int], Awaitable[Answer]]
"""Plays an address until it has seen so many pictures."""


def program(name: str) -> str:
    """The path of a program; a test that needs one which is missing fails by its package's name."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"this test needs {name}, which is not installed (apt-get install {_PACKAGES[name]})")
    return found


def viewers() -> dict[str, Viewer]:
    """By name, over TCP and UDP: all but VLC, which few systems have whole."""
    players = {"ffmpeg": _ffmpeg, "ffprobe": _ffprobe, "gstreamer": _gstreamer, "pyav": _pyav, "opencv": _opencv}
    return {f"{name} {transport}": play(transport) for name, play in players.items() for transport in ("tcp", "udp")}


def vlc_viewers() -> dict[str, Viewer]:
    """VLC in a terminal, over TCP and UDP; the test is skipped where VLC cannot play RTSP at all."""
    vlc = shutil.which("vlc")
    if vlc is None or "No matching module" in _vlc_help(vlc, "live555"):
        pytest.skip(
            "no VLC with its RTSP client, live555: Debian 12 and 13 build it without; where the system has it: "
            "apt-get install vlc-bin vlc-plugin-base vlc-plugin-access-extra"
        )
    return {f"vlc {transport}": _vlc(vlc, transport) for transport in ("tcp", "udp")}


async def play_all(players: Mapping[str, Viewer], url: str, pictures: int) -> dict[str, Answer]:
    """What each answers, all of them playing the same address at the same time."""
    answers = await asyncio.gather(*(_in_time(play, url, pictures) for play in players.values()))
    return dict(zip(players, answers, strict=True))


async def _in_time(play: Viewer, url: str, pictures: int) -> Answer:
    patience_s = _PATIENCE_S + 3 * pictures / _FPS
    try:
        async with asyncio.timeout(patience_s):
            return await play(url, pictures)
    except TimeoutError:
        return Answer(code=None, pictures=0, complaints=f"had not seen {pictures} pictures after {patience_s:.0f} s")


# Of many viewers on one machine, who look for ports by themselves; the next one is free.
_PORT_TAKEN = re.compile(r"^\[udp @ 0x[0-9a-f]+\] bind failed: Address already in use\n", re.MULTILINE)


class Watcher:
    """An ffmpeg process that takes in a stream without decoding it, for as long as it is let; may come back.

    ``pictures`` and ``complaints`` are of all its visits.
    """

    def __init__(self, url: str, transport: str) -> None:
        self.url, self.transport = url, transport
        self.pictures = 0
        self.complaints = ""
        self._command = (
            *(program("ffmpeg"), "-nostdin", "-v", "error", "-progress", "pipe:1", "-stats_period", "0.2"),
            *("-rtsp_transport", transport, "-fpsprobesize", "0", "-i", url, "-c", "copy", "-f", "null", "-"),
        )

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[asyncio.Event]:
        """One visit, from its first picture on; killed after the block, or, once the event is set, asked to leave."""
        seen, leave = asyncio.Event(), asyncio.Event()
        async with _process(*self._command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE) as process:
            following = asyncio.create_task(self._follow(process, seen))
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await seen.wait()
                yield leave
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGINT if leave.is_set() else signal.SIGKILL)
                await following

    async def _follow(self, process: Process, seen: asyncio.Event) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        before, complaints = self.pictures, asyncio.create_task(process.stderr.read())
        async for line in process.stdout:
            if line.startswith(b"frame=") and int(line[6:]) > 0:
                self.pictures = before + int(line[6:])
                seen.set()
        self.complaints += _PORT_TAKEN.sub("", (await complaints).decode())
        await process.wait()
        seen.set()  # it has ended: nobody is to wait for it


def _ffmpeg(transport: str) -> Viewer:
    command = (program("ffmpeg"), "-nostdin", "-v", "error", "-progress", "pipe:1", "-rtsp_transport", transport)

    async def play(url: str, pictures: int) -> Answer:
        code, out, said = await _run(*command, "-i", url, "-frames:v", pictures, "-f", "null", "-")
        return Answer(code=code, pictures=int(re.findall(r"frame=(\d+)", out or "frame=0")[-1]), complaints=said)

    return play


def _ffprobe(transport: str) -> Viewer:
    command = (program("ffprobe"), "-v", "error", "-rtsp_transport", transport, "-count_frames")
    entries = ("-show_entries", "stream=nb_read_frames", "-of", "csv=p=0")

    async def play(url: str, pictures: int) -> Answer:
        code, out, said = await _run(*command, *entries, "-read_intervals", f"%+#{pictures}", url)
        return Answer(code=code, pictures=int(out or 0), complaints=said)

    return play


# Once it has seen enough, rtspsrc closes its connection while its own last PAUSE may be under way, and reports that.
_PAUSE_CUT_SHORT = re.compile(
    r"^ERROR: from element \S+: Could not write to resource\.\n(?:Additional debug info:\n)?"
    r"\S+: gst_rtspsrc_try_send \(\): \S+\nCould not send message\. \(Received end-of-file\)\n"
    r"ERROR: from element \S+: Could not write to resource\.\n(?:Additional debug info:\n)?"
    r"\S+: gst_rtspsrc_pause \(\): \S+\nCould not send message\. \(Received end-of-file\)\n?",
    re.MULTILINE,
)


def _gstreamer(transport: str) -> Viewer:
    launch = program("gst-launch-1.0")

    async def play(url: str, pictures: int) -> Answer:
        source = ("rtspsrc", f"location={url}", f"protocols={transport}", "latency=200")
        sink = ("identity", f"eos-after={pictures + 1}", "!", "fakesink")
        code, out, said = await _run(launch, "--quiet", *source, "!", "decodebin", "!", *sink)
        complaints, cut_short = _PAUSE_CUT_SHORT.subn("", out + said)
        if cut_short and not complaints:
            code = 0
        return Answer(code=code, pictures=pictures if code == 0 else 0, complaints=complaints)

    return play


def _pyav(transport: str) -> Viewer:
    async def play(url: str, pictures: int) -> Answer:
        code, out, said = await _run(sys.executable, "-c", _PYAV, url, transport, pictures)
        return Answer(code=code, pictures=int(out or 0), complaints=said)

    return play


def _opencv(transport: str) -> Viewer:
    env = {**os.environ, "OPENCV_FFMPEG_CAPTURE_OPTIONS": f"rtsp_transport;{transport}"}

    async def play(url: str, pictures: int) -> Answer:
        code, out, said = await _run(sys.executable, "-c", _OPENCV, url, pictures, env=env)
        return Answer(code=code, pictures=int(out or 0), complaints=said)

    return play


# What VLC says of the desktop and the loudspeakers that a terminal does not have is no complaint about a stream.
_VLC_COMPLAINT = re.compile(r"^\[[0-9a-f]+\] (?!.*(?:interface|libvlc|audio output) error).* error: .*$", re.MULTILINE)
_VLC_STATISTIC = re.compile(r"^\| ([a-z ]+?) +: +(\d+)\r?$", re.MULTILINE)
_VLC_ASKED_EVERY_S = 0.5


def _vlc(vlc: str, transport: str) -> Viewer:
    command = (*_as_nobody(), vlc, "--intf", "rc", "--vout", "dummy", "--no-audio", "--no-color")
    over = ("--rtsp-tcp",) if transport == "tcp" else ()

    async def play(url: str, pictures: int) -> Answer:
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory() as home:
            os.chmod(home, 0o777)
            env = {**os.environ, "HOME": home}
            async with _process(*command, *over, url, stdin=PIPE, stdout=said, stderr=said, env=env) as process:
                shown = await _ask_vlc(process, said.fileno(), pictures)
            said.seek(0)
            text = said.read()
        counts = dict(_VLC_STATISTIC.findall(text))
        corrupt = [] if counts.get("demux corrupted") == "0" else [f"demux corrupted: {counts.get('demux corrupted')}"]
        complaints = "\n".join(_VLC_COMPLAINT.findall(text) + corrupt)
        return Answer(code=process.returncode, pictures=min(shown, pictures), complaints=complaints)

    return play


async def _ask_vlc(process: Process, said: int, pictures: int) -> int:
    """Ask for its statistics until enough pictures were displayed, and let it quit then."""
    assert process.stdin is not None
    shown = 0
    while shown < pictures and process.returncode is None:
        await asyncio.sleep(_VLC_ASKED_EVERY_S)
        process.stdin.write(b"stats\n")
        await process.stdin.drain()
        counts = re.findall(r"frames displayed : +(\d+)", os.pread(said, 1 << 24, 0).decode())
        shown = int(counts[-1]) if counts else 0
    process.stdin.write(b"quit\n")
    await process.wait()
    return shown


def _vlc_help(vlc: str, module: str) -> str:
    done = subprocess.run([*_as_nobody(), vlc, "--module", module], stdin=subprocess.DEVNULL, capture_output=True)
    return (done.stdout + done.stderr).decode()


def _as_nobody() -> tuple[str, ...]:
    """VLC refuses to run as root."""
    if os.geteuid() != 0:
        return ()
    return (program("setpriv"), "--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups")


async def _run(*command: object, env: Mapping[str, str] | None = None) -> tuple[int | None, str, str]:
    """A program's exit code, output and error output."""
    async with _process(*command, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, env=env) as process:
        out, said = await process.communicate()
    return process.returncode, out.decode().strip(), said.decode().strip()


@asynccontextmanager
async def _process(*command: object, **pipes: object) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(*map(str, command), **pipes)  # type: ignore[arg-type]
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
