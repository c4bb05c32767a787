"""From batches of frames to results on their way to the sinks.

Two tasks share the work. The feeder leases a slot, asks the batcher for the freshest frames only then, and starts
their inference; the collector takes finished batches in the order in which they were formed, so that each camera's
frames reach its tracker in order, and fans the results out. Between them lies a bounded channel: when the collector
falls behind, the feeder stops, and the batcher's rules decide which frames give way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from streamproc.about import About
from streamproc.batching import Batcher, BatchTimes
from streamproc.cascade import Cascade
from streamproc.cascade.answers import Answers, Decode
from streamproc.channel import Channel, Overflow
from streamproc.engines.base import Engine, Outputs, Slot
from streamproc.errors import EngineAwayError, EngineError, FatalError
from streamproc.fill import Filler, Velocities
from streamproc.ledger import CameraLedger, Cost, DropReason
from streamproc.pixels import PixelThreads
from streamproc.report import BatchCounts
from streamproc.sinks.base import Delivery, Sink
from streamproc.telemetry import RateLimitedLog
from streamproc.types import Detections, Frame, FrameResult, Letterbox, Picture, UInt8Array

__all__ = ["Lane", "Outlet", "Pipeline"]

_log = logging.getLogger(__name__)

_MOST_FAILURES = 10
"""Inferences that may fail one after the other: a picture that crashes the model ends no run, a broken engine does."""

_Found: TypeAlias = tuple[Frame, Detections, Answers | None]
"""What the model saw in a frame, not yet tracked, since that has to happen in order; and what a server says of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One camera's share of post-processing.

    ``decode`` turns the model's outputs for one row of a batch into detections, with what a server's other models say
    of them; ``track`` adds track ids to them, in their order, and is called with the camera's frames in order.
    ``velocities`` then says how their objects move; needed where frames are filled in.
    """

    ledger: CameraLedger
    decode: Decode
    track: Callable[[Detections, float], Detections]
    velocities: Velocities | None = None


class Outlet:
    """A sink and its inbox. What a full inbox does depends on the cameras: live frames displace the oldest waiting,
    frames of files that must not be lost wait for room.

    With ``fill``, an essential sink is also given what is predicted. There is additional room for that, of which half
    is left to results, so that those never give way to it.
    """

    def __init__(self, sink: Sink, *, all_live: bool, fill: bool = False) -> None:
        self.sink = sink
        room = sink.capacity if fill and sink.essential else 0
        self._most_with_predicted = sink.capacity // 2 + room if room else 0
        self.inbox: Channel[Delivery] = Channel(
            sink.capacity + room,
            Overflow.DROP_OLDEST if all_live else Overflow.BLOCK,
            on_drop=self._lost,
        )

    async def hand_over(self, delivery: Delivery) -> None:
        """Give the sink a result; waits only for frames that must not be lost."""
        if delivery.result.predicted:
            self._hand_over_predicted(delivery)
            return
        if self.inbox.offer(delivery):
            return
        if delivery.max_age_ms is None:
            await self.inbox.send(delivery)
        else:
            self._lost(delivery)

    def _hand_over_predicted(self, delivery: Delivery) -> None:
        if self.sink.essential and (len(self.inbox) >= self._most_with_predicted or not self.inbox.offer(delivery)):
            self._lost(delivery)

    def _lost(self, delivery: Delivery) -> None:
        self.sink.counts.lost["overload"] += 1
        if self.sink.essential:
            delivery.lost(DropReason.SINK)


class Pipeline:
    """Everything between the mailboxes and the sinks' inboxes.

    Args:
        not_inferred: is told of every frame that the engine fails, and why; before the results of later frames of its
            camera are handed over.
        letterbox: writes a picture into a row of a slot.
        model: its name in the results.
        labels: the model's class names.
        depth: batches from being closed to having their outputs, at a time. A frame grows old in a batch that waits
            behind others, so where all cameras are live it should not exceed what the engine works on at once.
        max_age_ms: age at which a live frame's result is worthless.
        filler: predicts for the frames that it is told of; None where they are not filled in.
        cascade: the models that look at what was found; None where there are none.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        batcher: Batcher,
        times: BatchTimes,
        lanes: Mapping[str, Lane],
        outlets: Sequence[Outlet],
        not_inferred: Callable[[Frame, DropReason], None],
        letterbox: Callable[[Picture, UInt8Array], Letterbox],
        model: str,
        labels: tuple[str, ...],
        depth: int,
        max_age_ms: float,
        filler: Filler | None = None,
        cascade: Cascade | None = None,
    ) -> None:
        self.batches = BatchCounts()
        self._engine = engine
        self._batcher = batcher
        self._times = times
        self._lanes = lanes
        self._outlets = outlets
        self._not_inferred = not_inferred
        self._receivers = sum(outlet.sink.essential for outlet in outlets)
        self._letterbox = letterbox
        self._model = model
        self._labels = labels
        self._depth = asyncio.Semaphore(depth)
        self._max_age_ms = max_age_ms
        self._filler = filler
        self._cascade = cascade
        self._failures = 0
        self._warnings = RateLimitedLog(_log, interval_s=10.0)

    async def run(self) -> None:
        """Work until the batcher has no more frames, then close the sinks' inboxes.

        Raises:
            EngineError: the engine is broken: inferences fail one after the other.
        """
        in_flight: Channel[asyncio.Task[list[_Found]]] = Channel(self._engine.slots, Overflow.BLOCK)
        try:
            with PixelThreads(self._engine.slots) as pixels:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._feed(tasks, in_flight, pixels), name="feeder")
                    tasks.create_task(self._collect(in_flight), name="collector")
                    if self._filler is not None:
                        tasks.create_task(self._predict(self._filler), name="filler")
                    if self._cascade is not None:
                        tasks.create_task(self._cascade.run(), name="cascade")
        except BaseExceptionGroup as group:
            # The feeder's or collector's view of a broken engine is no news; a bug among them is.
            fatal, others = group.split(FatalError)
            if fatal is None or others is not None:
                raise
            raise fatal.exceptions[0] from group
        finally:
            for outlet in self._outlets:
                outlet.inbox.close()

    async def _feed(
        self,
        tasks: asyncio.TaskGroup,
        in_flight: Channel[asyncio.Task[list[_Found]]],
        pixels: PixelThreads,
    ) -> None:
        while True:
            async with AsyncExitStack() as stack:
                slot = await stack.enter_async_context(self._engine.lease())
                await stack.enter_async_context(self._depth)
                frames = await self._batcher.next_batch()
                if not frames:
                    break
                # The batch's own task releases the slot, as soon as its outputs have been read.
                work = self._infer(frames, slot, stack.pop_all(), pixels)
                await in_flight.send(tasks.create_task(work, name="batch"))
        in_flight.close()

    async def _infer(
        self, frames: list[Frame], slot: Slot, lease: AsyncExitStack, pixels: PixelThreads
    ) -> list[_Found]:
        """What the model saw in each frame; nothing where the batch is lost, and booked as such."""
        started_ns = time.monotonic_ns()
        must_not_be_lost = not all(frame.live for frame in frames)
        async with lease:
            try:
                if not (self._engine.available or must_not_be_lost):
                    raise EngineAwayError("the engine is away")  # which spares the pixels' way into the slot
                boxes = await pixels.do(len(frames), partial(self._fill, frames, slot))
                outputs = await self._engine.infer(slot, len(frames), patient=must_not_be_lost)
            except EngineAwayError:
                return self._lost(frames)
            except EngineError as error:
                self._failures += 1
                if self._failures >= _MOST_FAILURES:
                    raise
                self._warnings.warning("failed", "%s; its %d frame(s) are lost", error, len(frames))
                return self._lost(frames)
            results = await pixels.do(len(frames), partial(self._decode, frames, outputs, boxes))
        self._failures = 0
        self._times.add(len(frames), time.monotonic_ns() - started_ns)
        return results

    def _lost(self, frames: list[Frame]) -> list[_Found]:
        for frame in frames:
            self._not_inferred(frame, DropReason.ENGINE)
        return []

    def _fill(self, frames: list[Frame], slot: Slot) -> list[Letterbox]:
        boxes = []
        for frame, row in zip(frames, slot.images, strict=False):
            with self._lanes[frame.camera].ledger.spending(Cost.LETTERBOX):
                boxes.append(self._letterbox(frame.picture, row))
        return boxes

    def _decode(self, frames: list[Frame], outputs: Outputs, boxes: list[Letterbox]) -> list[_Found]:
        found = []
        for row, (frame, letterbox) in enumerate(zip(frames, boxes, strict=True)):
            lane = self._lanes[frame.camera]
            with lane.ledger.spending(Cost.POSTPROCESS):
                found.append((frame, *lane.decode(outputs, row, letterbox)))
        return found

    async def _collect(self, in_flight: Channel[asyncio.Task[list[_Found]]]) -> None:
        async for batch in in_flight:
            results = await batch
            if results:
                self.batches.add(len(results))
            for frame, detections, answers in results:
                await self._fan_out(frame, detections, answers)
        if self._filler is not None:
            self._filler.close()
        if self._cascade is not None:
            self._cascade.close()

    async def _predict(self, filler: Filler) -> None:
        async for due in filler.predictions():
            for result in due:
                await self._hand_over(result)

    async def _fan_out(self, frame: Frame, detections: Detections, answers: Answers | None) -> None:
        lane = self._lanes[frame.camera]
        lane.ledger.inferred()
        with lane.ledger.spending(Cost.TRACK):
            detections = lane.track(detections, frame.pts_s)
        about: tuple[About | None, ...] = ()
        if self._cascade is not None:
            detections, about = await self._cascade.see(frame, detections, answers)
        result = FrameResult(
            frame=frame,
            detections=detections,
            labels=self._labels,
            model=self._model,
            about=about,
        )
        if self._filler is None or not frame.live:
            await self._hand_over(result)
            return
        assert lane.velocities is not None, f"camera {frame.camera} is to be filled in, and nobody knows its velocities"
        for due in self._filler.around(result, lane.velocities()):
            await self._hand_over(due)  # which never waits for live frames: nothing comes between these

    async def _hand_over(self, result: FrameResult) -> None:
        if self._cascade is not None and result.predicted:
            result = replace(result, about=self._cascade.recall(result.frame, result.detections))
        delivery = Delivery(
            result,
            self._lanes[result.frame.camera].ledger,
            receivers=self._receivers,
            max_age_ms=self._max_age_ms if result.frame.live else None,
        )
        for outlet in self._outlets:
            await outlet.hand_over(delivery)
