"""Real videos and real models through the whole program: every frame is inferred and published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.harness import assert_sums_close, streamproc, write_config

FRAMES = {
    "pedestrians_street_1080p.mp4": 149,
    "yard_ru_1.ts": 120,
    "people_hall.mp4": 447,
    "car-detection.mp4": 377,
    "vtest_480x360.avi": 795,
    "bridge_traffic.mp4": 917,
    "one-by-one-person-detection.mp4": 1394,
}
SHORT = ("pedestrians_street_1080p.mp4", "yard_ru_1.ts")


@pytest.mark.shared_data
@pytest.mark.parametrize("videos", [pytest.param(SHORT), pytest.param(tuple(FRAMES), marks=pytest.mark.drill)])
def test_every_frame_of_real_videos_is_inferred(tmp_path: Path, shared_data: Path, videos: tuple[str, ...]) -> None:
    config = write_config(
        tmp_path,
        model={"path": shared_data / "models" / "yolov8n.onnx"},
        cameras={
            video.partition(".")[0]: {"url": shared_data / "videos" / video, "realtime": False} for video in videos
        },
    )
    report = tmp_path / "report.json"
    done = streamproc("run", config, "--report", report, timeout_s=600)
    assert done.code == 0, done.err
    books = json.loads(report.read_text())
    assert_sums_close(books)
    assert {name: row["inferred"] for name, row in books["cameras"].items()} == {
        video.partition(".")[0]: FRAMES[video] for video in videos
    }
    assert books["totals"]["dropped"] == {}


@pytest.mark.shared_data
@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    "model",
    [
        "yolov5n.onnx",
        "yolov5n_fp16.onnx",
        "yolov8n_int8_dynamic.onnx",
        "yolov8n_int8_qdq.onnx",
        "yolo11n_int8_320.onnx",
    ],
)
def test_models_of_every_kind_find_people(tmp_path: Path, shared_data: Path, model: str, kind: str) -> None:
    config = write_config(
        tmp_path,
        engine={"kind": kind},
        model={"path": shared_data / "models" / model, "labels": "coco"},
        file={"path": str(tmp_path / "found.jsonl")},
        cameras={
            "street": {
                "url": shared_data / "videos" / "pedestrians_street_1080p.mp4",
                "classes": ["person"],
                "realtime": False,
            }
        },
    )
    done = streamproc("run", config, "--duration", "3")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    found = [d for row in rows for d in row["detections"]]
    assert len(found) >= 3 * len(rows) > 0
    assert {d["label"] for d in found} == {"person"}


@pytest.mark.shared_data
def test_yolox_needs_nothing_but_its_path(tmp_path: Path, shared_data: Path) -> None:
    """Its pictures, in blue, green and red up to 255 and in the top left corner, are nobody's business."""
    video = shared_data / "videos" / "pedestrians_street_1080p.mp4"
    config = write_config(
        tmp_path,
        model={"path": shared_data / "models" / "yolox_nano.onnx", "labels": "coco"},
        file={"path": str(tmp_path / "found.jsonl")},
        cameras={"street": {"url": video, "classes": ["person"], "realtime": False, "sample_fps": 2}},
    )
    done = streamproc("run", config)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert sum(len(row["detections"]) for row in rows) >= 5 * len(rows) > 0
