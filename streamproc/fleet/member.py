"""One worker process as the run sees it: started, listened to, and started anew when it crashes or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamproc.backoff import Backoff
from streamproc.config import Config
from streamproc.errors import FatalError, StreamprocError
from streamproc.fleet.books import SharedBooks
from streamproc.fleet.link import Link
from streamproc.fleet.orders import (
    Assignment,
    Beat,
    Begin,
    Ended,
    GaveUp,
    GiveUp,
    Go,
    Opened,
    Order,
    Refresh,
    Refused,
    Said,
    State,
    Stop,
    Tap,
    Unit,
    Watch,
)
from streamproc.ledger import CameraLedger
from streamproc.report import BatchCounts, WorkerCounts
from streamproc.telemetry import StatusBoard
from streamproc.types import AccessUnit, CameraState

__all__ = ["Member", "Surroundings"]

_log = logging.getLogger(__name__)

_SILENT_S = 20.0
"""A process that says nothing for so long hangs: it is to give a sign of life every second."""
_BURIAL_S = 5.0
"""For a process whose link is closed; then it is killed."""
_HEALTHY_S = 60.0
_PLAYED = (CameraState.OFFLINE, "eof")
"""The state of a camera whose files are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all members of a fleet share. ``publish`` takes a camera's access unit for viewers, raw or annotated."""

    config: Config
    books: SharedBooks
    ledgers: Mapping[str, CameraLedger]
    board: StatusBoard
    publish: Callable[[str, bool, AccessUnit], None]


class Member:
    """A worker process over all its lives. Lives on the run's event loop.

    Args:
        number: from 1.
        cameras: to work on.
    """

    def __init__(self, number: int, cameras: list[str], around: Surroundings) -> None:
        self.number = number
        self.cameras = cameras
        self.lives: list[WorkerCounts] = []
        self.failures: tuple[str, ...] = ()
        self.broken = False
        self.model = ""
        self._around = around
        self._life = 0
        self._process: Process | None = None
        self._link: Link | None = None
        self._going = False
        self._watched: set[str] = set()
        self._tapped: set[str] = set()
        self._stopping = asyncio.Event()
        self._giving_up: dict[str, asyncio.Future[None]] = {}
        self._backoff = Backoff(0.5, 30.0)

    def __str__(self) -> str:
        return f"worker {self.number}"

    @property
    def at_work(self) -> bool:
        """Whether it works now: it has begun, and has neither ended nor crashed."""
        return self._going

    async def open(self) -> None:
        """Start the process and wait until its model is loaded.

        Raises:
            ConfigError: a class named in the configuration is none of the model's.
            FatalError: the model, its engine or an output cannot be opened; or the process crashed meanwhile.
        """
        try:
            await self._start()
        except EOFError:
            raise FatalError(f"{self} ended while it loaded the model: {await self._bury()}") from None

    async def work(self) -> None:
        """Let it work until it has come to its end, whatever happens in between."""
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                if self._link is None:
                    await self._start()
                if await self._listen():
                    return
            except (EOFError, TimeoutError, StreamprocError) as error:
                how = str(error) if isinstance(error, StreamprocError) else await self._bury()
                if self._stopping.is_set():
                    _log.warning("%s ended while it was being stopped: %s", self, how)
                    self._close_books()
                    return
                if asyncio.get_running_loop().time() - began_s > _HEALTHY_S:
                    self._backoff.reset()
                if not await self._mourn(how):
                    return

    def stop(self) -> None:
        """Ask it to end; :meth:`work` returns when it has, and kills it when it does not."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._send(Stop())

    def kill(self) -> None:
        """End it at once, if it has not ended yet."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """End it at once, and wait for that."""
        self.kill()
        await self._bury()

    def watch(self, camera: str, watched: bool) -> None:
        """See :class:`streamproc.streams.Show`."""
        _set(self._watched, camera, watched)
        self._send(Watch(camera=camera, watched=watched))

    def refresh(self, camera: str) -> None:
        """See :class:`streamproc.streams.Show`."""
        self._send(Refresh(camera=camera))

    def tap(self, camera: str, watched: bool) -> None:
        """See :class:`streamproc.streams.Show`."""
        _set(self._tapped, camera, watched)
        self._send(Tap(camera=camera, watched=watched))

    def take_on(self, camera: str, *, watched: bool, tapped: bool) -> None:
        """Work on one more camera."""
        self.cameras.append(camera)
        self._send(Begin(camera=camera))
        for wanted, begin in ((watched, self.watch), (tapped, self.tap)):
            if wanted:
                begin(camera, True)

    async def give_up(self, camera: str) -> tuple[bool, bool]:
        """Work on a camera no longer; whether it was watched, and tapped. Raises EOFError: the process crashed."""
        watched, tapped = camera in self._watched, camera in self._tapped
        self._giving_up[camera] = given_up = asyncio.get_running_loop().create_future()
        self._send(GiveUp(camera=camera))
        try:
            await given_up
        finally:
            del self._giving_up[camera]
        self.cameras.remove(camera)
        self._watched.discard(camera)
        self._tapped.discard(camera)
        return watched, tapped

    def _send(self, order: Order) -> None:
        if self._link is not None and self._going:
            self._link.send(order)

    async def _start(self) -> None:
        self._life += 1
        ours, theirs = socket.socketpair()
        with theirs:
            handles = (theirs.fileno(), self._around.books.handle)
            command = (sys.executable, "-m", "streamproc.fleet.process", *map(str, handles))
            self._process = await asyncio.create_subprocess_exec(*command, pass_fds=handles, stdin=DEVNULL)
        self._link = await Link.over(ours)
        self._link.send(Assignment(config=self._around.config, number=self.number, life=self._life))
        while True:
            news = await self._link.receive()
            match news:
                case Opened(model=model):
                    self.model = model
                    return
                case Refused(error=error):
                    await self._bury()
                    raise error
                case Said():
                    _write_down(news)

    async def _listen(self) -> bool:
        """Let it go, and hear what it says; True when it has come to its end. Raises EOFError, TimeoutError."""
        assert self._link is not None
        self._going = True
        self._link.send(Go(cameras=tuple(self.cameras)))
        for camera in self._watched:
            self.watch(camera, True)
        for camera in self._tapped:
            self.tap(camera, True)
        if self._stopping.is_set():
            self._link.send(Stop())
        self.lives.append(_nothing_yet(self.cameras))
        while True:
            async with asyncio.timeout(_SILENT_S):
                news = await self._link.receive()
            match news:
                case State(status=status):
                    self._around.board.set(status.camera, status.state, status.reason)
                    self._around.board.timed_by(status.camera, status.clock)
                case Unit(camera=camera, raw=raw, unit=unit):
                    self._around.publish(camera, raw, unit)
                case Said():
                    _write_down(news)
                case Beat(counts=counts):
                    self.lives[-1] = counts
                case GaveUp(camera=camera):
                    self._giving_up[camera].set_result(None)
                case Ended(counts=counts, failures=failures, broken=broken):
                    self.lives[-1], self.failures, self.broken = counts, failures, broken
                    await self._bury()
                    return True

    async def _bury(self) -> str:
        """Wait for the end of the process, and bring it about; how it ended."""
        self._going = False
        for moved in self._giving_up.values():
            if not moved.done():
                moved.set_exception(EOFError())
        if self._link is not None:
            self._link.abort()
            self._link = None
        process = self._process
        if process is None:
            return "it was never started"
        try:
            async with asyncio.timeout(_BURIAL_S):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            return "it did not answer any more and was killed"
        if code < 0:
            return f"it was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"it ended with code {code}"

    async def _mourn(self, how: str) -> bool:
        """Close its cameras' books and wait a little; whether there is anything left to do."""
        self._close_books()
        statuses = self._around.board.statuses()
        played = {name for name, status in statuses.items() if (status.state, status.reason) == _PLAYED}
        self.cameras = [name for name in self.cameras if name not in played]
        if not self.cameras:
            return False
        for camera in self.cameras:
            self._around.board.set(camera, CameraState.OFFLINE, "worker")
        delay_s = self._backoff.next_s()
        _log.error("%s crashed: %s. Its %d camera(s) go on in %.1f s.", self, how, len(self.cameras), delay_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
                return False
        for camera in self.cameras:
            self._around.board.set(camera, CameraState.CONNECTING)
        return True

    def _close_books(self) -> None:
        for camera in self.cameras:
            self._around.ledgers[camera].close()


def _set(members: set[str], name: str, present: bool) -> None:
    (members.add if present else members.discard)(name)


def _write_down(said: Said) -> None:
    logging.getLogger(said.logger).log(said.level, "%s", said.text)


def _nothing_yet(cameras: list[str]) -> WorkerCounts:
    return WorkerCounts(
        cameras=tuple(cameras), engine={}, batches=BatchCounts(), sinks={}, carried=0, live_ages=None, loop_load=0.0
    )
