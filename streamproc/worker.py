"""The stages of some cameras, on one event loop: sources, batcher, engine, trackers and sinks, wired.

A run has one worker or several, each in a process of its own. What ends a worker: every source has ended, it is asked
to stop, or the engine broke. Then the sources are told to stop, what is being inferred is finished, and the sinks
flush, each within a deadline. Whatever is still under way after that is cut off.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from streamproc.batching import Batcher, BatchTimes, Scheduler
from streamproc.cascade import Cascade
from streamproc.channel import Channel, LoopSignal, Overflow
from streamproc.config import Config
from streamproc.detector import Detector
from streamproc.errors import FatalError
from streamproc.fill import Filler, Velocities
from streamproc.ledger import CameraLedger, Cost, DropReason, Stage
from streamproc.monitor import WorkerMonitor
from streamproc.outputs import file_sinks, live_sink
from streamproc.pipeline import Lane, Outlet, Pipeline
from streamproc.report import WorkerCounts
from streamproc.sinks.base import Sink
from streamproc.sources.supervisor import CameraSource
from streamproc.streams import Screens
from streamproc.telemetry import StatusBoard
from streamproc.tracking import CameraTracker
from streamproc.types import Detections, Frame

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

_STAGGER_FRAMES = 0.618
"""Frame times between the starts of two cameras: opening all at once costs seconds of backlog, and multiples of the
golden section spread the moments at which frames come evenly, however many cameras there are."""
_PIPELINE_DEADLINE_S = 1.5
_SINKS_DEADLINE_S = 2.5
_LAST_WORDS_DEADLINE_S = 60.0
"""For the sinks of a run that came to its own end: nobody waits at the keyboard, and nothing should be lost."""
_LATE_SHARE = 0.3
"""Of a frame's allowed age, the part that may be gone before it is decoded: inference and the rest need theirs."""
_LOWEST_RANK = 1 / 3
_LIVE_MAILBOX = 3
"""Frames that a camera may have waiting: a keyframe that took long, the one right behind it, and the newest."""
_DRAINED_EVERY_S = 0.02


class Worker:
    """Some of a configuration's cameras, from their pictures to the sinks. Lives on one event loop; runs once.

    ``failures`` says what went wrong, ``broken`` whether that was the engine.

    Args:
        ledgers: of all cameras of the configuration.
        mqtt: the broker's sink, not yet started; None where there is no broker. The others are made here.
        screens: where pictures for viewers go; None where nothing is served.
    """

    def __init__(
        self,
        config: Config,
        detector: Detector,
        *,
        ledgers: Mapping[str, CameraLedger],
        board: StatusBoard,
        mqtt: Sink | None,
        screens: Screens | None,
    ) -> None:
        self.failures: list[str] = []
        self.broken = False
        self._config = config
        self._detector = detector
        self._ledgers = ledgers
        self._board = board
        spent = partial(_drawn, ledgers)
        self._live = live_sink(config, screens, spent=spent) if screens is not None else None
        sinks = [sink for sink in (mqtt, *file_sinks(config, spent=spent), self._live) if sink is not None]
        self._screens = screens
        self._times = BatchTimes()
        self._all_live = all(camera.realtime for camera in config.cameras.values())
        fill = config.tracking.fill
        self._cascade = (
            Cascade(config.models, detector.secondaries, detector.head.labels, config.tracking.reid)
            if detector.secondaries
            else None
        )
        self._filler = Filler(max_age_ms=config.budget.max_frame_age_ms) if fill else None
        self._outlets = [Outlet(sink, all_live=self._all_live, fill=fill) for sink in sinks]
        self._frames_changed = LoopSignal()
        self._mailboxes: dict[str, Channel[Frame]] = {}
        self._sources: dict[str, CameraSource] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._lanes: dict[str, Lane] = {}
        self._tasks: asyncio.TaskGroup | None = None
        budget = config.budget
        self._monitor = WorkerMonitor(ledgers, self._sources, board, self._times, max_age_ms=budget.max_frame_age_ms)
        interval_ns = round(1e9 / budget.fps)
        engine = detector.engine
        self._scheduler = Scheduler(
            {},
            max_batch=engine.max_batch,
            frame_interval_ns=interval_ns,
            max_age_ns=round(budget.max_frame_age_ms * 1e6),
            expect_ns=self._times.expect_ns,
            concurrency=engine.concurrency,
        )
        self._pipeline = Pipeline(
            engine=engine,
            batcher=Batcher(
                self._mailboxes,
                self._scheduler,
                self._frames_changed,
                frame_interval_ns=interval_ns,
                not_inferred=self._not_inferred,
            ),
            times=self._times,
            lanes=self._lanes,
            outlets=self._outlets,
            not_inferred=self._not_inferred,
            letterbox=detector.write,
            model=config.model.name,
            labels=detector.head.labels,
            depth=engine.concurrency if self._all_live else engine.slots,
            max_age_ms=budget.max_frame_age_ms,
            filler=self._filler,
            cascade=self._cascade,
        )

    async def start(self) -> None:
        """Start the sinks.

        Raises:
            FatalError: one of them can never work.
        """
        for outlet in self._outlets:
            await outlet.sink.start()

    async def run(self, cameras: Sequence[str], stop: asyncio.Event, *, duration_s: float | None = None) -> None:
        """Work on these cameras, and on those that are taken on later, to the end; ``failures`` says what went wrong.

        Args:
            stop: set it to end the run.
            duration_s: ends the run after so many seconds; None for no limit.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            monitor = tasks.create_task(self._monitor.run(), name="monitor")
            sinks = [
                tasks.create_task(outlet.sink.run(outlet.inbox), name=f"sink {outlet.sink.name}")
                for outlet in self._outlets
            ]
            for index, camera in enumerate(cameras):
                self.take_on(camera, delay_s=index * _STAGGER_FRAMES / self._config.budget.fps)
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
            await _finish([*self._readers.values(), *sinks], sinks_deadline_s)
            monitor.cancel()
        self._tasks = None

    def take_on(self, camera: str, *, delay_s: float = 0.0) -> None:
        """Begin to work on a camera of the configuration, during :meth:`run`."""
        assert self._tasks is not None, "the worker does not run"
        self._mailboxes[camera] = self._mailbox(camera)
        self._scheduler.admit(camera, self._config.cameras[camera].priority)
        self._lanes[camera] = self._lane(camera)
        self._sources[camera] = self._source(camera)
        self._readers[camera] = self._tasks.create_task(self._read(camera, delay_s), name=f"source {camera}")

    async def give_up(self, camera: str) -> None:
        """Stop working on a camera; when this returns its frames are all booked, and another may keep its books."""
        self._sources[camera].request_stop()
        await asyncio.wait({self._readers[camera]})
        ledger = self._ledgers[camera]
        while _under_way(ledger):  # noqa: ASYNC110 - a rare event, for which no frame should pay
            await asyncio.sleep(_DRAINED_EVERY_S)
        ledger.close()
        if self._live is not None:
            self._live.watch(camera, watched=False)
        del self._mailboxes[camera], self._sources[camera], self._readers[camera]
        self._scheduler.dismiss(camera)
        if self._cascade is not None:
            self._cascade.forget(camera)

    def watch(self, camera: str, watched: bool) -> None:
        """Draw and encode a camera's results from now on, or no longer."""
        assert self._live is not None
        self._live.watch(camera, watched)

    def refresh(self, camera: str) -> None:
        """Make its next picture a keyframe."""
        assert self._live is not None
        self._live.request_keyframe(camera)

    def tap(self, camera: str, watched: bool) -> None:
        """Hand on the camera's own packets from now on, or no longer."""
        if camera in self._sources:
            self._sources[camera].watch(watched)

    def counts(self) -> WorkerCounts:
        """How it is doing, and in the end how it did."""
        return WorkerCounts(
            cameras=tuple(self._sources),
            engine=dict(self._detector.engine.description),
            batches=self._pipeline.batches,
            sinks={outlet.sink.name: outlet.sink.counts for outlet in self._outlets},
            carried=self._live.carried if self._live is not None else 0,
            live_ages=self._live.ages() if self._live is not None else None,
            loop_load=self._monitor.mean_load,
            models=self._cascade.counts() if self._cascade is not None else {},
        )

    def _mailbox(self, camera: str) -> Channel[Frame]:
        signal = self._frames_changed
        if self._config.cameras[camera].realtime:
            return Channel(
                _LIVE_MAILBOX,
                Overflow.DROP_OLDEST,
                on_drop=lambda frame: self._not_inferred(frame, DropReason.OVERLOAD),
                on_put=signal.ring,
            )
        return Channel(max(_LIVE_MAILBOX, self._detector.engine.max_batch), Overflow.BLOCK, on_put=signal.ring)

    def _source(self, name: str) -> CameraSource:
        camera = self._config.cameras[name]
        return CameraSource(
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
            late_s=self._late_s(camera.priority),
            hwaccel=camera.hwaccel,
            on_packet=self._screens.raw(name) if self._screens is not None else None,
        )

    def _late_s(self, priority: float) -> float:
        """How far behind a camera's reader may stay; less of one that matters less, so that it gives way first."""
        highest = max(camera.priority for camera in self._config.cameras.values())
        rank = max(_LOWEST_RANK, priority / highest)
        return _LATE_SHARE * rank * self._config.budget.max_frame_age_ms / 1e3

    def _lane(self, name: str) -> Lane:
        thresholds = self._detector.head.thresholds(self._config.model, self._config.cameras[name])
        track, velocities = _tracking(self._config, self._ledgers[name])
        return Lane(
            ledger=self._ledgers[name],
            decode=self._detector.decoding(thresholds),
            track=track,
            velocities=velocities,
        )

    def _not_inferred(self, frame: Frame, reason: DropReason) -> None:
        """Where every decoded frame ends that has no result; on any thread."""
        self._ledgers[frame.camera].dropped(reason)
        if self._filler is not None:
            self._filler.not_inferred(frame)
        if self._live is not None:
            self._live.not_inferred(frame)

    async def _read(self, name: str, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
            outcome = await self._sources[name].run()
            if outcome.error is not None:
                self.failures.append(str(outcome.error))
        finally:
            self._mailboxes[name].close()

    async def _infer(self) -> None:
        try:
            await self._pipeline.run()
        except FatalError as error:
            self.broken = True
            self.failures.append(str(error))


def _under_way(ledger: CameraLedger) -> int:
    """Frames of the camera that are decoded and not booked yet."""
    frames = ledger.tally().in_flight()
    return frames[Stage.INFER] + frames[Stage.PUBLISH]


def _drawn(ledgers: Mapping[str, CameraLedger], camera: str, ns: int) -> None:
    ledgers[camera].spent(Cost.DRAW, ns)


def _tracking(
    config: Config, ledger: CameraLedger
) -> tuple[Callable[[Detections, float], Detections], Velocities | None]:
    algorithm = config.tracking.algorithm
    if algorithm == "none":
        return lambda detections, _: detections, None
    tracker = CameraTracker(algorithm, issued=ledger.last_track_id)

    def track(detections: Detections, time_s: float) -> Detections:
        ids = tracker.update(detections.boxes, detections.confidence, detections.class_ids, time_s)
        ledger.issued(tracker.issued)
        return dataclasses.replace(detections, track_ids=ids)

    return track, tracker.velocities


async def _finish(tasks: Collection[asyncio.Task[Any]], deadline_s: float) -> None:
    """Wait for tasks to end by themselves, and cancel those that do not in time."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=deadline_s)
    for task in late:
        _log.warning("%s did not end within %.1f s and was cut off", task.get_name(), deadline_s)
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
