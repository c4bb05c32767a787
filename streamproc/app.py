"""The composition root: builds the stages from a configuration, runs them, and ends them in order.

What ends a run: every source has ended, the duration is over, somebody asked it to stop, or the engine broke. Then the
sources are told to stop, what is being inferred is finished, and the sinks flush, each within a deadline. Whatever
is still under way after that is cut off and booked, so that the sums of the report close in every case.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import logging
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import cv2

from streamproc.batching import Batcher, BatchTimes, Scheduler
from streamproc.channel import Channel, LoopSignal, Overflow
from streamproc.config import CameraConfig, Config
from streamproc.detector import Detector, open_detector
from streamproc.errors import FatalError
from streamproc.ledger import CameraLedger, Cost, DropReason
from streamproc.models.spec import Head
from streamproc.monitor import CameraView, Monitor
from streamproc.outputs import embedded_broker, open_sinks
from streamproc.pipeline import Lane, Outlet, Pipeline
from streamproc.preprocess import letterbox_into
from streamproc.report import build_report, cpu_seconds
from streamproc.sources.supervisor import CameraSource
from streamproc.streams import LiveStreams
from streamproc.telemetry import StatusBoard
from streamproc.tracking import CameraTracker
from streamproc.types import Detections, Frame

__all__ = ["RunOutcome", "run"]

_log = logging.getLogger(__name__)

_STAGGER_FRAMES = 0.618
"""Frame times between the starts of two cameras: opening all at once costs seconds of backlog, and multiples of the
golden section spread the moments at which frames come evenly, however many cameras there are."""
_PIPELINE_DEADLINE_S = 1.5
_SINKS_DEADLINE_S = 2.5
_LAST_WORDS_DEADLINE_S = 60.0
"""For the sinks of a run that came to its own end: nobody waits at the keyboard, and nothing should be lost."""
_LIVE_MAILBOX = 2
_M_ARENA_MAX = -8  # malloc.h of glibc
_HEAPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended: its report, and what went wrong (empty when nothing did)."""

    report: dict[str, Any]
    failures: tuple[str, ...]


async def run(
    config: Config,
    *,
    stop: asyncio.Event,
    duration_s: float | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
    on_view: Callable[[list[CameraView]], None] = lambda _: None,
) -> RunOutcome:
    """Run a configuration to its end.

    Args:
        stop: set it to end the run.
        duration_s: ends the run after so many seconds; None for no limit.
        on_ready: is told in a line what was opened, once, before the cameras start.
        on_view: is given the state of every camera once a second.

    Raises:
        ConfigError: a class named in the configuration is none of the model's.
        FatalError: model, engine, broker or output cannot be opened.
    """
    cv2.setNumThreads(1)  # the cameras' threads are the parallelism; OpenCV's own would fight them for the cores
    _share_heaps()
    async with AsyncExitStack() as opened:
        detector = await opened.enter_async_context(open_detector(config))
        broker = embedded_broker(config.mqtt) if config.mqtt is not None else None
        if broker is not None:
            await opened.enter_async_context(broker)
        running = _Run(config, detector)
        for outlet in running.outlets:
            await outlet.sink.start()
        on_ready(f"model {detector}")
        if running.streams is not None:
            await running.streams.start()
            opened.push_async_callback(running.streams.close)
            on_ready(f"live streams {running.streams}")
        # What is loaded by now stays: a full collection would stop every thread for 40 ms to find that out again.
        gc.collect()
        gc.freeze()
        return await running.to_the_end(stop, duration_s, on_view)


class _Run:
    """The stages of one run, wired."""

    def __init__(self, config: Config, detector: Detector) -> None:
        self._config = config
        self._engine = detector.engine
        self._started_ns = time.monotonic_ns()
        self._cpu_started_s = cpu_seconds()
        self._failures: list[str] = []
        self._times = BatchTimes()
        self._board = StatusBoard(list(config.cameras))
        self._ledgers = {name: CameraLedger(name) for name in config.cameras}
        self._all_live = all(camera.realtime for camera in config.cameras.values())
        self._monitor = Monitor(self._ledgers, self._board, self._times, max_age_ms=config.budget.max_frame_age_ms)
        sinks = open_sinks(config, self._board, fps_of=self._monitor.decoded_fps, spent=self._drawn)
        self.streams = None
        if config.rtsp is not None:
            self.streams = LiveStreams(config.rtsp, list(config.cameras), tap=self._tap, spent=self._drawn)
            sinks.append(self.streams.sink)
        self.outlets = [Outlet(sink, all_live=self._all_live) for sink in sinks]
        frames_changed = LoopSignal()
        self._mailboxes = {name: self._mailbox(camera, frames_changed) for name, camera in config.cameras.items()}
        self._sources = {
            name: CameraSource(
                name,
                files=camera.files,
                url=camera.url,
                emit=self._mailboxes[name].put,
                realtime=camera.realtime,
                loop=camera.loop,
                transport=camera.transport,
                ledger=self._ledgers[name],
                status=self._board,
                username=camera.login[0],
                password=camera.login[1],
                decode=camera.decode,
                sample_fps=camera.sample_fps,
                hwaccel=camera.hwaccel,
                on_packet=self.streams.raw(name) if self.streams is not None else None,
            )
            for name, camera in config.cameras.items()
        }
        self._pipeline = self._build_pipeline(detector.head, frames_changed)

    def _tap(self, camera: str, watched: bool) -> None:
        self._sources[camera].watch(watched)

    def _drawn(self, camera: str, ns: int) -> None:
        self._ledgers[camera].spent(Cost.DRAW, ns)

    def _not_inferred(self, frame: Frame, reason: DropReason) -> None:
        """Where every decoded frame ends that has no result; on any thread."""
        self._ledgers[frame.camera].dropped(reason)
        if self.streams is not None:
            self.streams.not_inferred(frame)

    def _mailbox(self, camera: CameraConfig, signal: LoopSignal) -> Channel[Frame]:
        if camera.realtime:
            return Channel(
                _LIVE_MAILBOX,
                Overflow.DROP_OLDEST,
                on_drop=lambda frame: self._not_inferred(frame, DropReason.OVERLOAD),
                on_put=signal.ring,
            )
        return Channel(max(_LIVE_MAILBOX, self._engine.max_batch), Overflow.BLOCK, on_put=signal.ring)

    def _build_pipeline(self, head: Head, frames_changed: LoopSignal) -> Pipeline:
        budget = self._config.budget
        interval_ns = round(1e9 / budget.fps)
        times = self._times
        scheduler = Scheduler(
            {name: camera.priority for name, camera in self._config.cameras.items()},
            max_batch=self._engine.max_batch,
            frame_interval_ns=interval_ns,
            max_age_ns=round(budget.max_frame_age_ms * 1e6),
            expect_ns=times.expect_ns,
        )
        return Pipeline(
            engine=self._engine,
            batcher=Batcher(
                self._mailboxes,
                scheduler,
                frames_changed,
                frame_interval_ns=interval_ns,
                not_inferred=self._not_inferred,
            ),
            times=times,
            lanes={name: self._lane(name, camera, head) for name, camera in self._config.cameras.items()},
            outlets=self.outlets,
            not_inferred=self._not_inferred,
            letterbox=letterbox_into,
            labels=head.labels,
            depth=self._engine.concurrency if self._all_live else self._engine.slots,
            max_age_ms=budget.max_frame_age_ms,
        )

    def _lane(self, name: str, camera: CameraConfig, head: Head) -> Lane:
        thresholds = head.thresholds(self._config.model, camera)
        return Lane(
            ledger=self._ledgers[name],
            decode=lambda outputs, row, letterbox: head.decode(outputs, row, letterbox, thresholds),
            track=_tracking(self._config),
        )

    async def to_the_end(
        self, stop: asyncio.Event, duration_s: float | None, on_view: Callable[[list[CameraView]], None]
    ) -> RunOutcome:
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self._monitor.run(self._sources, on_view), name="monitor")]
            if self.streams is not None:
                background.append(tasks.create_task(self.streams.push(), name="push"))
            sinks = [
                tasks.create_task(outlet.sink.run(outlet.inbox), name=f"sink {outlet.sink.name}")
                for outlet in self.outlets
            ]
            sources = [
                tasks.create_task(
                    self._read(name, index * _STAGGER_FRAMES / self._config.budget.fps), name=f"source {name}"
                )
                for index, name in enumerate(self._sources)
            ]
            pipeline = tasks.create_task(self._infer(), name="pipeline")
            stopping = tasks.create_task(stop.wait(), name="stop")
            await asyncio.wait({pipeline, stopping}, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
            sinks_deadline_s = _LAST_WORDS_DEADLINE_S if pipeline.done() else _SINKS_DEADLINE_S
            stopping.cancel()
            for name, source in self._sources.items():
                source.request_stop()
                if not pipeline.done():
                    self._mailboxes[name].close()
                    self._mailboxes[name].drain()
            await _finish([pipeline], _PIPELINE_DEADLINE_S)
            await _finish([*sources, *sinks], sinks_deadline_s)
            for task in background:
                task.cancel()
        for ledger in self._ledgers.values():
            ledger.close()
        report = build_report(
            self._ledgers,
            engine=self._engine.description,
            batches=self._pipeline.batches,
            sinks={outlet.sink.name: outlet.sink.counts for outlet in self.outlets},
            rtsp=self.streams.counts() if self.streams is not None else None,
            started_ns=self._started_ns,
            cpu_started_s=self._cpu_started_s,
        )
        return RunOutcome(report=report, failures=tuple(self._failures))

    async def _read(self, name: str, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
            outcome = await self._sources[name].run()
            if outcome.error is not None:
                self._failures.append(str(outcome.error))
        finally:
            self._mailboxes[name].close()

    async def _infer(self) -> None:
        try:
            await self._pipeline.run()
        except FatalError as error:
            self._failures.append(str(error))


def _tracking(config: Config) -> Callable[[Detections, float], Detections]:
    algorithm = config.tracking.algorithm
    if algorithm == "none":
        return lambda detections, _: detections
    tracker = CameraTracker(algorithm)

    def track(detections: Detections, time_s: float) -> Detections:
        ids = tracker.update(detections.boxes, detections.confidence, detections.class_ids, time_s)
        return dataclasses.replace(detections, track_ids=ids)

    return track


def _share_heaps() -> None:
    """Let threads share a few heaps.

    By default glibc gives new threads heaps of their own, up to eight a core, and what a thread has freed stays in its
    heap. As viewers came and went, and with them the threads that encode, resident memory of four cameras went from
    370 to 530 MB in fourteen rounds and on; with four heaps it stays between 370 and 400, at the same speed.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


async def _finish(tasks: Collection[asyncio.Task[Any]], deadline_s: float) -> None:
    """Wait for tasks to end by themselves, and cancel those that do not in time."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=deadline_s)
    for task in late:
        _log.warning("%s did not end within %.1f s and was cut off", task.get_name(), deadline_s)
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
