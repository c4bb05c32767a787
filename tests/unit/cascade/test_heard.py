"""Answers that come with the detections: taken as seldom as models are asked, and the same as if they had been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.about import About, Child
from streamproc.cascade import Cascade
from streamproc.cascade.answers import AnswerReader
from streamproc.config import ReidConfig, SecondaryConfig
from streamproc.models.heads import Thresholds
from streamproc.models.spec import recognise
from streamproc.packing import pack_into, packed_shape
from streamproc.secondary import CropReader, Secondary, reader_of
from streamproc.serving.graph import Graph
from streamproc.serving.plan import ModelPlan, Plan
from streamproc.types import Detections, Frame, Letterbox, Picture, UInt8Array
from tests.fakes import FakeEngine
from tests.served import CANVAS, CARS, PLATES, Object, answer, finder, reader

PERSON, CAR = 0, 1
FPS = 25
ALL = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)
PLAN = Plan(
    size=CANVAS,
    models=(
        finder(),
        finder("plates", "detector", labels=PLATES, most=6),
        reader("shade", "plates"),
        reader("looks", tensor="embedding", outputs=3),
    ),
)
KEYS: dict[str, dict[str, Any]] = {"shade": {"on": "plates"}, "looks": {"head": "embedding"}}
FIRST: Object = (10, 20, 110, 120, 0.9, CAR)
SECOND: Object = (200, 20, 300, 180, 0.6, CAR)
PLATE: Object = (20, 80, 60, 100, 0.8, 0)
BRIGHT, DARK = (0.1, 0.9), (0.8, 0.2)


def configs(*names: str, **changes: dict[str, Any]) -> dict[str, SecondaryConfig]:
    wanted = names or ("plates", "shade", "looks")
    return {
        name: SecondaryConfig(**{"name": f"served_{name}"} | KEYS.get(name, {}) | changes.get(name, {}))
        for name in wanted
    }


def readers(models: Mapping[str, SecondaryConfig], plan: Plan = PLAN) -> dict[str, CropReader]:
    return {name: reader_of(name, plan.model(name).info, model) for name, model in models.items()}


class House:
    """A cascade whose answers come with the detections."""

    def __init__(self, models: Mapping[str, SecondaryConfig], reid: ReidConfig | None = None) -> None:
        self._readers = readers(models)
        self._answers = AnswerReader(PLAN, {name: one.thresholds for name, one in self._readers.items()})
        self.cascade = Cascade(models, self._readers, CARS, reid)

    async def see(
        self, seq: int, found: Sequence[Object], tracks: Sequence[int] = (), *, live: bool = True, **said: Any
    ) -> tuple[list[int], tuple[About | None, ...]]:
        outputs = answer(PLAN, found, **said)
        detections, answers = self._answers.read(outputs, 0, Letterbox.fit(CANVAS, CANVAS), ALL)
        detections = tracked(detections, tracks or range(1, len(detections) + 1))
        seen, abouts = await self.cascade.see(frame(seq, live=live), detections, answers)
        return seen.track_ids.tolist(), abouts


@asynccontextmanager
async def running(models: Mapping[str, SecondaryConfig], **keys: Any) -> AsyncIterator[House]:
    house = House(models, **keys)
    task = asyncio.create_task(house.cascade.run())
    try:
        yield house
    finally:
        house.cascade.close()
        await task


def tracked(found: Detections, tracks: Sequence[int] | range) -> Detections:
    return Detections.of(found.boxes, found.confidence, found.class_ids, np.array(list(tracks), dtype=np.int64))


def frame(seq: int, *, live: bool = False, luma: UInt8Array | None = None) -> Frame:
    width, height = CANVAS
    grey = np.full((height // 2, width // 2), 128, np.uint8)
    planes = (np.full((height, width), 30, np.uint8) if luma is None else luma, grey, grey)
    return Frame(
        camera="gate",
        seq=seq,
        pts_s=seq / FPS,
        captured_ns=seq,
        captured_utc_ns=seq,
        live=live,
        picture=Picture(planes=planes, layout="yuv420p"),
    )


def shade(about: About | None) -> str | None:
    return about.attributes["shade"][0].value if about is not None and "shade" in about.attributes else None


async def test_what_is_said_is_known_at_once_of_objects_with_and_without_a_track() -> None:
    async with running(configs("plates", "shade")) as house:
        _, abouts = await house.see(0, [FIRST, SECOND], [7, 0], plates={0: [PLATE], 1: []}, shade={0: [BRIGHT]})
        (first, second), counts = abouts, house.cascade.counts()
    assert second is None
    assert first is not None
    (child,) = first.children
    assert (child.model, child.label, shade(child.about)) == ("plates", "plate", "bright")
    assert child.box == pytest.approx(PLATE[:4], abs=1e-3)
    assert child.confidence == pytest.approx(0.8)
    assert (counts["plates"].crops, counts["plates"].empty, counts["shade"].crops) == (2, 1, 1)
    assert (counts["plates"].batches, counts["plates"].lost) == (0, {})


async def test_answers_are_taken_as_often_as_a_model_would_be_asked() -> None:
    models = configs("plates", "shade", shade={"on": "plates", "per_track": {"vote": 2, "refresh_s": 1.0}})
    taken = []
    async with running(models) as house:
        for seq in range(30):
            said = DARK if seq < 2 else BRIGHT
            _, (about,) = await house.see(seq, [FIRST], plates={0: [PLATE]}, shade={0: [said]})
            assert about is not None
            taken.append((house.cascade.counts()["shade"].crops, shade(about.children[0].about)))
    assert [crops for crops, _ in taken] == [1] + [2] * 25 + [3] * 4
    assert [value for _, value in taken] == ["dark"] * 26 + ["bright"] * 4, "one vote of each: the surer one"


async def test_only_the_wanted_classes_and_sizes() -> None:
    models = configs(
        "looks", looks={"head": "embedding", "publish": True, "classes": ["car"], "crop": {"min_size": 50}}
    )
    small: Object = (0, 0, 49, 90, 0.5, CAR)
    person: Object = (300, 0, 380, 150, 0.5, PERSON)
    async with running(models) as house:
        said = {number: [(0, 3, 4)] for number in range(3)}
        _, abouts = await house.see(0, [FIRST, small, person], looks=said)
    assert [about is not None for about in abouts] == [True, False, False]
    assert abouts[0] is not None
    assert abouts[0].embeddings["looks"].tolist() == pytest.approx([0, 0.6, 0.8])


async def test_what_the_server_had_no_room_for_is_counted_and_looked_at_later() -> None:
    async with running(configs("plates", "shade")) as house:
        _, abouts = await house.see(0, [FIRST, SECOND], plates={0: []})
        assert abouts == (None, None)
        assert house.cascade.counts()["plates"].lost == {"unseen": 1}
        inner: Object = (220, 80, 260, 100, 0.8, 0)
        _, abouts = await house.see(1, [FIRST, SECOND], plates={0: [], 1: [inner]}, shade={0: [BRIGHT]})
    assert abouts[1] is not None
    assert [shade(child.about) for child in abouts[1].children] == ["bright"]


async def test_of_what_was_found_in_an_object_the_best_count() -> None:
    worse: Object = (70, 80, 105, 100, 0.5, 0)
    models = configs("plates", "shade", plates={"max_detections": 1})
    async with running(models) as house:
        said = {0: [BRIGHT], 1: [DARK]}
        _, (about,) = await house.see(0, [FIRST], plates={0: [worse, PLATE]}, shade=said)
    assert about is not None
    (child,) = about.children
    assert child.confidence == pytest.approx(0.8)
    assert shade(child.about) == "bright"
    assert house.cascade.counts()["shade"].crops == 1


async def test_an_answer_that_is_none_is_counted_and_kept_from_nobody() -> None:
    async with running(configs("looks", looks={"head": "embedding", "publish": True})) as house:
        assert await house.see(0, [FIRST], looks={0: [(0, 0, 0)]}) == ([1], (None,))
        counts = house.cascade.counts()["looks"]
        assert (counts.crops, counts.empty) == (1, 1)


async def test_one_that_comes_back_has_its_id_again() -> None:
    reid = ReidConfig(model="looks", similarity=0.9)
    async with running(configs(), reid=reid) as house:
        red, blue = [(1, 0, 0)], [(0, 0, 1)]
        first, _ = await house.see(
            0, [FIRST, SECOND], [1, 2], plates={0: [PLATE], 1: []}, shade={0: [BRIGHT]}, looks={0: red, 1: blue}
        )
        assert first == [1, 2]
        await house.see(1, [SECOND], [2], plates={0: []}, looks={0: blue})
        ids, (_, about) = await house.see(50, [SECOND, FIRST], [2, 9], plates={0: [], 1: []}, looks={0: blue, 1: red})
    assert ids == [2, 1]
    assert about is not None, "what is known of it stays"
    assert [shade(child.about) for child in about.children] == ["bright"]


# The same models, asked one by one and run by a server's graph.


def means(images: UInt8Array) -> dict[str, NDArray[Any]]:
    bright = images.mean(axis=(1, 2, 3)) / 255
    return {"scores": np.stack([1 - bright, bright], axis=1).astype(np.float32)}


def colours(images: UInt8Array) -> dict[str, NDArray[Any]]:
    height = images.shape[1]
    parts = [images[:, start : start + height // 3].mean(axis=(1, 2, 3)) for start in range(0, height - 2, height // 3)]
    return {"embedding": np.stack(parts, axis=1).astype(np.float32)[:, :3]}


def bright_spots(images: UInt8Array) -> dict[str, NDArray[Any]]:
    """What is brighter than all around it, if anything is."""
    rows = np.zeros((len(images), 8, 6), np.float32)
    for row, image in zip(rows, images, strict=True):
        places = np.argwhere(image[..., 0] > 160)
        if len(places):
            (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0) + 1
            row[0] = left, top, right, bottom, 0.9, 0
    return {"boxes": rows}


FUNCTIONS = {"plates": bright_spots, "shade": means, "looks": colours}


def moving(count: int) -> Iterator[tuple[UInt8Array, list[Object], list[int]]]:
    """Pictures of two cars, with a plate each, of which one is away for a while, and a person: what the detector finds
    in them, and the tracker's ids."""
    for seq in range(count):
        width, height = CANVAS
        luma = np.full((height, width), 60, np.uint8)
        first, second = 10 + 2 * seq, 380 - 3 * seq
        luma[40:140, first : first + 100], luma[60:150, second - 90 : second] = 90, 120
        luma[104:128, first + 20 : first + 60] = 200 + 50 * (seq % 2)
        found: list[Object] = [(first, 40, first + 100, 140, 0.9, CAR)]
        tracks = [1]
        if not 10 <= seq < 20:
            luma[100:126, second - 60 : second - 20] = 180
            found.append((second - 90, 60, second, 150, 0.8, CAR))
            tracks.append(2 if seq < 10 else 3)
        found.append((180, 10, 220, 60, 0.7, PERSON))
        yield luma, found, [*tracks, 0]


class Asked:
    """Who says what of a frame: the client's cascade, or the server's."""

    def __init__(self, served: bool) -> None:
        votes = {"per_track": {"vote": 2, "refresh_s": 0.4}}
        models = configs(
            plates={"classes": ["car"]}, shade={"on": "plates", **votes}, looks={"head": "embedding", "publish": True}
        )
        self._graph = Graph(PLAN)
        self._readers = readers(models)
        self._answers = AnswerReader(PLAN, {name: one.thresholds for name, one in self._readers.items()})
        self._served = served
        own = {name: engine(PLAN.model(name), one) for name, one in self._readers.items()}
        reid = ReidConfig(model="looks", similarity=0.99)
        self.cascade = Cascade(models, self._readers if served else own, CARS, reid)

    async def see(
        self, seq: int, luma: UInt8Array, found: Sequence[Object], tracks: Sequence[int]
    ) -> tuple[Detections, tuple[About | None, ...]]:
        seen, info = frame(seq, luma=luma), PLAN.detector.info
        letterbox = Letterbox.fit(CANVAS, info.size, info.fit)
        rows = in_input(found, letterbox)
        if not self._served:
            detections = recognise(info).decode({"boxes": rows}, 0, letterbox, ALL)
            return await self.cascade.see(seen, tracked(detections, tracks))
        packed = np.empty((1, *packed_shape(CANVAS)), np.uint8)
        whole = pack_into(seen.picture, packed[0])
        outputs = self._graph.run(
            packed, lambda name, images: {"boxes": rows} if name == "detector" else FUNCTIONS[name](images)
        )
        detections, answers = self._answers.read(outputs, 0, whole, ALL)
        return await self.cascade.see(seen, tracked(detections, tracks), answers)


def engine(model: ModelPlan, reader: CropReader) -> Secondary:
    fake = FakeEngine(FUNCTIONS[model.name], size=model.info.size, max_batch=3)
    fake.info = model.info
    return Secondary(engine=fake, head=reader.head, thresholds=reader.thresholds)


def in_input(found: Sequence[Object], letterbox: Letterbox) -> NDArray[np.float32]:
    """(1, 8, 6): objects as the detector has them in its input."""
    rows = np.zeros((1, 8, 6), np.float32)
    rows[0, : len(found)] = found
    scale, pad = letterbox.inner[0] / CANVAS[0], letterbox.pad
    rows[0, : len(found), :4] = rows[0, : len(found), :4] * scale + (*pad, *pad)
    return rows


def assert_alike(one: About | None, other: About | None) -> None:
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    assert {name: [each.value for each in some] for name, some in one.attributes.items()} == {
        name: [each.value for each in some] for name, some in other.attributes.items()
    }
    for name, embedding in one.embeddings.items():
        assert embedding @ other.embeddings[name] > 0.9999
    assert len(one.children) == len(other.children)
    for child, twin in zip(one.children, other.children, strict=True):
        assert_same_child(child, twin)


def assert_same_child(child: Child, twin: Child) -> None:
    assert (child.model, child.label) == (twin.model, twin.label)
    assert child.box == pytest.approx(twin.box, abs=1e-3)
    assert_alike(child.about, twin.about)


async def test_the_server_says_what_the_models_say_one_by_one() -> None:
    """Frame by frame: the same ids, the same of each object, from as many looks."""
    asked, heard = Asked(served=False), Asked(served=True)
    tasks = [asyncio.create_task(one.cascade.run()) for one in (asked, heard)]
    known = 0
    for seq, (luma, found, tracks) in enumerate(moving(40)):
        (mine, abouts), (theirs, others) = [await one.see(seq, luma, found, tracks) for one in (asked, heard)]
        np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=1e-3)
        assert mine.track_ids.tolist() == theirs.track_ids.tolist()
        for about, other in zip(abouts, others, strict=True):
            assert_alike(about, other)
            known += about is not None and bool(about.children)
    assert known > 60
    for name, counts in asked.cascade.counts().items():
        twin = heard.cascade.counts()[name]
        assert (counts.crops, counts.empty, counts.lost) == (twin.crops, twin.empty, twin.lost), name
        assert counts.crops > 4
    for one in (asked, heard):
        one.cascade.close()
    await asyncio.gather(*tasks)
