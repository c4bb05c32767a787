"""A worker in a process of its own: ``python -m streamproc.fleet.process LINK BOOKS``, both file descriptors.

It does what the run's process tells it over the link, and ends with it: when the link breaks, it stops. Signals from a
terminal or a service manager reach the whole group; only the run's process acts on them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from streamproc.channel import LoopSignal
from streamproc.config import Config
from streamproc.detector import Detector, open_detector
from streamproc.errors import StreamprocError
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
    News,
    Opened,
    Refresh,
    Refused,
    Said,
    State,
    Stop,
    Tap,
    Unit,
    Watch,
)
from streamproc.ledger import open_ledgers
from streamproc.outputs import mqtt_sink
from streamproc.process import prepare_process, settle_memory
from streamproc.telemetry import RedactingFilter, StatusBoard
from streamproc.types import AccessUnit
from streamproc.worker import Worker

__all__ = ["main"]

_BEAT_S = 1.0
_MOST_WAITING_BYTES = 8 << 20
"""Pictures for viewers that the run's process has not taken in: beyond, they are left out up to the next keyframe."""


def main(link: int, books: int) -> None:
    """Work until told to stop, or until the other end is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(_main(socket.socket(fileno=link), books))


async def _main(end: socket.socket, books: int) -> None:
    prepare_process()
    link = await Link.over(end)
    mail = _Mail(link)
    _log_to(mail)
    try:
        assignment = await link.receive()
        assert isinstance(assignment, Assignment)
        try:
            async with open_detector(assignment.config) as detector:
                await _Member(assignment, detector, books, link, mail).serve()
        except StreamprocError as error:
            mail.post(Refused(error=error))
    except EOFError:
        return
    finally:
        await asyncio.sleep(0)  # what threads have posted
        await link.close()


class _Mail:
    """Posts news from any thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()

    def post(self, news: News) -> None:
        """From the event loop."""
        self._link.send(news)

    def post_from_thread(self, news: News) -> None:
        """From any thread; lost when the loop has closed."""
        try:
            self._loop.call_soon_threadsafe(self._link.send, news)
        except RuntimeError:
            if not self._loop.is_closed():
                raise


class _LinkHandler(logging.Handler):
    """Log lines go to the run's process, which knows where they are shown."""

    def __init__(self, mail: _Mail) -> None:
        super().__init__()
        self._mail = mail

    def emit(self, record: logging.LogRecord) -> None:
        self._mail.post_from_thread(Said(level=record.levelno, logger=record.name, text=self.format(record)))


def _log_to(mail: _Mail) -> None:
    handler = _LinkHandler(mail)
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("streamproc").setLevel(logging.INFO)


class _Screens:
    """Pictures for viewers, on their way to the run's process."""

    def __init__(self, config: Config, link: Link, mail: _Mail) -> None:
        self._raw = config.rtsp is not None and config.rtsp.raw and config.rtsp.listen is not None
        self._link = link
        self._mail = mail

    def drawn(self, camera: str) -> Callable[[AccessUnit], None]:
        """For annotated pictures."""
        return self._publisher(camera, raw=False)

    def raw(self, camera: str) -> Callable[[AccessUnit], None] | None:
        """For the camera's own packets."""
        return self._publisher(camera, raw=True) if self._raw else None

    def _publisher(self, camera: str, *, raw: bool) -> Callable[[AccessUnit], None]:
        skipping = False

        def publish(unit: AccessUnit) -> None:
            nonlocal skipping
            full = self._link.waiting_bytes > _MOST_WAITING_BYTES
            skipping = full or (skipping and not unit.keyframe)
            if not skipping:
                self._mail.post_from_thread(Unit(camera=camera, raw=raw, unit=unit))

        return publish


class _Member:
    """The worker, and its ear for orders."""

    def __init__(self, assignment: Assignment, detector: Detector, books: int, link: Link, mail: _Mail) -> None:
        config = _of_this_life(assignment)
        self._link = link
        self._mail = mail
        self._model = str(detector)
        self._stop = asyncio.Event()
        self._board = StatusBoard(list(config.cameras))
        self._changes = LoopSignal()
        self._board.subscribe(self._changes)
        self._told = self._board.statuses()
        ledgers = open_ledgers(list(config.cameras), SharedBooks(len(config.cameras), books).memory)
        self._worker = Worker(
            config,
            detector,
            ledgers=ledgers,
            board=self._board,
            mqtt=mqtt_sink(config, self._board, part=f"-{assignment.number}"),
            screens=_Screens(config, link, mail) if config.rtsp is not None else None,
        )

    async def serve(self) -> None:
        """Open the outputs, wait for the word, and work."""
        await self._worker.start()
        self._mail.post(Opened(model=self._model))
        order = await self._link.receive()
        if isinstance(order, Stop):
            return
        assert isinstance(order, Go)
        settle_memory()
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(self._listen(tasks), name="orders"),
                tasks.create_task(self._beat(), name="beat"),
                tasks.create_task(self._tell_states(), name="states"),
            ]
            await self._worker.run(order.cameras, self._stop)
            for helper in helpers:
                helper.cancel()
        self._send_states()
        worker = self._worker
        self._mail.post(Ended(counts=worker.counts(), failures=tuple(worker.failures), broken=worker.broken))

    async def _listen(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            try:
                order = await self._link.receive()
            except EOFError:
                self._stop.set()  # nobody is there any more to work for
                return
            match order:
                case Watch(camera=camera, watched=watched):
                    self._worker.watch(camera, watched)
                case Refresh(camera=camera):
                    self._worker.refresh(camera)
                case Tap(camera=camera, watched=watched):
                    self._worker.tap(camera, watched)
                case Begin(camera=camera):
                    self._worker.take_on(camera)
                case GiveUp(camera=camera):
                    tasks.create_task(self._give_up(camera), name=f"give up {camera}")
                case Stop():
                    self._stop.set()

    async def _give_up(self, camera: str) -> None:
        await self._worker.give_up(camera)
        self._mail.post(GaveUp(camera=camera))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            self._mail.post(Beat(counts=self._worker.counts()))

    async def _tell_states(self) -> None:
        while True:
            await self._changes.wait()
            self._send_states()

    def _send_states(self) -> None:
        """Those that have changed: of the cameras that it works on."""
        statuses = self._board.statuses()
        for camera, status in statuses.items():
            if status != self._told[camera]:
                self._mail.post(State(status=status))
        self._told = statuses


def _of_this_life(assignment: Assignment) -> Config:
    """The configuration with video files of its own, which would overwrite those of the process it replaces."""
    config = assignment.config
    if config.video is None or assignment.life == 1:
        return config
    path = Path(config.video.path)
    video = config.video.model_copy(update={"path": str(path.with_stem(f"{path.stem}-{assignment.life}"))})
    return config.model_copy(update={"video": video})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
