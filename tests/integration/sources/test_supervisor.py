"""Sources on the event loop: files in a row, failures, stopping."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamproc.channel import Channel, Overflow
from streamproc.ledger import CameraLedger
from streamproc.sources.supervisor import CameraSource
from streamproc.telemetry import StatusBoard
from streamproc.types import Frame
from tests.integration.sources.reading import assert_closed
from tests.media import number_in, write_video


class Camera:
    """A source with its books and board; keeps the frames and every state it was seen in."""

    def __init__(self, *files: Path, emit: Callable[[Frame], None] | None = None, **options: Any) -> None:
        self.frames: list[Frame] = []
        self.arrived = threading.Event()
        self.ledger = CameraLedger("cam")
        self.board = StatusBoard(["cam"])
        self.source = CameraSource(
            "cam",
            files=files,
            emit=emit or self._keep,
            ledger=self.ledger,
            status=self.board,
            **{"realtime": False} | options,
        )

    def _keep(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.arrived.set()

    def status(self) -> tuple[str, str | None]:
        status = self.board.statuses()["cam"]
        return status.state.value, status.reason


async def readers_gone() -> None:
    """Wait until no reader's thread is left (each reports its end just before it ends)."""
    for thread in threading.enumerate():
        if thread.name == "source-cam":
            await asyncio.to_thread(thread.join)


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    camera = Camera(write_video(tmp_path / "v.mp4"))
    assert camera.status()[0] == "connecting"
    outcome = await camera.source.run()
    assert (outcome.ended, outcome.error) == (True, None)
    assert [number_in(frame.picture) for frame in camera.frames] == list(range(50))
    assert camera.status() == ("offline", "eof")
    assert_closed(camera.ledger.tally())


async def test_a_bad_file_among_good_ones_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, last = (write_video(tmp_path / f"{n}.mp4", frames=10) for n in range(2))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    camera = Camera(first, bad, tmp_path / "absent.mp4", last)
    outcome = await camera.source.run()
    assert (outcome.ended, outcome.error) == (True, None)
    assert [number_in(frame.picture) for frame in camera.frames] == [*range(10)] * 2
    assert "bad.mp4" in caplog.text
    assert "absent.mp4" in caplog.text


@pytest.mark.parametrize("loop", [False, True])
async def test_nothing_readable_is_the_outcome(tmp_path: Path, loop: bool) -> None:
    camera = Camera(tmp_path / "absent.mp4", loop=loop)
    outcome = await camera.source.run()
    assert outcome.ended
    assert outcome.error is not None
    assert outcome.error.reason == "not_found"
    assert camera.status() == ("offline", "not_found")


async def test_a_looping_camera_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    enough = threading.Event()

    def emit(frame: Frame) -> None:
        numbers.append(number_in(frame.picture))
        if frame.seq == 95:
            enough.set()

    numbers: list[int] = []
    camera = Camera(write_video(tmp_path / "v.mp4", frames=10), loop=True, emit=emit)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(camera.source.run())
        await asyncio.to_thread(enough.wait)
        assert camera.status() == ("online", None)
        camera.source.request_stop()
    assert (run.result().ended, run.result().error) == (False, None)
    assert numbers[:96] == [n % 10 for n in range(96)]
    assert camera.status() == ("offline", "shutdown")
    camera.ledger.close()
    assert_closed(camera.ledger.tally())


async def test_stopping_interrupts_the_wait_for_a_distant_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames=3, times_ms=[0, 9_000, 18_000])
    camera = Camera(path, realtime=True)
    async with asyncio.timeout(8), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(camera.source.run())
        await asyncio.to_thread(camera.arrived.wait)
        camera.source.request_stop()
    assert not run.result().ended


async def test_cancelling_stops_the_thread(tmp_path: Path) -> None:
    camera = Camera(write_video(tmp_path / "v.mp4", frames=10), loop=True)
    task = asyncio.create_task(camera.source.run())
    await asyncio.to_thread(camera.arrived.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await readers_gone()


async def test_a_source_stopped_before_it_ran_reads_nothing(tmp_path: Path) -> None:
    camera = Camera(write_video(tmp_path / "v.mp4"))
    camera.source.request_stop()
    outcome = await camera.source.run()
    assert (outcome.ended, outcome.error, camera.frames) == (False, None, [])


async def test_a_hung_reader_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang(frame: Frame) -> None:
        hanging.set()
        release.wait()

    monkeypatch.setattr(CameraSource, "STOP_GRACE_S", 0.05)
    camera = Camera(write_video(tmp_path / "v.mp4"), emit=hang)
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(camera.source.run())
            await asyncio.to_thread(hanging.wait)
            camera.source.request_stop()
    assert not run.result().ended
    assert "did not stop" in caplog.text
    before = camera.ledger.tally()
    release.set()
    await readers_gone()
    assert camera.ledger.tally() == before


async def test_a_bug_is_not_a_camera_failure(tmp_path: Path) -> None:
    def bug(frame: Frame) -> None:
        raise KeyError("bug")

    camera = Camera(write_video(tmp_path / "v.mp4"), emit=bug)
    with pytest.raises(KeyError, match="bug"):
        await camera.source.run()


async def test_a_blocking_channel_loses_nothing(tmp_path: Path) -> None:
    channel: Channel[Frame] = Channel(2, Overflow.BLOCK)
    camera = Camera(write_video(tmp_path / "v.mp4"), emit=channel.put)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(camera.source.run())
        run.add_done_callback(lambda _: channel.close())
        numbers = [number_in(frame.picture) async for frame in channel]
    assert numbers == list(range(50))


async def test_closing_a_full_channel_lets_the_source_stop(tmp_path: Path) -> None:
    full = threading.Event()
    channel: Channel[Frame] = Channel(2, Overflow.BLOCK, on_put=lambda: full.set() if len(channel) == 2 else None)
    camera = Camera(write_video(tmp_path / "v.mp4"), emit=channel.put)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(camera.source.run())
        await asyncio.to_thread(full.wait)
        camera.source.request_stop()
        channel.close()
        await readers_gone()
    assert not run.result().ended
