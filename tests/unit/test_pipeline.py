"""From mailboxes to sinks with an engine that answers when it is told to."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from streamproc.about import About
from streamproc.batching import Batcher, BatchTimes, Scheduler
from streamproc.cascade import Cascade
from streamproc.cascade.answers import Answers, Told
from streamproc.channel import Channel, LoopSignal, Overflow
from streamproc.engines.base import Outputs, Slot
from streamproc.errors import EngineAwayError, EngineError
from streamproc.ledger import CameraLedger, DropReason
from streamproc.pipeline import Lane, Outlet, Pipeline
from streamproc.sinks.base import Delivery, SinkCounts
from streamproc.types import Detections, Frame, FrameResult, Letterbox, Picture, UInt8Array
from tests.fakes import FakeEngine

CAMERAS = ("a", "b", "c")
INTERVAL_NS = 10**9 // 24


def frame(camera: str, seq: int) -> Frame:
    """A picture whose brightness is the frame's number."""
    planes = (np.full((4, 4), seq, np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    picture = Picture(planes=planes, layout="yuv420p")
    return Frame(camera=camera, seq=seq, pts_s=seq / 24, captured_ns=0, captured_utc_ns=0, live=False, picture=picture)


def live_frame(camera: str, seq: int) -> Frame:
    return dataclasses.replace(frame(camera, seq), live=True, captured_ns=time.monotonic_ns())


def write_brightness(picture: Picture, target: UInt8Array) -> Letterbox:
    target[:] = picture.planes[0][0, 0]
    return Letterbox.fit(picture.size, (8, 8))


def nothing_in_it(images: UInt8Array) -> dict[str, UInt8Array]:
    return {"brightness": images[:, 0, 0, 0]}


@dataclass
class Keeper:
    """A sink that keeps what it is given and answers at once."""

    name: str = "keeper"
    essential: bool = True
    capacity: int = 2
    counts: SinkCounts = field(default_factory=SinkCounts)
    kept: list[tuple[str, int, int]] = field(default_factory=list)

    async def start(self) -> None: ...

    async def run(self, inbox: Channel[Delivery]) -> None:
        async for delivery in inbox:
            result = delivery.result
            self.kept.append((result.frame.camera, result.frame.seq, int(result.detections.class_ids[0])))
            delivery.taken()


class House:
    """A pipeline over three cameras with everything around it."""

    def __init__(self, engine: FakeEngine, *sinks: Keeper, make: Callable[[str, int], Frame] = frame) -> None:
        self.make = make
        self.ledgers = {camera: CameraLedger(camera) for camera in CAMERAS}
        self.told: list[tuple[str, int, DropReason]] = []
        signal = LoopSignal()
        self.boxes: dict[str, Channel[Frame]] = {
            camera: Channel(4, Overflow.BLOCK, on_put=signal.ring) for camera in CAMERAS
        }
        times = BatchTimes()
        scheduler = Scheduler(
            dict.fromkeys(CAMERAS, 1.0),
            max_batch=engine.max_batch,
            frame_interval_ns=INTERVAL_NS,
            max_age_ns=10**12,
            expect_ns=times.expect_ns,
        )
        self.outlets = [Outlet(sink, all_live=False) for sink in sinks]
        self.pipeline = Pipeline(
            engine=engine,
            batcher=Batcher(
                self.boxes, scheduler, signal, frame_interval_ns=INTERVAL_NS, not_inferred=self.not_inferred
            ),
            times=times,
            lanes={c: Lane(ledger=self.ledgers[c], decode=self.decode, track=lambda d, _: d) for c in CAMERAS},
            outlets=self.outlets,
            not_inferred=self.not_inferred,
            letterbox=write_brightness,
            model="fake",
            labels=("thing",),
            depth=engine.slots,
            max_age_ms=100,
        )

    def not_inferred(self, frame: Frame, reason: DropReason) -> None:
        self.ledgers[frame.camera].dropped(reason)
        self.told.append((frame.camera, frame.seq, reason))

    @staticmethod
    def decode(outputs: object, row: int, _: Letterbox) -> tuple[Detections, None]:
        """One detection, whose class id is the brightness that the model saw."""
        assert isinstance(outputs, dict)
        seen = np.array([outputs["brightness"][row]], dtype=np.int64)
        return Detections.of(np.zeros((1, 4), np.float32), np.ones(1, np.float32), seen), None

    async def feed(self, count: int) -> None:
        async def one(camera: str) -> None:
            for seq in range(count):
                self.ledgers[camera].received()
                self.ledgers[camera].decoded(0)
                await self.boxes[camera].send(self.make(camera, seq))
            self.boxes[camera].close()

        await asyncio.gather(*(one(camera) for camera in CAMERAS))

    async def run(self, count: int) -> None:
        sinks = [asyncio.create_task(outlet.sink.run(outlet.inbox)) for outlet in self.outlets]
        feeding = asyncio.create_task(self.feed(count))
        try:
            await self.pipeline.run()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, *sinks, return_exceptions=True)

    def close(self) -> dict[str, dict[str, int]]:
        for ledger in self.ledgers.values():
            ledger.close()
            tally = ledger.tally()
            assert set(tally.in_flight().values()) == {0}
        return {camera: ledger.tally().dropped for camera, ledger in self.ledgers.items()}


@pytest.mark.parametrize(("max_batch", "slots"), [(1, 1), (1, 3), (4, 2)])
async def test_every_frame_arrives_once_in_order_with_its_own_result(max_batch: int, slots: int) -> None:
    keeper = Keeper()
    house = House(FakeEngine(nothing_in_it, size=(8, 8), max_batch=max_batch, slots=slots), keeper)
    await house.run(60)
    for camera in CAMERAS:
        assert [(s, v) for c, s, v in keeper.kept if c == camera] == [(i, i) for i in range(60)]
    assert house.close() == {camera: {} for camera in CAMERAS}
    assert house.pipeline.batches.frames == 180


async def test_a_frame_is_published_when_every_essential_sink_took_it() -> None:
    class Refuser(Keeper):
        async def run(self, inbox: Channel[Delivery]) -> None:
            async for delivery in inbox:
                if delivery.result.frame.seq % 2:
                    delivery.lost()
                else:
                    delivery.taken()

    house = House(FakeEngine(nothing_in_it, size=(8, 8)), Keeper(), Refuser(name="refuser"))
    await house.run(10)
    assert house.close() == {camera: {"sink": 5} for camera in CAMERAS}


async def test_without_sinks_a_result_is_published_at_once() -> None:
    house = House(FakeEngine(nothing_in_it, size=(8, 8)))
    await house.run(10)
    assert house.close() == {camera: {} for camera in CAMERAS}
    assert all(ledger.tally().published == 10 for ledger in house.ledgers.values())


async def test_a_broken_engine_ends_the_pipeline_and_the_books_still_close() -> None:
    calls = 0

    def breaks(images: UInt8Array) -> dict[str, UInt8Array]:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise ArithmeticError("the device fell off the bus")
        return nothing_in_it(images)

    keeper = Keeper()
    house = House(FakeEngine(breaks, size=(8, 8), name="detector"), keeper)
    with pytest.raises(EngineError, match=r"detector.*fell off the bus"):
        await house.run(60)
    dropped = house.close()
    assert all(set(reasons) <= {"engine", "shutdown", "unpublished"} for reasons in dropped.values())
    assert all(outlet.inbox.closed for outlet in house.outlets), "the sinks may flush and end"


class Listener(Cascade):
    """Notes what comes with which frame; says nothing of any object."""

    def __init__(self) -> None:
        super().__init__({}, {}, ())
        self.heard: list[tuple[str, int, Answers | None]] = []

    async def see(
        self, frame: Frame, detections: Detections, answers: Answers | None = None
    ) -> tuple[Detections, tuple[About | None, ...]]:
        self.heard.append((frame.camera, frame.seq, answers))
        return detections, (None,) * len(detections)


async def test_what_a_server_says_of_a_frame_stays_with_it() -> None:
    def decode(outputs: Outputs, row: int, letterbox: Letterbox) -> tuple[Detections, Answers]:
        found, _ = House.decode(outputs, row, letterbox)
        brightness = int(found.class_ids[0])
        return found, {"shade": Told(rows={0: [brightness]}, found=None, outputs={})}

    keeper, listener = Keeper(), Listener()
    house = House(FakeEngine(nothing_in_it, size=(8, 8), max_batch=4, slots=2), keeper)
    house.pipeline._lanes = {c: Lane(ledger=house.ledgers[c], decode=decode, track=lambda d, _: d) for c in CAMERAS}
    house.pipeline._cascade = listener
    await house.run(20)
    assert len(listener.heard) == len(keeper.kept) == 3 * 20
    for _, seq, answers in listener.heard:
        assert answers is not None
        assert answers["shade"].rows == {0: [seq]}


async def test_a_bug_is_not_mistaken_for_a_broken_engine() -> None:
    def decode(*_: object) -> tuple[Detections, None]:
        raise KeyError("a bug")

    house = House(FakeEngine(nothing_in_it, size=(8, 8)))
    house.pipeline._lanes = {c: Lane(ledger=house.ledgers[c], decode=decode, track=lambda d, _: d) for c in CAMERAS}
    with pytest.raises(ExceptionGroup) as caught:
        await house.run(3)
    assert caught.value.subgroup(KeyError) is not None


def outlet(
    *, all_live: bool, essential: bool = True
) -> tuple[Outlet, CameraLedger, Callable[[float | None], Delivery]]:
    ledger = CameraLedger("a")
    sink = Keeper(capacity=1, essential=essential)

    def delivery(max_age_ms: float | None) -> Delivery:
        ledger.received()
        ledger.decoded(0)
        ledger.inferred()
        nothing = Detections.of(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        result = FrameResult(frame=frame("a", 0), detections=nothing, labels=(), model="m")
        return Delivery(result, ledger, receivers=1, max_age_ms=max_age_ms)

    return Outlet(sink, all_live=all_live), ledger, delivery


async def test_a_full_inbox_drops_the_oldest_live_result() -> None:
    full, ledger, delivery = outlet(all_live=True)
    for _ in range(3):
        await full.hand_over(delivery(100))
    assert ledger.tally().dropped == {DropReason.SINK.label: 2}
    assert full.sink.counts.lost == {"overload": 2}


async def test_among_files_a_live_result_gives_way_and_the_others_wait() -> None:
    full, ledger, delivery = outlet(all_live=False)
    await full.hand_over(delivery(None))
    await full.hand_over(delivery(100))
    assert ledger.tally().dropped == {"sink": 1}
    waiting = asyncio.create_task(full.hand_over(delivery(None)))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert full.inbox.poll() is not None
    await waiting


async def test_what_is_predicted_takes_no_room_from_results_and_none_of_who_is_not_essential() -> None:
    ledger, nothing = CameraLedger("a"), np.zeros(0, np.float32)
    result = FrameResult(
        frame=live_frame("a", 0),
        detections=Detections.of(np.zeros((0, 4), np.float32), nothing, nothing.astype(np.int64)),
        labels=(),
        model="m",
    )

    async def hand_over(outlet: Outlet, count: int, *, predicted: bool) -> None:
        for _ in range(count):
            each = dataclasses.replace(result, predicted=predicted)
            await outlet.hand_over(Delivery(each, ledger, receivers=1, max_age_ms=100))

    data = Outlet(Keeper(capacity=8), all_live=True, fill=True)
    await hand_over(data, 50, predicted=True)
    await hand_over(data, 4, predicted=False)
    kept = [delivery.result.predicted for delivery in data.inbox.drain()]
    assert kept == 12 * [True] + 4 * [False]
    assert data.sink.counts.lost == {"overload": 38}
    assert ledger.tally() == CameraLedger("a").tally()
    for other in (Outlet(Keeper(essential=False), all_live=True, fill=True), Outlet(Keeper(), all_live=True)):
        await hand_over(other, 1, predicted=True)
        assert len(other.inbox) == 0


class AwayEngine(FakeEngine):
    """An engine that is away for some inferences, by their number."""

    def __init__(self, away: range, **settings: Any) -> None:
        super().__init__(nothing_in_it, size=(8, 8), **settings)
        self.away = away
        self.patient: list[bool] = []

    async def infer(self, slot: Slot, count: int, *, patient: bool = False) -> Any:
        self.patient.append(patient)
        if self.started in self.away and not patient:
            self.started += 1
            raise EngineAwayError("the server restarts")
        return await super().infer(slot, count)


async def test_batches_that_an_engine_lost_are_booked_and_the_run_goes_on() -> None:
    house = House(AwayEngine(range(10, 40)), make=live_frame)
    await house.run(20)
    dropped = house.close()
    assert sum(reasons.get("engine", 0) for reasons in dropped.values()) == 30
    assert house.pipeline.batches.frames == 30


async def test_what_the_engine_lost_is_told_before_later_results_are_handed_over() -> None:
    known: set[tuple[str, int]] = set()
    surprises: list[tuple[str, int]] = []

    class Watchful(Keeper):
        async def run(self, inbox: Channel[Delivery]) -> None:
            async for delivery in inbox:
                camera, seq = delivery.result.frame.camera, delivery.result.frame.seq
                known.update((lost, number) for lost, number, _ in house.told)
                surprises.extend((camera, number) for number in range(seq) if (camera, number) not in known)
                known.add((camera, seq))
                delivery.taken()

    house = House(AwayEngine(range(7, 70), slots=3), Watchful(capacity=256), make=live_frame)
    await house.run(60)
    assert {reason for *_, reason in house.told} == {DropReason.ENGINE}
    assert len(house.told) == 63
    assert len(known) == 180
    assert surprises == []


async def test_an_engine_waits_for_its_server_where_frames_must_not_be_lost() -> None:
    engine = AwayEngine(range(180))
    house = House(engine, Keeper())
    await house.run(10)
    assert house.close() == {camera: {} for camera in CAMERAS}
    assert all(engine.patient)


async def test_nothing_is_sent_to_an_engine_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = AwayEngine(range(0))
    monkeypatch.setattr(AwayEngine, "available", property(lambda _: False))
    house = House(engine, make=live_frame)
    await house.run(10)
    assert house.close() == {camera: {"engine": 10} for camera in CAMERAS}
    assert engine.started == 0


async def test_a_picture_that_crashes_the_model_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    def allergic(images: UInt8Array) -> dict[str, UInt8Array]:
        if images[0, 0, 0, 0] == 7:
            raise ArithmeticError("seven")
        return nothing_in_it(images)

    keeper = Keeper()
    house = House(FakeEngine(allergic, size=(8, 8)), keeper)
    await house.run(20)
    assert house.close() == {camera: {"engine": 1} for camera in CAMERAS}
    assert "seven; its 1 frame(s) are lost" in caplog.text
