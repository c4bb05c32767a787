from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from streamproc.channel import Channel, Overflow
from streamproc.errors import SinkError
from streamproc.ledger import CameraLedger
from streamproc.preprocess import to_bgr
from streamproc.sinks import live, live_studio
from streamproc.sinks.base import Delivery
from streamproc.sinks.live import LiveSink, LiveStyle
from streamproc.sinks.live_encoder import LiveEncoder
from streamproc.types import AccessUnit, Detections, Frame, FrameResult, Picture, Rotation, UInt8Array

SIZE = (320, 240)
GREEN = (52, 211, 153)  # of the first class, untracked


def picture(luma: int, size: tuple[int, int] = SIZE, rotation: Rotation = 0) -> Picture:
    """Gray."""
    width, height = size
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    return Picture(
        planes=(np.full((height, width), luma, np.uint8), chroma, chroma), layout="yuv420p", rotation=rotation
    )


def luma_of(index: int) -> int:
    return 50 + 8 * (index % 20)


def box_of(index: int, size: tuple[int, int] = SIZE) -> tuple[float, float, float, float]:
    """A tenth of the picture wide, in a place of its own for each of twenty pictures in a row."""
    left = 0.02 + 0.04 * (index % 20)
    return (left * size[0], 0.4 * size[1], (left + 0.1) * size[0], 0.8 * size[1])


def frame_of(camera: str, index: int, *, size: tuple[int, int] = SIZE, rotation: Rotation = 0) -> Frame:
    """Picture ``index``: its gray says which one it is."""
    return Frame(
        camera=camera,
        seq=index,
        pts_s=index / 24,
        captured_ns=0,
        captured_utc_ns=1_795_187_045_000_000_000 + index,
        live=True,
        picture=picture(luma_of(index), size, rotation),
    )


def delivery(
    camera: str, index: int, *, size: tuple[int, int] = SIZE, rotation: Rotation = 0, track: int = 0
) -> Delivery:
    """Picture ``index`` with a box in a place of its own."""
    frame = frame_of(camera, index, size=size, rotation=rotation)
    detections = Detections.of(
        np.array([box_of(index, frame.picture.size)], np.float32),
        np.array([0.9], np.float32),
        np.array([0], np.int64),
        np.array([track], np.int64),
    )
    result = FrameResult(frame=frame, detections=detections, labels=("person",), model="m")
    return Delivery(result, CameraLedger(camera), receivers=1, max_age_ms=100)


class Viewer:
    """Takes a camera's access units."""

    def __init__(self) -> None:
        self.units: queue.SimpleQueue[AccessUnit] = queue.SimpleQueue()

    async def next(self) -> AccessUnit:
        return await asyncio.to_thread(self.units.get, timeout=60)


class Run:
    """A running sink with the cameras ``gate`` and ``yard``."""

    def __init__(self, style: LiveStyle, convert: Callable[[Picture], UInt8Array]) -> None:
        self.viewers = {"gate": Viewer(), "yard": Viewer()}
        publish = {camera: viewer.units.put for camera, viewer in self.viewers.items()}
        self.sink = LiveSink(publish, style=style, to_bgr=convert)
        self.inbox: Channel[Delivery] = Channel(self.sink.capacity, Overflow.BLOCK)

    async def show(self, given: Delivery) -> AccessUnit:
        """Send one result and wait for its access unit."""
        await self.inbox.send(given)
        return await self.viewers[given.result.frame.camera].next()

    async def consumed(self) -> None:
        """Wait until the sink has looked at everything it was sent."""
        for _ in range(500):  # turns of the loop, many more than it takes
            await asyncio.sleep(0)
        assert not len(self.inbox)


@asynccontextmanager
async def running(
    style: LiveStyle | None = None, convert: Callable[[Picture], UInt8Array] = to_bgr
) -> AsyncIterator[Run]:
    run = Run(style or LiveStyle(), convert)
    await run.sink.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run.sink.run(run.inbox))
        try:
            yield run
        finally:
            run.inbox.close()
    for thread in live_threads():  # which have said their last word by now
        await asyncio.to_thread(thread.join, 60)
    assert not live_threads()


def live_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("live-")]


def decoded(units: list[AccessUnit]) -> list[NDArray[np.uint8]]:
    """The pictures as (h, w, 3) RGB."""
    decoder = VideoCodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))] + decoder.decode(None)
    return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def assert_shows(rgb: NDArray[np.uint8], index: int) -> None:
    """It is picture ``index`` with the box of picture ``index``, and no other box."""
    height, width = rgb.shape[:2]
    gray = (luma_of(index) - 16) * 255 / 219
    assert np.abs(rgb[-height // 8 :].astype(int) - gray).max() < 8  # nothing is drawn down there
    x1, y1, x2, y2 = (round(side) for side in box_of(index, (width, height)))
    row = rgb[(y1 + y2) // 2].astype(int)
    green = np.flatnonzero(row[:, 1] - row[:, 0] > 30)  # gray has none of it
    assert abs(green.min() - x1) <= 2
    assert abs(green.max() - x2) <= 2
    assert np.abs(row[x2 - 1 : x2 + 2] - GREEN).sum(axis=1).min() < 150  # chroma has half the resolution


def drawn_share(rgb: NDArray[np.uint8], index: int) -> float:
    """How much of the right side of picture ``index``'s box is drawn."""
    _, y1, x2, y2 = (round(side) for side in box_of(index, SIZE))
    strip = rgb[y1 : y2 + 1, x2 - 2 : x2 + 3].astype(int)
    return float((strip[..., 1] - strip[..., 0] > 30).any(axis=1).mean())


async def test_each_box_is_on_the_picture_it_was_found_in() -> None:
    async with running() as run:
        run.sink.watch("gate", True)
        units = [await run.show(delivery("gate", index)) for index in range(30)]
    assert [unit.pts_s for unit in units] == [index / 24 for index in range(30)]
    assert [unit.captured_utc_ns - 1_795_187_045_000_000_000 for unit in units] == list(range(30))
    pictures = decoded(units)
    assert len(pictures) == 30
    for index, shown in enumerate(pictures):
        assert_shows(shown, index)
    assert (run.sink.counts.taken, dict(run.sink.counts.lost)) == (30, {})


async def test_frames_that_were_not_inferred_are_shown_in_their_place_with_carried_boxes() -> None:
    """As it goes under load: while one frame in three is inferred, another thread gives the next ones up."""
    track = 12  # has the first colour, too
    async with running() as run:
        run.sink.watch("gate", True)
        units = [await run.show(delivery("gate", index, track=track)) for index in (0, 1)]
        for index in range(2, 17, 3):
            for dropped in (index + 1, index + 2):
                await asyncio.to_thread(run.sink.not_inferred, frame_of("gate", dropped))
            assert run.viewers["gate"].units.empty(), "they wait for the one before them"
            await run.inbox.send(delivery("gate", index, track=track))
            units += [await run.viewers["gate"].next() for _ in range(3)]
    assert [round(unit.pts_s * 24) for unit in units] == list(range(17))
    assert [unit.captured_utc_ns - 1_795_187_045_000_000_000 for unit in units] == list(range(17))
    shares = [drawn_share(shown, index) for index, shown in enumerate(decoded(units))]
    for index, share in enumerate(shares):
        if index < 2 or index % 3 == 2:
            assert share == 1, f"picture {index} was inferred"
        else:
            assert 0.3 < share < 0.95, f"picture {index} was not inferred; its box has moved on"
    assert (run.sink.counts.taken, run.sink.carried, dict(run.sink.counts.lost)) == (17, 10, {})


async def test_pictures_go_on_when_nothing_is_inferred_any_more() -> None:
    async with running() as run:
        run.sink.watch("gate", True)
        units = [await run.show(delivery("gate", 0))]
        for index in range(1, 40):
            run.sink.not_inferred(frame_of("gate", index))
            units.append(await run.viewers["gate"].next())
    pictures = decoded(units)
    assert len(pictures) == 40
    for index, shown in enumerate(pictures):
        share = drawn_share(shown, 0)  # an object without a track stays
        assert (share == 1) if index == 0 else (0.3 < share < 0.95) if index <= 24 else share == 0
    assert (run.sink.counts.taken, run.sink.carried) == (40, 39)


async def test_a_result_that_comes_after_a_later_picture_is_not_shown() -> None:
    async with running() as run:
        run.sink.watch("gate", True)
        run.sink.not_inferred(frame_of("gate", 5))
        units = [await run.viewers["gate"].next()]
        await run.inbox.send(delivery("gate", 4))  # its inference began before anybody watched
        await run.consumed()
        run.sink.not_inferred(frame_of("gate", 6))
        units.append(await run.viewers["gate"].next())
    blank, carried = decoded(units)
    assert drawn_share(blank, 4) == 0
    assert 0.3 < drawn_share(carried, 4) < 0.95
    assert (run.sink.counts.taken, run.sink.carried, dict(run.sink.counts.lost)) == (2, 2, {"late": 1})


async def test_frames_that_were_not_inferred_cost_nothing_while_nobody_watches() -> None:
    def refuse(_: Picture) -> UInt8Array:
        raise AssertionError("a picture of an unwatched camera was converted")

    async with running(convert=refuse) as run:
        for index in range(10):
            run.sink.not_inferred(frame_of("gate", index))
        run.sink.watch("gate", True)
        run.sink.watch("gate", False)
        await asyncio.to_thread(run.sink.not_inferred, frame_of("gate", 10))
    run.sink.not_inferred(frame_of("gate", 11))  # a reader that outlives the run
    assert (run.sink.counts.taken, dict(run.sink.counts.lost)) == (0, {})


async def test_nobody_watching_costs_nothing() -> None:
    def refuse(_: Picture) -> UInt8Array:
        raise AssertionError("a picture of an unwatched camera was converted")

    async with running(convert=refuse) as run:
        for index in range(50):
            await run.inbox.send(delivery("gate", index))
        await run.consumed()
        assert not live_threads()
    assert run.viewers["gate"].units.empty()
    assert (run.sink.counts.taken, run.sink.counts.lost) == (0, {"unwatched": 50})


async def test_only_the_watched_camera_pays() -> None:
    async with running() as run:
        run.sink.watch("gate", True)
        for index in range(10):
            await run.inbox.send(delivery("yard", index))
            await run.show(delivery("gate", index))
        assert [thread.name for thread in live_threads()] == ["live-gate"]
    assert run.viewers["yard"].units.empty()
    assert (run.sink.counts.taken, run.sink.counts.lost) == (10, {"unwatched": 10})


async def test_watching_ends_and_begins_again_with_a_keyframe() -> None:
    async with running() as run:
        for first in (0, 10, 20):
            run.sink.watch("gate", True)
            run.sink.watch("gate", True)
            units = [await run.show(delivery("gate", index)) for index in range(first, first + 5)]
            assert [unit.keyframe for unit in units] == [True] + 4 * [False]
            for offset, shown in enumerate(decoded(units)):
                assert_shows(shown, first + offset)
            [thread] = live_threads()
            run.sink.watch("gate", False)
            run.sink.watch("gate", False)
            await asyncio.to_thread(thread.join, 60)
            assert not live_threads()
            await run.inbox.send(delivery("gate", first + 5))
            await run.consumed()
    assert run.viewers["gate"].units.empty()
    assert (run.sink.counts.taken, run.sink.counts.lost) == (15, {"unwatched": 3})


async def test_a_keyframe_comes_with_the_next_picture_after_the_request() -> None:
    async with running() as run:
        run.sink.request_keyframe("gate")  # nobody watches: nothing to do
        run.sink.watch("gate", True)
        units = []
        for index in range(8):
            if index == 5:
                run.sink.request_keyframe("gate")
            units.append(await run.show(delivery("gate", index)))
    assert [unit.keyframe for unit in units] == [index in (0, 5) for index in range(8)]
    assert len(decoded(units[5:])) == 3


async def test_cameras_of_different_sizes_are_encoded_side_by_side() -> None:
    sizes = {"gate": (320, 240), "yard": (640, 360)}
    async with running() as run:
        units: dict[str, list[AccessUnit]] = {"gate": [], "yard": []}
        for camera in sizes:
            run.sink.watch(camera, True)
        for index in range(6):
            for camera, size in sizes.items():
                units[camera].append(await run.show(delivery(camera, index, size=size)))
    for camera, (width, height) in sizes.items():
        for index, shown in enumerate(decoded(units[camera])):
            assert shown.shape == (height, width, 3)
            assert_shows(shown, index)


async def test_a_change_of_size_starts_over_with_a_keyframe() -> None:
    sizes = 3 * [(320, 240)] + 3 * [(640, 360)] + 3 * [(320, 240)]
    async with running() as run:
        run.sink.watch("gate", True)
        units = [await run.show(delivery("gate", index, size=size)) for index, size in enumerate(sizes)]
    assert [unit.keyframe for unit in units] == 3 * [True, False, False]
    pictures = decoded(units)
    assert [shown.shape[:2][::-1] for shown in pictures] == sizes
    for index, shown in enumerate(pictures):
        assert_shows(shown, index)


@pytest.mark.parametrize(
    ("size", "rotation", "height", "shown"),
    [
        ((640, 480), 0, 240, (320, 240)),
        ((640, 480), 0, 480, (640, 480)),
        ((640, 480), 0, 1080, (640, 480)),
        ((640, 480), 0, 333, (444, 332)),
        ((321, 241), 0, None, (320, 240)),
        ((640, 480), 90, 320, (240, 320)),
        ((481, 641), 270, None, (640, 480)),
        ((1, 1), 0, None, (2, 2)),
    ],
)
async def test_pictures_are_upright_even_and_no_higher_than_asked_for(
    size: tuple[int, int], rotation: Rotation, height: int | None, shown: tuple[int, int]
) -> None:
    async with running(LiveStyle(height=height)) as run:
        run.sink.watch("gate", True)
        units = [await run.show(delivery("gate", index, size=size, rotation=rotation)) for index in range(3)]
    for index, rgb in enumerate(decoded(units)):
        assert rgb.shape == (*shown[::-1], 3)
        if size != (1, 1):
            assert_shows(rgb, index)


async def test_an_interleaved_picture_is_scaled_with_its_colours() -> None:
    luma, chroma = np.full((480, 640), 81, np.uint8), np.full((240, 320, 2), (90, 240), np.uint8)  # red
    base = delivery("gate", 0).result
    frame = Frame(
        camera="gate",
        seq=0,
        pts_s=0,
        captured_ns=0,
        captured_utc_ns=0,
        live=True,
        picture=Picture(planes=(luma, chroma), layout="nv12"),
    )
    given = FrameResult(frame=frame, detections=base.detections, labels=base.labels, model="m")
    async with running(LiveStyle(height=240)) as run:
        run.sink.watch("gate", True)
        unit = await run.show(Delivery(given, CameraLedger("gate"), receivers=1, max_age_ms=100))
    [shown] = decoded([unit])
    assert shown.shape == (240, 320, 3)
    assert np.abs(shown[220:].astype(int) - (255, 0, 0)).max() < 12


async def test_pictures_beyond_the_rate_are_neither_converted_nor_queued() -> None:
    converted = []

    def convert(source: Picture) -> UInt8Array:
        converted.append(int(source.planes[0][0, 0]))
        return to_bgr(source)

    async with running(LiveStyle(fps=8), convert) as run:
        run.sink.watch("gate", True)
        units = []
        for index in range(12):
            await run.inbox.send(delivery("gate", index))
            if index % 3 == 0:
                units.append(await run.viewers["gate"].next())
        await run.consumed()
    assert [unit.pts_s for unit in units] == [0, 3 / 24, 6 / 24, 9 / 24]
    assert converted == [luma_of(index) for index in (0, 3, 6, 9)]
    assert (run.sink.counts.taken, run.sink.counts.lost) == (4, {"rate": 8})


class Gate:
    """A ``to_bgr`` that holds the thread until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, source: Picture) -> UInt8Array:
        self.entered.set()
        assert self.opened.wait(60)
        return to_bgr(source)


async def test_an_encoder_that_is_behind_shows_the_newest_and_counts_the_rest() -> None:
    gate = Gate()
    async with running(convert=gate) as run:
        run.sink.watch("gate", True)
        await run.inbox.send(delivery("gate", 0))
        assert await asyncio.to_thread(gate.entered.wait, 60)
        for index in range(1, 20):
            await run.inbox.send(delivery("gate", index))
        await run.consumed()
        assert run.sink.counts.lost == {"overload": 17}
        gate.opened.set()
        units = [await run.viewers["gate"].next() for _ in range(3)]
    assert [round(unit.pts_s * 24) for unit in units] == [0, 18, 19]
    for shown, index in zip(decoded(units), (0, 18, 19), strict=True):
        assert_shows(shown, index)
    assert run.sink.counts.taken == 3


async def test_nothing_is_published_after_watching_ended() -> None:
    gate = Gate()
    async with running(convert=gate) as run:
        run.sink.watch("gate", True)
        await run.inbox.send(delivery("gate", 0))
        assert await asyncio.to_thread(gate.entered.wait, 60)
        for index in (1, 2):
            await run.inbox.send(delivery("gate", index))
        await run.consumed()
        [old] = live_threads()
        run.sink.watch("gate", False)
        run.sink.watch("gate", True)
        gate.opened.set()
        await asyncio.to_thread(old.join, 60)
        unit = await run.show(delivery("gate", 5))
    assert (unit.keyframe, unit.pts_s) == (True, 5 / 24)
    assert run.viewers["gate"].units.empty()
    assert (run.sink.counts.taken, run.sink.counts.lost) == (1, {"unwatched": 3})


async def test_an_encoder_that_fails_is_made_anew_and_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encode = LiveEncoder.encode

    def failing(self: LiveEncoder, bgr: UInt8Array, *, pts_s: float, captured_utc_ns: int, keyframe: bool = False):  # type: ignore[no-untyped-def]
        if round(pts_s * 24) in (2, 5):
            raise SinkError("libx264 refused a picture: no memory")
        return encode(self, bgr, pts_s=pts_s, captured_utc_ns=captured_utc_ns, keyframe=keyframe)

    monkeypatch.setattr(LiveEncoder, "encode", failing)
    with caplog.at_level(logging.WARNING):
        async with running() as run:
            run.sink.watch("gate", True)
            units = []
            for index in range(8):
                await run.inbox.send(delivery("gate", index))
                if index not in (2, 5):
                    units.append(await run.viewers["gate"].next())
    assert [unit.keyframe for unit in units] == [True, False, True, False, True, False]
    for shown, index in zip(decoded(units), (0, 1, 3, 4, 6, 7), strict=True):
        assert_shows(shown, index)
    assert (run.sink.counts.taken, run.sink.counts.lost) == (6, {"encoder": 2})
    [message] = caplog.messages
    assert message.startswith("camera gate: cannot encode its live video: libx264 refused a picture: no memory")


async def test_a_size_that_cannot_be_encoded_ends_nothing() -> None:
    async with running() as run:
        run.sink.watch("gate", True)
        await run.inbox.send(delivery("gate", 0, size=(20_000, 16)))
        await run.consumed()
        assert (await run.show(delivery("gate", 1))).keyframe
    assert (run.sink.counts.taken, run.sink.counts.lost) == (1, {"encoder": 1})


async def test_a_bug_on_a_cameras_thread_ends_the_run() -> None:
    def broken(_: Picture) -> UInt8Array:
        raise ZeroDivisionError

    sink = LiveSink({"gate": lambda unit: None}, style=LiveStyle(), to_bgr=broken)
    inbox: Channel[Delivery] = Channel(2, Overflow.DROP_OLDEST)
    sink.watch("gate", True)
    [thread] = live_threads()
    inbox.offer(delivery("gate", 0))
    running = asyncio.create_task(sink.run(inbox))
    await asyncio.to_thread(thread.join, 60)
    inbox.offer(delivery("gate", 1))
    with pytest.raises(ZeroDivisionError):
        await running


async def test_a_thread_that_hangs_is_left_behind_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "_CLOSE_TIMEOUT_S", 0.1)
    gate = Gate()
    run = Run(LiveStyle(), gate)
    task = asyncio.create_task(run.sink.run(run.inbox))
    run.sink.watch("gate", True)
    await run.inbox.send(delivery("gate", 0))
    assert await asyncio.to_thread(gate.entered.wait, 60)
    for index in (1, 2):
        await run.inbox.send(delivery("gate", index))
    await run.consumed()
    run.inbox.close()
    await task
    [message] = caplog.messages
    assert message.startswith("camera gate: its live encoder did not end within")
    assert run.sink.counts.lost == {"shutdown": 2}
    run.sink.watch("yard", True)  # a viewer who comes too late
    [thread] = live_threads()
    gate.opened.set()
    await asyncio.to_thread(thread.join, 60)
    assert run.sink.counts.lost == {"shutdown": 3}
    assert run.viewers["gate"].units.empty()


async def test_ages_are_measured_from_capture_to_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_studio, "monotonic_ns", lambda: 40_000_000)
    async with running() as run:
        run.sink.watch("gate", True)
        for index in range(5):
            await run.show(delivery("gate", index))
    assert run.sink.ages().percentile(95) == pytest.approx(40, rel=0.02)


async def test_it_answers_no_delivery() -> None:
    given = delivery("gate", 0)
    ledger = CameraLedger("gate")
    async with running() as run:
        run.sink.watch("gate", True)
        await run.show(Delivery(given.result, ledger, receivers=1, max_age_ms=None))
    assert not run.sink.essential
    assert ledger.tally().published == 0
