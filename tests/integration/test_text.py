"""Text detection and recognition with real models: lines that are drawn, and plates whose text is known."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.config import EngineConfig, ModelConfig
from streamproc.crops import corners_of
from streamproc.engines.factory import open_engine
from streamproc.messages import DetectedObject, decode_detections
from streamproc.models.heads import Thresholds
from streamproc.models.spec import recognise
from streamproc.types import Detections, UInt8Array
from tests.detecting import detect_all
from tests.e2e.harness import streamproc, write_config
from tests.pictures import frames_of, picture_of

pytestmark = pytest.mark.shared_data

Floats = NDArray[np.float32]
CHINESE = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新0123456789ABCDEFGHJKLMNPQRSTUVWXYZIO"
SIZE = (1280, 736)
TEXTS = Thresholds(confidence=0.6, iou=0.45, class_ids=None, max_detections=300)
ANGLES = (-20, -15, -10, -5, 0, 5, 10, 15, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A drawn text; ``corners`` (4, 2) of what its letters fill, clockwise from its own top left."""

    text: str
    corners: Floats


def street(seed: int, size: tuple[int, int] = (1280, 720)) -> UInt8Array:
    """A grey picture, darker towards the bottom, with the noise of a camera; BGR."""
    width, height = size
    shade = np.linspace(150, 90, height)[:, None, None] + np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    return np.clip(shade, 0, 255).astype(np.uint8)


def laid(bgr: UInt8Array, patch: UInt8Array, centre: tuple[float, float], degrees: float, scale: float) -> Floats:
    """Lay a patch, turned clockwise, onto a picture; where its corners are then."""
    height, width = patch.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, scale)
    turn[:, 2] += np.array(centre) - (width / 2, height / 2)
    size = (bgr.shape[1], bgr.shape[0])
    covered = cv2.warpAffine(np.full((height, width), 255, np.uint8), turn, size)
    np.copyto(bgr, cv2.warpAffine(patch, turn, size, flags=cv2.INTER_CUBIC), where=(covered > 127)[..., None])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ turn[:, :2].T + turn[:, 2]
    return corners.astype(np.float32)


def draw(bgr: UInt8Array, text: str, centre: tuple[float, float], degrees: float, *, dark: bool) -> Line:
    """Write on a picture, without a box of its own around it."""
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.2, 3)
    ink = np.zeros((height + baseline, width), np.uint8)
    cv2.putText(ink, text, (0, height), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 3, cv2.LINE_AA)
    rows = np.flatnonzero(ink.max(axis=1))
    ink = ink[rows[0] : rows[-1] + 1]
    layer: UInt8Array = np.zeros_like(bgr)
    corners = laid(layer, np.repeat(ink[..., None], 3, axis=2), centre, degrees, 1.0)
    share = layer / 255
    np.copyto(bgr, (bgr * (1 - share) + (20 if dark else 240) * share).astype(np.uint8))
    return Line(text=text, corners=corners)


def overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two convex quadrilaterals (4, 2)."""
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    shared, _ = cv2.intersectConvexConvex(one, other)
    return float(shared / (cv2.contourArea(one) + cv2.contourArea(other) - shared))


async def find(model: Path, picture: Path) -> Detections:
    engine = await open_engine(EngineConfig(kind="onnxruntime"), ModelConfig(path=model, size=SIZE))
    head = recognise(engine.info)
    assert (head.name, head.labels, engine.info.fit) == ("text regions", ("text",), "letterbox")
    (found,) = await detect_all(engine, head, [picture_of(next(frames_of(picture)))], TEXTS)
    await engine.close()
    return found


async def test_drawn_lines_are_found_with_their_corners(tmp_path: Path, shared_data: Path) -> None:
    bgr = street(1)
    lines = [
        draw(bgr, f"GATE {abs(angle)} NORTH", (230 + 410 * (i % 3), 120 + 235 * (i // 3)), angle, dark=i % 2 == 0)
        for i, angle in enumerate(ANGLES)
    ]
    cv2.imwrite(str(tmp_path / "street.png"), bgr)
    found = await find(shared_data / "text" / "ppocr_det.onnx", tmp_path / "street.png")
    worst = 1.0
    assert len(found) == len(lines)
    for line in lines:
        overlaps = [overlap(line.corners, corners) for corners in corners_of(found) if corners is not None]
        best = int(np.argmax(overlaps))
        worst = min(worst, overlaps[best])
        assert overlaps[best] >= 0.5, line
        corners = corners_of(found)[best]
        assert corners is not None
        nearest = np.linalg.norm(corners[:, None] - line.corners, axis=2).argmin(axis=1)
        assert nearest.tolist() == [0, 1, 2, 3], line
        box = np.concatenate([line.corners.min(axis=0), line.corners.max(axis=0)])
        np.testing.assert_allclose(found.boxes[best], box, atol=20)
    print(f"{len(lines)} lines, worst overlap {worst:.2f}")


def read_all(folder: Path, **sections: Any) -> tuple[dict[str, tuple[DetectedObject, ...]], dict[str, Any]]:
    """What is in the messages of a run, by camera, and what its report says of the models."""
    out, report = folder / "out.jsonl", folder / "report.json"
    config = write_config(folder, **sections, tracking={"algorithm": "none"}, file={"path": out})
    done = streamproc("run", config, "--report", report)
    assert done.code == 0, done.err
    messages = [decode_detections(line) for line in out.read_bytes().splitlines()]
    return {one.camera: one.detections for one in messages}, json.loads(report.read_text())["models"]


def reader(plates: Path, **keys: Any) -> dict[str, Any]:
    pixels = {"color": "bgr", "mean": 127.5, "scale": 1 / 128}
    return {"path": plates / "models" / "lprnet_cn.onnx", "head": "ctc", "alphabet": CHINESE, "pixels": pixels, **keys}


def test_plates_are_found_as_text_and_read(tmp_path: Path, shared_data: Path) -> None:
    """The reader alone reads 54 of these 60 as they were cut out; found at -20 to 20 degrees, 46 straightened, and 24
    as they are."""
    plates = shared_data / "plates"
    with (plates / "crops_cn" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cameras: dict[str, Any] = {}
    places = []
    for start in range(0, len(rows), 12):
        bgr, camera = street(start), f"from-{start}"
        for index, row in enumerate(rows[start : start + 12]):
            plate = cv2.imread(str(plates / "crops_cn" / row["file"]))
            assert plate is not None
            centre = (220 + 420 * (index % 3), 100 + 175 * (index // 3))
            corners = laid(bgr, plate.astype(np.uint8), centre, ANGLES[(start + index) % len(ANGLES)], 3)
            places.append((camera, row["plate"], corners))
        cameras[camera] = {"url": tmp_path / f"{camera}.png", "realtime": False}
        cv2.imwrite(str(tmp_path / f"{camera}.png"), bgr)
    found, counts = read_all(
        tmp_path,
        model={"path": shared_data / "text" / "ppocr_det.onnx", "size": SIZE, "confidence": 0.5},
        models={
            name: reader(plates, crop={"min_size": 8, "expand": 0.05, "straighten": name == "straight"})
            for name in ("straight", "slanted")
        },
        cameras=cameras,
    )
    read = []
    for camera, text, corners in places:
        overlaps = [overlap(np.array(one.keypoints, np.float32)[:, :2], corners) for one in found[camera]]
        if max(overlaps) >= 0.5:
            said = found[camera][int(np.argmax(overlaps))].text
            read.append({name: name in said and said[name].text == text for name in ("straight", "slanted")})
    exact = {name: sum(one[name] for one in read) for name in ("straight", "slanted")}
    print(f"of {len(places)} plates {len(read)} were found as text, and without a mistake read: {exact}")
    assert counts["straight"]["crops"] == sum(map(len, found.values()))
    assert len(read) >= 52
    assert exact["straight"] >= 42
    assert exact["slanted"] <= 30


def test_texts_on_vehicles(tmp_path: Path, shared_data: Path) -> None:
    plates = shared_data / "plates"
    pictures = [plates / "images" / f"{name}.jpg" for name in ("single_green", "cn_car_2")]
    found, counts = read_all(
        tmp_path,
        model={"path": shared_data / "models" / "yolov8n.onnx", "labels": "coco"},
        models={
            "lines": {
                "path": shared_data / "text" / "ppocr_det.onnx",
                "classes": ["car", "truck", "bus"],
                "confidence": 0.6,
                "crop": {"expand": 0.05, "min_size": 48},
            },
            "text": reader(plates, on="lines", crop={"min_size": 8, "expand": 0.05, "straighten": True}),
            "direction": {
                "path": shared_data / "text" / "ppocr_cls.onnx",
                "on": "lines",
                "head": "classifier",
                "size": (192, 48),
                "labels": ["0", "180"],
                "pixels": {"color": "bgr", "mean": 127.5, "scale": 1 / 127.5},
                "crop": {"min_size": 8, "straighten": True},
            },
        },
        cameras={path.stem: {"url": path, "realtime": False} for path in pictures},
    )
    lines = {name: [line for one in objects for line in one.children] for name, objects in found.items()}
    for name, plate in (("single_green", "沪AF71017"), ("cn_car_2", "皖APR925")):
        (line,) = (one for one in lines[name] if one.text["text"].text == plate)
        assert line.label == "text"
        assert line.attributes["direction"][0].label == "0"
    assert counts["text"]["crops"] == counts["direction"]["crops"] == sum(map(len, lines.values()))
