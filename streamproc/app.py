"""The composition root: what a run has one of, whoever works on its cameras.

A run has books, states, a broker's client for these, live streams and a report; and a crew that does the work, which
is one worker in this process or several in processes of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from streamproc.config import Config
from streamproc.detector import Detector, open_detector, served
from streamproc.fleet import Fleet, Plan, SharedBooks, plan_workers
from streamproc.ledger import open_ledgers
from streamproc.monitor import CameraView, Monitor
from streamproc.outputs import embedded_broker, mqtt_sink
from streamproc.process import prepare_process, settle_memory
from streamproc.report import WorkerCounts, build_report, cpu_seconds
from streamproc.streams import LiveStreams, Show
from streamproc.telemetry import StatusBoard
from streamproc.worker import Worker

__all__ = ["RunOutcome", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended: its report, and what went wrong (empty when nothing did)."""

    report: dict[str, Any]
    failures: tuple[str, ...]


class Crew(Show, Protocol):
    """Who works on the cameras of a run."""

    @property
    def failures(self) -> Sequence[str]:
        """What went wrong, in words for people."""
        ...

    def __str__(self) -> str:
        """The model that it runs, for people."""
        ...

    async def start(self) -> None:
        """Get ready for :meth:`run`. Raises FatalError: an output cannot be opened."""
        ...

    async def run(self, stop: asyncio.Event, duration_s: float | None) -> None:
        """Work until every source has ended, ``stop`` is set, the duration is over, or the engine breaks."""
        ...

    def counts(self) -> Sequence[Sequence[WorkerCounts]]:
        """What each worker says of itself; more than once where it was restarted."""
        ...


async def run(
    config: Config,
    *,
    stop: asyncio.Event,
    duration_s: float | None = None,
    workers: int | Literal["auto"] = "auto",
    on_ready: Callable[[str], None] = lambda _: None,
    on_view: Callable[[list[CameraView]], None] = lambda _: None,
) -> RunOutcome:
    """Run a configuration to its end.

    Args:
        stop: set it to end the run.
        duration_s: ends the run after so many seconds; None for no limit.
        workers: how many processes share the cameras; with ``auto`` the machine and the cameras decide.
        on_ready: is told in a line what was opened, once each, before the cameras start.
        on_view: is given the state of every camera once a second.

    Raises:
        ConfigError: a class named in the configuration is none of the model's.
        FatalError: model, engine, broker or output cannot be opened.
    """
    prepare_process()
    plan = plan_workers(config, workers)
    async with AsyncExitStack() as opened:
        config = await opened.enter_async_context(served(config))
        books = opened.enter_context(SharedBooks(len(config.cameras))) if plan.processes > 1 else None
        site = _Site(config, books.memory if books is not None else None)
        crew = await opened.enter_async_context(
            _alone(config, site) if books is None else _fleet(config, plan, books, site)
        )
        broker = embedded_broker(config.mqtt) if config.mqtt is not None else None
        if broker is not None:
            await opened.enter_async_context(broker)
        await crew.start()
        on_ready(f"model {crew}")
        on_ready(f"workers {plan}")
        if site.streams is not None:
            await site.streams.start(crew)
            opened.push_async_callback(site.streams.close)
            on_ready(f"live streams {site.streams}")
        settle_memory()
        await site.attend(crew.run(stop, duration_s), on_view)
        return RunOutcome(report=site.report(crew.counts()), failures=tuple(crew.failures))


class _Site:
    """What a run has one of.

    Args:
        books: memory for the cameras' books that other processes share; None for memory of this process.
    """

    def __init__(self, config: Config, books: memoryview | None) -> None:
        cameras = list(config.cameras)
        self.board = StatusBoard(cameras)
        self.ledgers = open_ledgers(cameras, books)
        self.monitor = Monitor(self.ledgers, self.board)
        self.streams = LiveStreams(config.rtsp, cameras) if config.rtsp is not None else None
        self._started_ns = 0
        self._cpu_started_s = 0.0

    async def attend(self, work: Coroutine[Any, Any, None], on_view: Callable[[list[CameraView]], None]) -> None:
        """Watch the books and push live streams for as long as the work takes; then close the books.

        What was used to open model and outputs does not count, except in processes of their own.
        """
        self._started_ns, self._cpu_started_s = time.monotonic_ns(), cpu_seconds()
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self.monitor.run(on_view), name="monitor")]
            if self.streams is not None:
                background.append(tasks.create_task(self.streams.push(), name="push"))
            await work
            for task in background:
                task.cancel()
        for ledger in self.ledgers.values():
            ledger.close()

    def report(self, workers: Sequence[Sequence[WorkerCounts]]) -> dict[str, Any]:
        return build_report(
            self.ledgers,
            workers=workers,
            rtsp=self.streams.counts() if self.streams is not None else None,
            started_ns=self._started_ns,
            cpu_started_s=self._cpu_started_s,
        )


class _Alone:
    """One worker in this process."""

    def __init__(self, config: Config, detector: Detector, site: _Site) -> None:
        self._cameras = list(config.cameras)
        self._detector = detector
        self._worker = Worker(
            config,
            detector,
            ledgers=site.ledgers,
            board=site.board,
            mqtt=mqtt_sink(config, site.board, fps_of=site.monitor.decoded_fps),
            screens=site.streams,
        )
        self.watch, self.refresh, self.tap = self._worker.watch, self._worker.refresh, self._worker.tap
        self.start = self._worker.start

    @property
    def failures(self) -> Sequence[str]:
        return self._worker.failures

    def __str__(self) -> str:
        return str(self._detector)

    async def run(self, stop: asyncio.Event, duration_s: float | None) -> None:
        await self._worker.run(self._cameras, stop, duration_s=duration_s)

    def counts(self) -> Sequence[Sequence[WorkerCounts]]:
        return [[self._worker.counts()]]


@asynccontextmanager
async def _alone(config: Config, site: _Site) -> AsyncIterator[Crew]:
    async with open_detector(config) as detector:
        yield _Alone(config, detector, site)


def _fleet(config: Config, plan: Plan, books: SharedBooks, site: _Site) -> Fleet:
    states = mqtt_sink(config, site.board, fps_of=site.monitor.decoded_fps)
    return Fleet(config, plan, books, ledgers=site.ledgers, board=site.board, states=states, screens=site.streams)
