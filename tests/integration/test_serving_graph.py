"""Real models on real plates, run as a server runs a cascade, on whole pictures, and as the client does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.about import About, Child
from streamproc.cascade import Cascade
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, SecondaryConfig
from streamproc.detector import Detector, open_detector
from streamproc.engines.base import Engine
from streamproc.models.heads import TextRead
from streamproc.models.spec import Head
from streamproc.packing import pack_into, packed_shape
from streamproc.preprocess import letterbox_into
from streamproc.secondary import Secondary
from streamproc.serving.graph import Graph
from streamproc.serving.plan import ModelPlan, Plan
from streamproc.types import Frame, Letterbox, Picture, UInt8Array
from tests.pictures import read_picture

pytestmark = pytest.mark.shared_data

CHINESE = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新0123456789ABCDEFGHJKLMNPQRSTUVWXYZIO"
PIXELS = {"color": "bgr", "mean": 127.5, "scale": 1 / 128}
READ = {"cn_car_2": "皖APR925", "cn_car_3": "皖A53J96", "single_green": "沪AF71017", "single_yellow": "鲁K66666"}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An object, the text on it, and what was found within it."""

    box: tuple[float, ...]
    text: str | None
    within: tuple[Seen, ...] = ()


def packed(picture: Picture) -> UInt8Array:
    """The picture as a client sends it to the server, in a batch of one."""
    row = np.empty((1, *packed_shape(picture.size)), np.uint8)
    pack_into(picture, row[0])
    return row


def loaded(detector: Detector) -> dict[str, Secondary]:
    return {name: one for name, one in detector.secondaries.items() if isinstance(one, Secondary)}


async def infer(engine: Engine, pictures: UInt8Array) -> dict[str, NDArray[Any]]:
    async with engine.lease() as slot:
        slot.images[: len(pictures)] = pictures
        outputs = await engine.infer(slot, len(pictures))
        return {name: values.copy() for name, values in outputs.items()}


@asynccontextmanager
async def opened(plates: Path, **sections: Any) -> AsyncIterator[tuple[Config, Detector, Cascade]]:
    read: dict[str, Any] = {"head": "ctc", "alphabet": CHINESE, "pixels": PIXELS, "max_batch": 2}
    crop: Any = {"min_size": 8, "straighten": True}
    models = {name: SecondaryConfig(**model) for name, model in sections.pop("models", {}).items()}
    on, path = "plates" if models else "detector", plates / "models" / "lprnet_cn.onnx"
    config = Config(
        engine=EngineConfig(kind="onnxruntime"),
        models={**models, "text": SecondaryConfig(path=path, on=on, crop=crop, **read)},
        cameras={"gate": CameraConfig(url="rtsp://127.0.0.1/")},
        **sections,
    )
    async with open_detector(config) as detector:
        cascade = Cascade(config.models, detector.secondaries, detector.head.labels)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cascade.run())
            yield config, detector, cascade
            cascade.close()


async def seen_by_client(config: Config, detector: Detector, cascade: Cascade, picture: Picture) -> tuple[Seen, ...]:
    """What the client's cascade knows of each object in a picture that is never late."""
    width, height = detector.engine.info.size
    row = np.empty((1, height, width, 3), np.uint8)
    letterbox = letterbox_into(picture, row[0], fit=detector.engine.info.fit)
    outputs = await infer(detector.engine, row)
    thresholds = detector.head.thresholds(config.model, config.cameras["gate"])
    detections = detector.head.decode(outputs, 0, letterbox, thresholds)
    frame = Frame(camera="gate", seq=0, pts_s=0, captured_ns=0, captured_utc_ns=0, live=False, picture=picture)
    _, abouts = await cascade.see(frame, detections)
    return tuple(known(tuple(box), about) for box, about in zip(detections.boxes.tolist(), abouts, strict=True))


def known(box: tuple[float, ...], about: About | None) -> Seen:
    text = about.texts.get("text") if about else None
    children: tuple[Child, ...] = about.children if about else ()
    within = tuple(known(child.box, child.about) for child in children)
    return Seen(box=box, text=text.value if text else None, within=within)


def plan_of(config: Config, detector: Detector, size: tuple[int, int]) -> Plan:
    models = [
        ModelPlan(
            name="detector",
            info=detector.engine.info,
            head=config.model.head,
            finds=True,
            most=20,
            max_batch=detector.engine.max_batch,
            labels=detector.head.labels,
            keypoints=4 if detector.head.decoder.has_corners else 0,
            confidence=config.model.confidence,
            iou=config.model.iou,
        )
    ]
    for name, model in config.models.items():
        secondary = loaded(detector)[name]
        models.append(
            ModelPlan(
                name=name,
                on=model.on,
                info=secondary.engine.info,
                head=model.head,
                finds=isinstance(secondary.head, Head),
                most=20,
                max_batch=secondary.engine.max_batch,
                labels=secondary.labels,
                confidence=model.confidence,
                iou=model.iou,
                classes=model.classes,
                crop_expand=model.crop.expand,
                crop_min_size=model.crop.min_size,
                crop_straighten=model.crop.straighten,
            )
        )
    return Plan.from_json(Plan(size=size, models=tuple(models)).to_json())


async def seen_by_graph(plan: Plan, detector: Detector, row: UInt8Array) -> tuple[Seen, ...]:
    loop = asyncio.get_running_loop()
    engines = {"detector": detector.engine, **{name: one.engine for name, one in loaded(detector).items()}}

    def call(name: str, pictures: UInt8Array) -> Mapping[str, NDArray[Any]]:
        return asyncio.run_coroutine_threadsafe(infer(engines[name], pictures), loop).result()

    answer = await asyncio.to_thread(Graph(plan).run, row, call)
    everything = np.flatnonzero(answer["detections"][0, :, 4]).tolist()
    return tuple(told(plan, detector, answer, "detector", row) for row in everything)


def told(plan: Plan, detector: Detector, answer: Mapping[str, NDArray[Any]], name: str, row: int) -> Seen:
    """What an answer says of the object in a row of what ``name`` found."""
    text, within = None, []
    for model in plan.secondaries:
        if model.on == name:
            rows = np.flatnonzero(answer[f"{model.name}.parent"][0] == row).tolist()
            if model.finds:
                within += [told(plan, detector, answer, model.name, one) for one in rows]
                continue
            outputs = {tensor.name: answer[f"{model.name}.{tensor.name}"][0] for tensor in model.info.outputs}
            for one in rows:
                read = detector.secondaries[model.name].read(outputs, one, Letterbox.fit(plan.size, model.info.size))
                assert isinstance(read, TextRead)
                text = read.text or None
    objects = answer["detections" if name == "detector" else f"{name}.objects"][0]
    return Seen(box=tuple(objects[row, :4].tolist()), text=text, within=tuple(within))


def check_equal(one: tuple[Seen, ...], other: tuple[Seen, ...]) -> None:
    """Objects that are nearly as sure may change places."""
    assert len(one) == len(other)
    for a in one:
        b = max(other, key=lambda candidate: overlap(a.box, candidate.box))
        assert overlap(a.box, b.box) >= 0.99
        assert a.text == b.text
        check_equal(a.within, b.within)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union."""
    both = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    every = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return both / (every - both)


def texts_of(seen: tuple[Seen, ...]) -> set[str | None]:
    return {one.text for one in seen} | {text for one in seen for text in texts_of(one.within)}


async def test_a_straight_line_reads_what_the_client_reads(shared_data: Path) -> None:
    plates = shared_data / "plates"
    read = 0
    async with opened(plates, model=ModelConfig(path=plates / "models" / "mnet_plate.onnx")) as (config, detector, own):
        for path in sorted((plates / "images").glob("*.jpg")):
            picture = read_picture(path)
            client = await seen_by_client(config, detector, own, picture)
            plan = plan_of(config, detector, picture.size)
            check_equal(client, await seen_by_graph(plan, detector, packed(picture)))
            read += READ.get(path.stem, "none of these") in texts_of(client)
    assert read == len(READ)


async def test_plates_on_vehicles_are_read_alike(shared_data: Path) -> None:
    plates = shared_data / "plates"
    pictures = [plates / "images" / f"{name}.jpg" for name in ("single_green", "single_yellow")]
    on_cars = {
        "path": plates / "models" / "mnet_plate.onnx",
        "classes": ("car", "truck", "bus"),
        "confidence": 0.5,
        "crop": {"expand": 0.05, "min_size": 48},
    }
    model = ModelConfig(path=shared_data / "models" / "yolov8n.onnx", labels="coco")
    read = 0
    async with opened(plates, model=model, models={"plates": on_cars}) as (config, detector, own):
        for path in [*pictures, shared_data / "images" / "bus.jpg"]:
            picture = read_picture(path)
            client = await seen_by_client(config, detector, own, picture)
            assert client
            plan = plan_of(config, detector, picture.size)
            check_equal(client, await seen_by_graph(plan, detector, packed(picture)))
            read += READ.get(path.stem, "none of these") in texts_of(client)
    assert read == len(pictures)
