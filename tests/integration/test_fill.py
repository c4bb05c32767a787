"""The samples' street through the pipeline with an engine that has no time for most of it: nothing is missing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from samples.truth import Truth
from streamproc.batching import Batcher, BatchTimes, Scheduler
from streamproc.channel import Channel, LoopSignal, Overflow
from streamproc.fill import Filler
from streamproc.ledger import CameraLedger, DropReason
from streamproc.pipeline import Lane, Outlet, Pipeline
from streamproc.sinks.base import Delivery, SinkCounts
from streamproc.tracking import CameraTracker
from streamproc.types import Detections, Frame, FrameResult, Letterbox, Picture, UInt8Array
from tests.fakes import FakeEngine
from tests.scoring import box_iou

FPS = 24
SIZE = (1280, 720)
EVERY = 4  # of so many frames one is inferred
FRAMES = 60 * EVERY


class SlowEngine(FakeEngine):
    """Sees the number of a frame, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(lambda images: {"seq": images[:, 0, 0, 0].copy()}, size=(8, 8), slots=1)
        self._busy, self._finish = asyncio.Event(), asyncio.Event()
        self._hurried = False

    async def answer(self) -> None:
        """Wait for an inference to be asked for, and let it end."""
        await self._busy.wait()
        self._busy.clear()
        self._finish.set()

    def hurry(self) -> None:
        """Answer at once from now on."""
        self._hurried = True
        self._finish.set()

    async def _answer(self, images: UInt8Array) -> dict[str, NDArray[np.uint8]]:
        self._busy.set()
        await self._finish.wait()
        if not self._hurried:
            self._finish.clear()
        return await super()._answer(images)


@dataclass
class Keeper:
    """A sink that keeps all that it is given."""

    essential: bool = True
    name: str = "keeper"
    capacity: int = 16
    counts: SinkCounts = field(default_factory=SinkCounts)
    kept: list[FrameResult] = field(default_factory=list)

    async def start(self) -> None: ...

    async def run(self, inbox: Channel[Delivery]) -> None:
        async for delivery in inbox:
            self.kept.append(delivery.result)
            if self.essential:
                delivery.taken()


class Street:
    """Two cameras of the samples, whose true boxes are what the model sees, trembling a little; one engine."""

    def __init__(self, samples: Path, *sinks: Keeper) -> None:
        self.truth = {camera: Truth.read(samples / f"{camera}.truth.json") for camera in ("gate", "plaza")}
        self.ledgers = {camera: CameraLedger(camera) for camera in self.truth}
        self.engine = SlowEngine()
        self.filler = Filler(max_age_ms=60_000)
        self.outlets = [Outlet(sink, all_live=True, fill=True) for sink in sinks]
        signal, times, interval_ns = LoopSignal(), BatchTimes(), 10**9 // FPS
        self.boxes = {camera: self._mailbox(signal) for camera in self.truth}
        scheduler = Scheduler(
            dict.fromkeys(self.truth, 1.0),
            max_batch=1,
            frame_interval_ns=interval_ns,
            max_age_ns=60 * 10**9,
            expect_ns=times.expect_ns,
        )
        batcher = Batcher(self.boxes, scheduler, signal, frame_interval_ns=interval_ns, not_inferred=self._not_inferred)
        self.pipeline = Pipeline(
            engine=self.engine,
            batcher=batcher,
            times=times,
            lanes={camera: self._lane(camera) for camera in self.truth},
            outlets=self.outlets,
            not_inferred=self._not_inferred,
            letterbox=write_number,
            model="fake",
            labels=("person", "car", "bicycle"),
            depth=1,
            max_age_ms=60_000,
            filler=self.filler,
        )

    async def run(self, frames: int, every: int) -> None:
        """So many frames of each camera, of which one in ``every`` is inferred."""
        began_ns = time.monotonic_ns()
        async with asyncio.TaskGroup() as tasks:
            for outlet in self.outlets:
                tasks.create_task(outlet.sink.run(outlet.inbox))
            tasks.create_task(self.pipeline.run())
            for seq in range(frames):
                for camera, box in self.boxes.items():
                    self.ledgers[camera].received()
                    self.ledgers[camera].decoded(0)
                    await asyncio.to_thread(box.put, frame(camera, seq, began_ns))
                if seq % (every // len(self.boxes)) == 1:
                    await self.engine.answer()
            for box in self.boxes.values():
                box.close()
            self.engine.hurry()
        for ledger in self.ledgers.values():
            ledger.close()

    def _mailbox(self, signal: LoopSignal) -> Channel[Frame]:
        return Channel(
            2,
            Overflow.DROP_OLDEST,
            on_drop=lambda frame: self._not_inferred(frame, DropReason.OVERLOAD),
            on_put=signal.ring,
        )

    def _not_inferred(self, frame: Frame, reason: DropReason) -> None:
        self.ledgers[frame.camera].dropped(reason)
        self.filler.not_inferred(frame)

    def _lane(self, camera: str) -> Lane:
        tracker, generator = CameraTracker(), np.random.default_rng(1)

        def decode(outputs: object, row: int, _: Letterbox) -> tuple[Detections, None]:
            assert isinstance(outputs, dict)
            boxes = self.true_boxes(camera, int(outputs["seq"][row]))
            sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            seen = (boxes + 0.02 * sides * generator.normal(size=boxes.shape)).astype(np.float32)
            return Detections.of(seen, np.full(len(seen), 0.9, np.float32), np.zeros(len(seen), np.int64)), None

        def track(found: Detections, time_s: float) -> Detections:
            ids = tracker.update(found.boxes, found.confidence, found.class_ids, time_s)
            return replace(found, track_ids=ids)

        return Lane(ledger=self.ledgers[camera], decode=decode, track=track, velocities=tracker.velocities)

    def true_boxes(self, camera: str, seq: int) -> NDArray[np.float64]:
        return np.array([one.box for one in self.truth[camera].frames[seq]], np.float64).reshape(-1, 4)


def frame(camera: str, seq: int, began_ns: int) -> Frame:
    """A picture whose brightness is the frame's number."""
    width, height = SIZE
    shapes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    planes = tuple(np.broadcast_to(np.uint8(seq), shape) for shape in shapes)
    return Frame(
        camera=camera,
        seq=seq,
        pts_s=seq / FPS,
        captured_ns=began_ns + seq * 10**9 // FPS,
        captured_utc_ns=0,
        live=True,
        picture=Picture(planes=planes, layout="yuv420p"),
    )


def write_number(picture: Picture, target: UInt8Array) -> Letterbox:
    target[:] = picture.planes[0][0, 0]
    return Letterbox.fit(picture.size, (8, 8))


async def test_what_is_inferred_and_what_is_predicted_are_all_frames_in_order_and_near_the_truth(samples: Path) -> None:
    messages, drawn = Keeper(), Keeper(essential=False)
    street = Street(samples, messages, drawn)
    await street.run(FRAMES, EVERY)
    overlaps: list[float] = []
    unmoved: list[float] = []
    for camera, ledger in street.ledgers.items():
        kept = [each for each in messages.kept if each.frame.camera == camera]
        seqs, tally = [each.frame.seq for each in kept], ledger.tally()
        assert seqs == sorted(set(seqs))
        assert len(seqs) >= FRAMES - EVERY, "but for those before the first result"
        assert tally.predicted == sum(each.predicted for each in kept)
        assert tally.published == tally.inferred == FRAMES - tally.dropped["overload"]
        assert tally.inferred == pytest.approx(FRAMES / EVERY, abs=3)
        assert set(tally.in_flight().values()) == {0}
        last = kept[0]
        for each in kept:
            last = last if each.predicted else each
            truth = street.true_boxes(camera, each.frame.seq)
            if each.predicted and len(each.detections):
                assert set(each.detections.track_ids.tolist()) <= set(last.detections.track_ids.tolist())
                overlaps += box_iou(each.detections.boxes, truth).max(axis=1).tolist()
                unmoved += box_iou(last.detections.boxes, truth).max(axis=1).tolist()
    assert np.mean(overlaps) > 0.85
    assert np.mean(overlaps) > np.mean(unmoved) + 0.03
    assert not any(each.predicted for each in drawn.kept), "who draws has its own way"
