"""Secondary models at work: who is asked, when, together with whom, and what becomes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.about import About
from streamproc.cascade import Cascade
from streamproc.cascade.cascade import policy_of
from streamproc.cascade.memory import Policy
from streamproc.config import ReidConfig, SecondaryConfig
from streamproc.models.heads import Thresholds
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.heads.embedding import EmbeddingReader
from streamproc.models.spec import Head
from streamproc.secondary import Secondary
from streamproc.types import Detections, Frame, Letterbox, Picture, UInt8Array
from tests.fakes import FakeEngine

LABELS = ("person", "car")
CAR = 1
SHADES = ("dark", "bright")
THRESHOLDS = Thresholds(confidence=0.25, iou=0.5, class_ids=None, max_detections=10)
FPS = 25


def by_shade(images: UInt8Array) -> dict[str, NDArray[Any]]:
    """A classifier: whether a crop is bright."""
    bright = images.mean(axis=(1, 2, 3)) / 255
    return {"scores": np.stack([1 - bright, bright], axis=1).astype(np.float32)}


def of_nothing(images: UInt8Array) -> dict[str, NDArray[Any]]:
    return {"boxes": np.zeros((len(images), 1), np.float32)}


class LowerHalf:
    """Finds one thing in the lower half of every crop that has a bright spot anywhere; nothing in others."""

    name = "lower half"
    has_corners = False

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        there = bool(outputs["boxes"][row, 0])
        (width, height), (left, top) = letterbox.inner, letterbox.pad
        half = [left, top + height / 2, left + width, top + height]
        box = np.array([half] if there else np.empty((0, 4)), np.float32)
        return Detections.of(letterbox.to_source(box), np.ones(len(box), np.float32), np.zeros(len(box), np.int64))


def spot(images: UInt8Array) -> dict[str, NDArray[Any]]:
    return {"boxes": (images.max(axis=(1, 2, 3)) > 150)[:, None].astype(np.float32)}


def frame(seq: int, *, camera: str = "gate", live: bool = True, lit: tuple[slice, slice] | None = None) -> Frame:
    luma = np.full((200, 400), 30, np.uint8)
    if lit is not None:
        luma[lit] = 220
    grey = np.full((100, 200), 128, np.uint8)
    return Frame(
        camera=camera,
        seq=seq,
        pts_s=seq / FPS,
        captured_ns=seq,
        captured_utc_ns=seq,
        live=live,
        picture=Picture(planes=(luma, grey, grey), layout="yuv420p"),
    )


def cars(*boxes: tuple[float, float, float, float], first: int = 1, class_id: int = CAR) -> Detections:
    count = len(boxes)
    return Detections.of(
        np.array(boxes, np.float32),
        np.full(count, 0.9, np.float32),
        np.full(count, class_id),
        np.arange(first, first + count) if first else np.zeros(count, np.int64),
    )


def secondary(model: Callable[[UInt8Array], dict[str, NDArray[Any]]], **engine: Any) -> Secondary:
    shades = ClassifierReader("scores", SHADES)
    head = shades if model is by_shade else Head(labels=("part",), decoder=LowerHalf())
    return Secondary(engine=FakeEngine(model, size=(32, 32), **engine), head=head, thresholds=THRESHOLDS)


def config(**keys: Any) -> SecondaryConfig:
    return SecondaryConfig(name="any", **keys)


@asynccontextmanager
async def running(
    models: Mapping[str, SecondaryConfig], secondaries: Mapping[str, Secondary]
) -> AsyncIterator[Cascade]:
    cascade = Cascade(models, secondaries, LABELS)
    task = asyncio.create_task(cascade.run())
    try:
        yield cascade
    finally:
        cascade.close()
        await task


async def settled(cascade: Cascade, name: str, crops: int) -> None:
    """Wait until a model has looked at so many crops, or lost them."""
    async with asyncio.timeout(20):
        while (counts := cascade.counts()[name]).crops + counts.lost.total() < crops:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def shade_of(about: About | None, model: str = "shade") -> str | None:
    return about.attributes[model][0].value if about is not None and model in about.attributes else None


LEFT, RIGHT = (0.0, 0.0, 100.0, 200.0), (300.0, 0.0, 400.0, 200.0)


async def test_an_answer_comes_with_a_later_frame_of_the_same_track() -> None:
    async with running({"shade": config()}, {"shade": secondary(by_shade)}) as cascade:
        lit = (slice(None), slice(0, 100))
        assert (await cascade.see(frame(0, lit=lit), cars(LEFT, RIGHT)))[1] == (None, None)
        await settled(cascade, "shade", 2)
        _, abouts = await cascade.see(frame(1, lit=lit), cars(LEFT, RIGHT))
    assert [shade_of(about) for about in abouts] == ["bright", "dark"]


async def test_frames_that_must_not_be_lost_wait_for_their_answers() -> None:
    gate = asyncio.Event()
    async with running({"shade": config()}, {"shade": secondary(by_shade, gate=gate)}) as cascade:
        seeing = asyncio.create_task(cascade.see(frame(0, live=False), cars(LEFT, RIGHT, first=0)))
        await asyncio.sleep(0.01)
        assert not seeing.done()
        gate.set()
        assert [shade_of(about) for about in (await seeing)[1]] == ["dark", "dark"]


async def test_only_the_wanted_classes_and_sizes_are_looked_at() -> None:
    models = {"shade": config(classes=["car"], crop={"min_size": 50})}
    async with running(models, {"shade": secondary(by_shade)}) as cascade:
        await cascade.see(frame(0, live=False), cars(LEFT, class_id=0))
        await cascade.see(frame(1, live=False), cars((0, 0, 49, 200), first=2))
        assert cascade.counts()["shade"].crops == 0
        await cascade.see(frame(2, live=False), cars((0, 0, 51, 200), first=3))
        assert cascade.counts()["shade"].crops == 1


async def test_objects_of_several_cameras_share_a_batch() -> None:
    gate = asyncio.Event()
    model = secondary(by_shade, max_batch=8, slots=1, gate=gate)
    async with running({"shade": config()}, {"shade": model}) as cascade:
        await cascade.see(frame(0), cars(LEFT))
        await asyncio.sleep(0.05)  # the first is under way: the others wait for its slot, together
        for camera in ("yard", "plaza"):
            await cascade.see(frame(0, camera=camera), cars(LEFT, RIGHT))
        gate.set()
        await settled(cascade, "shade", 5)
        counts = cascade.counts()["shade"]
    assert (counts.batches, counts.crops) == (2, 5)


async def test_what_one_finds_the_next_looks_at_and_without_anything_it_is_not_called() -> None:
    models = {"part": config(), "shade": config(on="part", crop={"min_size": 1})}
    secondaries = {"part": secondary(spot), "shade": secondary(by_shade)}
    async with running(models, secondaries) as cascade:
        _, (nothing,) = await cascade.see(frame(0, live=False), cars(LEFT))
        assert nothing is None
        assert (cascade.counts()["part"].empty, cascade.counts()["shade"].crops) == (1, 0)
        _, (about,) = await cascade.see(frame(1, live=False, lit=(slice(100, None), slice(None))), cars(LEFT, first=9))
    assert about is not None
    (child,) = about.children
    assert (child.model, child.label, shade_of(child.about)) == ("part", "part", "bright")
    assert child.box == pytest.approx((0, 100, 100, 200), abs=1)


async def test_a_slow_model_holds_nobody_up_and_sees_the_freshest() -> None:
    gate = asyncio.Event()
    models = {"shade": config(max_waiting=2)}
    async with running(models, {"shade": secondary(by_shade, slots=1, gate=gate)}) as cascade:
        for seq in range(50):
            await cascade.see(frame(seq), cars(LEFT, RIGHT, (150, 0, 250, 200), (120, 0, 220, 200)))
            await asyncio.sleep(0)
        gate.set()
        await settled(cascade, "shade", 1)
        assert cascade.counts()["shade"].lost["overload"] > 0
    assert cascade.counts()["shade"].crops <= 4


async def test_a_failed_inference_costs_its_crops_alone(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def fails_once(images: UInt8Array) -> dict[str, NDArray[Any]]:
        nonlocal calls
        calls += 1
        if calls == 2:  # the first is the fake's own, for its shapes
            raise ArithmeticError("no luck")
        return by_shade(images)

    fake = Secondary(
        engine=FakeEngine(fails_once, size=(32, 32)), head=ClassifierReader("scores", SHADES), thresholds=THRESHOLDS
    )
    async with running({"shade": config()}, {"shade": fake}) as cascade:
        assert (await cascade.see(frame(0, live=False), cars(LEFT)))[1] == (None,)
        _, (about,) = await cascade.see(frame(1, live=False), cars(LEFT))
        assert cascade.counts()["shade"].lost == {"engine": 1}
    assert shade_of(about) == "dark"
    assert "no luck" in caplog.text


async def test_who_waits_is_let_go_at_the_end() -> None:
    gate = asyncio.Event()
    cascade = Cascade({"shade": config()}, {"shade": secondary(by_shade, slots=1, gate=gate)}, LABELS)
    task = asyncio.create_task(cascade.run())
    seeing = asyncio.create_task(cascade.see(frame(0, live=False), cars(LEFT, RIGHT, first=0)))
    await asyncio.sleep(0.01)
    cascade.close()
    gate.set()
    await task
    assert len((await seeing)[1]) == 2


async def test_nobody_waits_for_what_is_found_at_the_very_end() -> None:
    gate = asyncio.Event()
    models = {"part": config(), "shade": config(on="part", crop={"min_size": 1})}
    cascade = Cascade(models, {"part": secondary(spot, gate=gate), "shade": secondary(by_shade)}, LABELS)
    task = asyncio.create_task(cascade.run())
    lit = frame(0, live=False, lit=(slice(100, None), slice(None)))
    seeing = asyncio.create_task(cascade.see(lit, cars(LEFT)))
    await asyncio.sleep(0.05)
    cascade.close()
    gate.set()
    await task
    async with asyncio.timeout(20):
        _, (about,) = await seeing
    assert about is not None
    assert cascade.counts()["shade"].lost == {"shutdown": 1}


async def test_known_tracks_are_recalled_without_a_look() -> None:
    async with running({"shade": config()}, {"shade": secondary(by_shade)}) as cascade:
        assert cascade.recall(frame(0), cars(LEFT)) == (None,)
        await cascade.see(frame(0, live=False), cars(LEFT))
        (about,) = cascade.recall(frame(1), cars(LEFT))
        assert shade_of(about) == "dark"
        cascade.forget("gate")
        assert cascade.recall(frame(2), cars(LEFT)) == (None,)
    assert cascade.counts()["shade"].crops == 1


@pytest.mark.parametrize("straighten", [False, True])
async def test_what_lies_at_an_angle_is_straightened(straighten: bool) -> None:
    """A bright strip from corner to corner of a dark box: straightened, nothing but it is seen."""
    luma = np.full((200, 400), 30, np.uint8)
    corners = np.array([(100, 20), (300, 120), (300, 180), (100, 80)], np.float32)
    cv2.fillPoly(luma, [corners.astype(np.int32)], 220)
    grey = np.full((100, 200), 128, np.uint8)
    seen = replace(frame(0, live=False), picture=Picture(planes=(luma, grey, grey), layout="yuv420p"))
    keypoints = np.insert(corners, 2, 1, axis=1)[None]
    models = {"shade": config(crop={"straighten": straighten})}
    async with running(models, {"shade": secondary(by_shade)}) as cascade:
        _, (about,) = await cascade.see(seen, replace(cars((100, 20, 300, 180)), keypoints=keypoints))
    assert shade_of(about) == ("bright" if straighten else "dark")


class WithCorners(LowerHalf):
    """Tells that what it finds lies in the lower half of its box."""

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        found = LowerHalf().decode(outputs, row, letterbox, thresholds)
        x1, y1, x2, y2 = found.boxes.T
        middle = (y1 + y2) / 2
        corners = np.stack([x1, middle, x2, middle, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2)
        return replace(found, keypoints=np.insert(corners, 2, 1, axis=2))


@pytest.mark.parametrize(("straighten", "shade"), [(False, "dark"), (True, "bright")])
async def test_what_one_finds_has_corners_for_the_next(straighten: bool, shade: str) -> None:
    models = {"part": config(), "shade": config(on="part", crop={"straighten": straighten})}
    part = replace(secondary(spot), head=Head(labels=("part",), decoder=WithCorners()))
    async with running(models, {"part": part, "shade": secondary(by_shade)}) as cascade:
        lit = (slice(155, None), slice(None))
        _, (about,) = await cascade.see(frame(0, live=False, lit=lit), cars(LEFT))
    assert about is not None
    assert [shade_of(child.about) for child in about.children] == [shade]


def test_a_model_looks_as_often_as_those_on_its_objects_need() -> None:
    models = {
        "part": config(),
        "text": config(on="part", per_track={"vote": 5, "refresh_s": 1.0}),
        "kind": config(on="part", per_track={"vote": 2, "refresh_s": 9.0}),
        "shade": config(every_s=0.5),
    }
    assert policy_of("part", models) == Policy(vote=5, refresh_s=1.0)
    assert policy_of("text", models) == Policy(vote=5, refresh_s=1.0)
    assert policy_of("shade", models) == Policy(vote=3, refresh_s=2.0, every_s=0.5)


def by_hue(images: UInt8Array) -> dict[str, NDArray[Any]]:
    """An embedding: bright crops point one way, dark ones another."""
    bright = (images.mean(axis=(1, 2, 3)) > 100).astype(np.float32)
    return {"embedding": np.stack([bright, 1 - bright], axis=1)}


async def test_one_that_comes_back_has_its_id_and_all_that_was_known_of_it() -> None:
    models = {"looks": config(head="embedding"), "shade": config(per_track={"vote": 1, "refresh_s": 100})}
    looks = Secondary(
        engine=FakeEngine(by_hue, size=(32, 32)), head=EmbeddingReader("embedding"), thresholds=THRESHOLDS
    )
    cascade = Cascade(models, {"looks": looks, "shade": secondary(by_shade)}, LABELS, ReidConfig(model="looks"))
    task = asyncio.create_task(cascade.run())
    lit = (slice(None), slice(0, 100))
    await cascade.see(frame(0, live=False, lit=lit), cars(LEFT, RIGHT))
    found, (about,) = await cascade.see(frame(50, live=False, lit=lit), cars(LEFT, first=7))
    assert found.track_ids.tolist() == [1]
    assert shade_of(about) == "bright"
    assert cascade.counts()["shade"].crops == 3
    later, _ = await cascade.see(frame(51, live=False, lit=lit), cars(LEFT, first=7))
    assert later.track_ids.tolist() == [1]
    (recalled,) = cascade.recall(frame(52), later)
    assert shade_of(recalled) == "bright"
    cascade.close()
    await task
