"""Keeps one camera going: runs its reader, says how it is, and tries again."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from streamproc.backoff import RetryDelays
from streamproc.errors import SourceError
from streamproc.ledger import CameraLedger
from streamproc.priority import give_way
from streamproc.sources.av_reader import AvReader
from streamproc.sources.capture import ClockSource
from streamproc.sources.decoder import DecodeMode
from streamproc.sources.opening import Acceleration, Transport
from streamproc.sources.tap import PacketOutlet
from streamproc.telemetry import RateLimitedLog, StatusBoard
from streamproc.types import AccessUnit, CameraState, Frame

__all__ = ["CameraSource", "SourceOutcome"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOutcome:
    """How a source's run ended.

    ``ended``: its files were read to the end, rather than the run stopped. ``error``: why not one picture could be
    had from any of its files; None if there was one, or if it was stopped before.
    """

    ended: bool
    error: SourceError | None


class CameraSource:
    """One camera, over all its files or connections. Lives on the event loop; its reader on a daemon thread.

    Files are read in order (over and over with ``loop``); one that fails is reported and the next one read. A stream
    is reconnected for ever.

    Args:
        camera: its name.
        files: what to read; empty for a stream.
        url: the stream's RTSP url, used when there are no files.
        emit: takes every frame on the reader's thread, usually a channel's ``put``; a channel that blocks must be
            closed for the source to stop in time.
        realtime, loop, transport: as in the configuration.
        ledger, status: the camera's books and the board of all cameras.
        username, password: the camera's login, as they are; they go before those in the url, and are shown nowhere.
        decode, sample_fps, late_s, hwaccel: see :class:`AvReader`.
        on_packet: takes an H.264 or H.265 stream's packets while they are watched: see :class:`PacketOutlet`.
        retry: how long to wait before a stream is tried again.
        read_timeout_s: see :class:`AvReader`; also the limit for opening.
    """

    STOP_GRACE_S = 2.0
    """A reader that has not ended so long after it was told to is left behind (it cannot keep the process alive)."""

    def __init__(
        self,
        camera: str,
        *,
        files: Sequence[Path] = (),
        url: str = "",
        emit: Callable[[Frame], None],
        realtime: bool = True,
        loop: bool = False,
        transport: Transport = "auto",
        ledger: CameraLedger,
        status: StatusBoard,
        username: str = "",
        password: str = "",
        decode: DecodeMode = "all",
        sample_fps: float | None = None,
        late_s: float | None = None,
        hwaccel: Acceleration = "none",
        on_packet: Callable[[AccessUnit], None] | None = None,
        retry: RetryDelays | None = None,
        read_timeout_s: float = 10.0,
    ) -> None:
        self.camera = camera
        self._files = tuple(files)
        self._url = url
        self._login = {"username": username, "password": password}
        self._loop_files = loop
        self._transport: Transport = transport
        self._ledger = ledger
        self._status = status
        self._retry = retry or RetryDelays()
        self._log = RateLimitedLog(logger)
        self._stop = threading.Event()
        self._stopping: asyncio.Future[None] | None = None
        self._online_since_s: float | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._packets = PacketOutlet(on_packet) if on_packet is not None else None
        self._reader = AvReader(
            camera,
            emit=emit,
            ledger=ledger,
            on_online=partial(self._tell, self._went_online),
            stop=self._stop,
            realtime=realtime,
            open_timeout_s=read_timeout_s,
            read_timeout_s=read_timeout_s,
            decode=decode,
            sample_fps=sample_fps,
            late_s=late_s,
            hwaccel=hwaccel,
            packets=self._packets,
        )

    @property
    def clock(self) -> ClockSource | None:
        """Where the camera's capture times come from; None for files."""
        return self._reader.clock

    def watch(self, watched: bool) -> None:
        """Hand packets to ``on_packet``, beginning with the last keyframe, or no longer; from any thread."""
        if self._packets is not None:
            self._packets.wanted = watched

    def request_stop(self) -> None:
        """End :meth:`run` soon; on the event loop, at any time, as often as one likes."""
        self._stop.set()
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)

    async def run(self) -> SourceOutcome:
        """Read until the files end or the source is stopped; once.

        Being cancelled stops it too. Bugs in the reader come out as themselves.
        """
        self._event_loop = asyncio.get_running_loop()
        self._stopping = self._event_loop.create_future()
        self._status.set(self.camera, CameraState.CONNECTING)
        if self._stop.is_set():
            outcome = SourceOutcome(ended=False, error=None)
        elif self._files:
            outcome = await self._run_files()
        else:
            outcome = await self._run_stream()
        reason = outcome.error.reason if outcome.error else "eof" if outcome.ended else "shutdown"
        self._status.set(self.camera, CameraState.OFFLINE, reason)
        return outcome

    async def _run_files(self) -> SourceOutcome:
        error: SourceError | None = None
        while True:
            before = self._reader.pictures
            for path in self._files:
                failure = await self._attempt(partial(self._reader.read_file, path))
                if self._stop.is_set():
                    return SourceOutcome(ended=False, error=None)
                if failure is not None:
                    error = failure
                    self._log.warning(str(path), "%s", failure)
                    self._status.set(self.camera, CameraState.OFFLINE, failure.reason)
            # A round without a picture would be followed by endless others.
            if not self._loop_files or self._reader.pictures == before:
                return SourceOutcome(ended=True, error=error if self._reader.pictures == 0 else None)

    async def _run_stream(self) -> SourceOutcome:
        read = partial(self._reader.read_stream, self._url, self._transport, **self._login)
        while not self._stop.is_set():
            failure = await self._attempt(read)
            if failure is None:
                break
            online_s = 0.0 if self._online_since_s is None else time.monotonic() - self._online_since_s
            delay_s = self._retry.delay_s(failure.reason, online_s)
            self._ledger.reconnected(failure.reason)
            self._status.set(self.camera, CameraState.OFFLINE, failure.reason)
            # A wait that is long enough to be noticed is always announced.
            warn = logger.warning if delay_s >= 1 else partial(self._log.warning, failure.reason)
            warn("%s Next attempt in %.1f s.", failure, delay_s)
            await self._stopped_or(timeout_s=delay_s)
        return SourceOutcome(ended=False, error=None)

    async def _attempt(self, read: Callable[[], None]) -> SourceError | None:
        """Run ``read`` on a thread to its end; the way it failed, or None. Leaves a hung thread behind when stopped."""
        self._online_since_s = None
        done: asyncio.Future[SourceError | None] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._thread, args=(read, done), name=f"source-{self.camera}", daemon=True).start()
        try:
            await self._stopped_or(done)
        finally:
            if not done.done():
                self.request_stop()
                await asyncio.wait({done}, timeout=self.STOP_GRACE_S)
                if not done.done():
                    logger.warning(
                        "camera %s: its reader did not stop within %.0f s and is left behind",
                        self.camera,
                        self.STOP_GRACE_S,
                    )
        return done.result() if done.done() else None

    def _thread(self, read: Callable[[], None], done: asyncio.Future[SourceError | None]) -> None:
        """The reader's thread: everything that ``read`` raises goes to ``done``."""
        give_way()
        try:
            read()
        except SourceError as failure:
            self._tell(_finish, done, failure)
        except BaseException as bug:  # noqa: BLE001 - raised again by whoever awaits
            self._tell(_fail, done, bug)
        else:
            self._tell(_finish, done, None)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        """Call back on the event loop; from a thread left behind by a loop that has closed, do nothing."""
        assert self._event_loop is not None
        try:
            self._event_loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._event_loop.is_closed():
                raise

    def _went_online(self) -> None:
        if not self._stop.is_set():
            self._online_since_s = time.monotonic()
            self._status.set(self.camera, CameraState.ONLINE)

    async def _stopped_or(self, done: asyncio.Future[Any] | None = None, timeout_s: float | None = None) -> None:
        """Wait until the source is told to stop, ``done`` is done, or the time is over."""
        assert self._stopping is not None
        waited_for: set[asyncio.Future[Any]] = {self._stopping} if done is None else {self._stopping, done}
        await asyncio.wait(waited_for, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _finish(done: asyncio.Future[SourceError | None], failure: SourceError | None) -> None:
    if not done.done():
        done.set_result(failure)


def _fail(done: asyncio.Future[SourceError | None], bug: BaseException) -> None:
    if not done.done():
        done.set_exception(bug)
