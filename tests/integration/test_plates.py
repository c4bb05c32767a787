"""Real plates, read by real models on our own path: pictures in YUV, crops, engines, batches, heads."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest

from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, SecondaryConfig
from streamproc.messages import ChildObject, DetectedObject, decode_detections
from streamproc.models.heads import TextRead
from streamproc.models.heads.yolo import RawDecoder
from streamproc.models.spec import Head
from streamproc.preprocess import crop_into
from streamproc.secondary import Secondary, open_secondaries
from streamproc.types import Picture
from tests.e2e.harness import streamproc, write_config
from tests.pictures import read_picture

pytestmark = pytest.mark.shared_data

CHINESE = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新0123456789ABCDEFGHJKLMNPQRSTUVWXYZIO"
RUSSIAN = "0123456789ABEKMHOPCTYX"
PIXELS = {"color": "bgr", "mean": 127.5, "scale": 1 / 128}
READ = {  # as the pictures' own documentation has them, where the reading is a plate at all
    "cn_car_2": "皖APR925",
    "cn_car_3": "皖A53J96",
    "cn_car_4": "皖AC915E",
    "single_green": "沪AF71017",
    "single_yellow": "鲁K66666",
}


async def texts(secondary: Secondary, pictures: Sequence[Picture]) -> list[str]:
    """What is read in pictures of nothing but a plate, as many at a time as the engine takes."""
    found = []
    for start in range(0, len(pictures), secondary.engine.max_batch):
        batch = pictures[start : start + secondary.engine.max_batch]
        async with secondary.engine.lease() as slot:
            boxes = [
                crop_into(picture, (0, 0, *picture.size), row, fit=secondary.engine.info.fit)
                for picture, row in zip(batch, slot.images, strict=False)
            ]
            outputs = await secondary.engine.infer(slot, len(batch))
            answers = [secondary.read(outputs, row, box) for row, box in enumerate(boxes)]
        assert all(isinstance(answer, TextRead) for answer in answers)
        found += [answer.text for answer in answers if isinstance(answer, TextRead)]
    return found


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("folder", "column", "keys", "least"),
    [
        ("crops_cn", "plate", {"path": "lprnet_cn.onnx", "alphabet": CHINESE}, 53),
        (
            "crops_ru",
            "plate_read_by_eye",
            {"path": "lprnet_ru.onnx", "alphabet": RUSSIAN, "rectify": "stn_ru.onnx"},
            6,
        ),
    ],
)
async def test_crops_are_read_alike_alone_and_among_others(
    shared_data: Path, kind: Any, folder: str, column: str, keys: Mapping[str, Any], least: int
) -> None:
    """54 of 60 and 7 of 9 are read where the models' own code prepares the pictures; half the chroma may cost one."""
    plates = shared_data / "plates"
    with (plates / folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pictures = [read_picture(plates / folder / row["file"]) for row in rows]
    files = {key: plates / "models" / keys[key] for key in ("path", "rectify") if key in keys}
    common = {**keys, **files, "head": "ctc", "fit": "stretch", "pixels": PIXELS}
    config = Config(
        engine=EngineConfig(kind=kind, precision="fp32"),
        model=ModelConfig(name="any"),
        models={f"by{size}": SecondaryConfig(**common, max_batch=size) for size in (1, 5)},
        cameras={"gate": CameraConfig(url="rtsp://127.0.0.1/")},
    )
    async with open_secondaries(config, Head(labels=("car",), decoder=RawDecoder("any", 1))) as secondaries:
        alone = await texts(secondaries["by1"], pictures)
        together = await texts(secondaries["by5"], pictures)
    assert alone == together
    exact = sum(text == row[column] for text, row in zip(alone, rows, strict=True))
    print(f"{folder}, {kind}: {exact} of {len(rows)}")
    assert exact >= least


def run(
    folder: Path, pictures: Sequence[Path], plates: Path, *, straighten: bool = False, **sections: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was found in each picture, and the report."""
    crop = {"min_size": 8, "straighten": straighten}
    out, report = folder / "out.jsonl", folder / "report.json"
    text = {"path": plates / "models" / "lprnet_cn.onnx", "head": "ctc", "alphabet": CHINESE, "pixels": PIXELS}
    models = sections.pop("models", {})
    config = write_config(
        folder,
        **sections,
        models={**models, "text": {**text, "on": "plates" if models else "detector", "crop": crop}},
        tracking={"algorithm": "none"},
        file={"path": out},
        cameras={path.stem: {"url": path, "realtime": False} for path in pictures},
    )
    done = streamproc("run", config, "--report", report)
    assert done.code == 0, done.err
    messages = [decode_detections(line) for line in out.read_bytes().splitlines()]
    return {message.camera: message.detections for message in messages}, json.loads(report.read_text())


def read_on(plates: Sequence[DetectedObject | ChildObject]) -> set[str]:
    return {plate.text["text"].text for plate in plates if plate.text}


def test_every_plate_is_found_and_most_are_read(tmp_path: Path, shared_data: Path) -> None:
    plates = shared_data / "plates"
    pictures = sorted((plates / "images").glob("*.jpg"))
    found, report = run(tmp_path, pictures, plates, model={"path": plates / "models" / "mnet_plate.onnx"})
    assert all(found[path.stem] for path in pictures)
    assert sum(READ[name] in read_on(found[name]) for name in READ) >= 4
    assert report["models"]["text"]["crops"] == sum(len(objects) for objects in found.values())


def test_plates_at_an_angle_are_read_when_straightened(tmp_path: Path, shared_data: Path) -> None:
    """Turned by -20, -15, ... 20 degrees, 41 of 45 are read straightened, and 20 as they are; upright, all are."""
    plates = shared_data / "plates"
    turned = []
    for name in READ:
        picture = cv2.imread(str(plates / "images" / f"{name}.jpg"))
        assert picture is not None
        height, width = picture.shape[:2]
        for angle in (0, 10):
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
            turned.append(tmp_path / f"{name}-{angle}.png")
            cv2.imwrite(str(turned[-1]), cv2.warpAffine(picture, turn, (width, height)))
    exact = {}
    for straighten in (False, True):
        folder = tmp_path / str(straighten)
        folder.mkdir()
        model = {"path": plates / "models" / "mnet_plate.onnx"}
        found, _ = run(folder, turned, plates, straighten=straighten, model=model)
        exact[straighten] = {
            angle: sum(READ[name] in read_on(found[f"{name}-{angle}"]) for name in READ) for angle in (0, 10)
        }
    print(f"read as they are: {exact[False]}, straightened: {exact[True]}, of 5 each")
    assert exact[True][0] >= exact[False][0]
    assert exact[True][10] >= 4 > exact[False][10]


def test_where_there_is_no_plate_nothing_is_read(tmp_path: Path, shared_data: Path) -> None:
    plates = shared_data / "plates"
    pictures = [shared_data / "images" / "bus.jpg", *sorted((plates / "images").glob("single_*.jpg"))]
    found, report = run(
        tmp_path,
        pictures,
        plates,
        model={"path": shared_data / "models" / "yolov8n.onnx", "labels": "coco"},
        models={
            "plates": {
                "path": plates / "models" / "mnet_plate.onnx",
                "classes": ["car", "truck", "bus"],
                "confidence": 0.5,
                "crop": {"expand": 0.05, "min_size": 48},
            }
        },
    )
    children = {name: [child for one in objects for child in one.children] for name, objects in found.items()}
    assert not children["bus"]
    assert "沪AF71017" in read_on(children["single_green"])
    counts = report["models"]
    assert counts["plates"]["empty"] > 0
    assert counts["text"]["crops"] == sum(len(every) for every in children.values())
