"""The sample world end to end: what arrives on MQTT against the exact truth."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samples.make import render
from tests.brokers import mosquitto
from tests.e2e.harness import Subscriber, assert_sums_close, streamproc, write_config
from tests.scoring import FrameBoxes, TrackingScore, score_tracking

CAMERAS = ("gate", "yard", "crossing", "plaza")
CLASS_SHIFT_PX = 100_000
"""Boxes of different classes are moved apart by so much, so that only equal classes match."""


def truth_frames(truth: Mapping[str, Any]) -> list[FrameBoxes]:
    limits = truth["ignore_below"]
    frames = []
    for seen in truth["frames"]:
        rows = np.array(seen, dtype=np.float64).reshape(-1, 7)
        boxes = rows[:, 2:6] + (rows[:, 1] * CLASS_SHIFT_PX)[:, None]
        ignore = (rows[:, 6] < limits["visibility"]) | (rows[:, 5] - rows[:, 3] < limits["height_px"])
        frames.append(FrameBoxes(ids=rows[:, 0].astype(np.int64), boxes=boxes, ignore=ignore))
    return frames


def published_frames(messages: Sequence[Mapping[str, Any]]) -> list[FrameBoxes]:
    untracked = itertools.count(-1, -1)
    frames = []
    for message in messages:
        found = message["detections"]
        boxes = np.array([[*d["box"]] for d in found], dtype=np.float64).reshape(-1, 4)
        boxes += np.array([d["class_id"] * CLASS_SHIFT_PX for d in found], dtype=np.float64)[:, None]
        ids = np.array([d["track_id"] or next(untracked) for d in found], dtype=np.int64)
        frames.append(FrameBoxes(ids=ids, boxes=boxes))
    return frames


def scores(folder: Path, samples: Path, **sections: Any) -> dict[str, TrackingScore]:
    """How what a run publishes compares with the truth, for each camera."""
    with mosquitto(folder) as broker, Subscriber(broker.port) as heard:
        heard.wait_subscribed()
        config = write_config(
            folder,
            site="truth",
            model={"path": samples / "streetnet.onnx"},
            mqtt={"url": f"mqtt://127.0.0.1:{broker.port}"},
            cameras={name: {"url": samples / f"{name}.mp4", "realtime": False} for name in CAMERAS},
            **sections,
        )
        report = folder / "report.json"
        done = streamproc("run", config, "--report", report)
        assert done.code == 0, done.err
        heard.wait_for_end("streamproc/truth")
    assert_sums_close(json.loads(report.read_text()))
    found = {}
    for camera in CAMERAS:
        truth = truth_frames(json.loads((samples / f"{camera}.truth.json").read_text()))
        messages = heard.messages[f"streamproc/truth/{camera}/detections"]
        assert [m["seq"] for m in messages] == list(range(len(truth)))
        score = found[camera] = score_tracking(truth, published_frames(messages))
        print(f"{camera}: F1 {score.f1:.3f}, IDF1 {score.idf1:.3f}, id switches {score.id_switches}")
    return found


@pytest.mark.parametrize("kind", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.drill)])
def test_detections_and_identities_match_the_truth(tmp_path: Path, samples: Path, kind: str) -> None:
    found = scores(tmp_path, samples, engine={"kind": kind})
    assert min(score.f1 for score in found.values()) >= 0.95
    assert fmean(score.idf1 for score in found.values()) >= 0.90


@pytest.mark.drill
@pytest.mark.shared_data
def test_looks_help_to_know_who_comes_back(tmp_path: Path, samples: Path, shared_data: Path) -> None:
    osnet = {
        "path": shared_data / "models" / "osnet_x0_25_msmt17.onnx",
        "head": "embedding",
        "pixels": {"mean": [123.675, 116.28, 103.53], "scale": [0.017125, 0.017507, 0.017429]},
        "per_track": {"vote": 3, "refresh_s": 1},
    }
    engine = {"precision": "fp32"}
    plain = scores(tmp_path, samples, engine=engine)
    reid = scores(tmp_path, samples, engine=engine, models={"osnet": osnet}, tracking={"reid": {"model": "osnet"}})
    assert fmean(score.idf1 for score in reid.values()) >= fmean(score.idf1 for score in plain.values())


def average_precision_50(truth: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> float:
    """mAP50 by pycocotools; what the truth ignores is a crowd to it, neither demanded nor punished."""
    limits = truth["ignore_below"]
    annotations: list[dict[str, Any]] = []
    for frame, seen in enumerate(truth["frames"]):
        for _, class_id, x1, y1, x2, y2, visibility in seen:
            ignored = visibility < limits["visibility"] or y2 - y1 < limits["height_px"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": frame,
                    "category_id": class_id,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(ignored),
                }
            )
    found = [
        {
            "image_id": message["seq"],
            "category_id": d["class_id"],
            "bbox": [d["box"][0], d["box"][1], d["box"][2] - d["box"][0], d["box"][3] - d["box"][1]],
            "score": d["confidence"],
        }
        for message in messages
        for d in message["detections"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": frame} for frame in range(len(truth["frames"]))],
            "categories": [{"id": i, "name": name} for i, name in enumerate(truth["classes"])],
            "annotations": annotations,
        }
        coco.createIndex()
        scored = COCOeval(coco, coco.loadRes(found), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return float(scored.stats[1])


@pytest.mark.parametrize(
    ("camera", "seconds"),
    [pytest.param("crossing", 3.0), *(pytest.param(c, 8.0, marks=pytest.mark.drill) for c in CAMERAS)],
)
def test_the_detector_knows_streets_it_never_saw(tmp_path: Path, samples: Path, camera: str, seconds: float) -> None:
    """A fresh video of a seed used nowhere else, through the whole pipeline: mAP50 of at least 0.90."""
    video = render(camera, 4242, seconds, tmp_path)
    config = write_config(
        tmp_path,
        model={"path": samples / "streetnet.onnx", "confidence": 0.01},
        tracking={"algorithm": "none"},
        file={"path": str(tmp_path / "found.jsonl")},
        cameras={"unseen": {"url": video, "realtime": False}},
    )
    done = streamproc("run", config)
    assert done.code == 0, done.err
    messages = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    truth = json.loads((tmp_path / f"{camera}.truth.json").read_text())
    score = average_precision_50(truth, messages)
    print(f"{camera}: mAP50 {score:.3f} over {len(messages)} frames")
    assert score >= 0.90
