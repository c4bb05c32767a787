"""Clients that others wrote play what the server serves, without a complaint."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamproc.rtsp import Credentials, RtspServer
from tests.integration.rtsp.feeding import SAMPLES, Publisher, publishing, units_of_encoder, units_of_file

LOGIN = Credentials(username="viewer", password="p@ss word")
PLAYER = Path(__file__).with_name("gst_player.py")
CODECS = {"gate": "h264", "gate/raw": "hevc"}

OPENCV = "import cv2,sys; c=cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG); print(sum(c.read()[0] for _ in range(24)))"
PYAV = """
import av, sys
av.logging.set_level(av.logging.ERROR)
with av.open(sys.argv[1], options={"rtsp_transport": sys.argv[2]}, timeout=10) as container:
    start_utc_us = container.start_time_realtime
    frames = container.decode(video=0)
    pictures = [next(frames) for _ in range(24)]
    assert all(not picture.is_corrupt for picture in pictures)
    print(len({picture.pts for picture in pictures}))
"""


@asynccontextmanager
async def serving(credentials: Credentials | None = None) -> AsyncIterator[RtspServer]:
    """A server of one H.264 and one H.265 feed."""
    h264 = Publisher("gate", units_of_file(SAMPLES / "gate.mp4"))
    h265 = Publisher("gate/raw", units_of_encoder())
    with publishing(h264, h265) as feeds:
        server = RtspServer("127.0.0.1", 0, feeds, credentials=credentials)
        await server.start()
        try:
            yield server
        finally:
            await server.close()


async def say(*command: str | Path) -> tuple[int | None, str]:
    """Exit code and everything that a program said."""
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode().strip()


async def ffmpeg(url: str, transport: str, seconds: float = 2.0) -> tuple[int | None, str]:
    command = ("ffmpeg", "-nostdin", "-v", "error", "-rtsp_transport", transport, "-i", url)
    return await say(*command, "-t", str(seconds), "-f", "null", "-")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_every_client_at_once(transport: str) -> None:
    async with serving(LOGIN) as server:
        commands = {
            (path, client): command
            for path in CODECS
            for url in [f"rtsp://viewer:p%40ss%20word@127.0.0.1:{server.port}/{path}"]
            for client, command in {
                "ffmpeg": ffmpeg(url, transport),
                "gstreamer": say("/usr/bin/python3", PLAYER, url, transport, "30"),
                "pyav": say(sys.executable, "-c", PYAV, url, transport),
            }.items()
        }
        answers = dict(zip(commands, await asyncio.gather(*commands.values()), strict=True))
        stats = server.stats()
    expected = {"ffmpeg": (0, ""), "gstreamer": (0, "30"), "pyav": (0, "24")}
    assert answers == {key: expected[key[1]] for key in commands}
    assert stats.refused == {}
    assert stats.feeds["gate"].skipped == stats.feeds["gate/raw"].skipped == 0


async def test_ffprobe_and_opencv() -> None:
    async with serving() as server:
        for path, codec in CODECS.items():
            url = f"rtsp://127.0.0.1:{server.port}/{path}"
            entries = ("-show_entries", "stream=codec_name", "-of", "csv=p=0")
            assert await say("ffprobe", "-v", "error", *entries, url) == (0, codec)
            assert await say(sys.executable, "-c", OPENCV, url) == (0, "24")


async def test_what_clients_are_told_when_refused() -> None:
    async with serving(LOGIN) as server:
        address = f"127.0.0.1:{server.port}"
        code, output = await say("ffprobe", "-v", "error", f"rtsp://viewer:wrong@{address}/gate")
        assert code != 0
        assert "401 Unauthorized" in output
        code, output = await say("ffprobe", "-v", "error", f"rtsp://viewer:p%40ss%20word@{address}/nowhere")
        assert code != 0
        assert "404 Not Found" in output
        refused = server.stats().refused
    assert refused["path"] == 1
    assert refused["password"] >= 1
