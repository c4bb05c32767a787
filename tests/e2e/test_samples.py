"""The sample world end to end: what arrives on MQTT against the exact truth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.brokers import mosquitto
from tests.e2e.harness import Subscriber, assert_sums_close, streamproc, write_config
from tests.scoring import FrameBoxes, score_tracking

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


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
def test_detections_and_identities_match_the_truth(tmp_path: Path, samples: Path, kind: str) -> None:
    with mosquitto(tmp_path) as broker, Subscriber(broker.port) as heard:
        heard.wait_subscribed()
        config = write_config(
            tmp_path,
            site="truth",
            engine={"kind": kind},
            model={"path": samples / "streetnet.onnx"},
            mqtt={"url": f"mqtt://127.0.0.1:{broker.port}"},
            cameras={name: {"url": samples / f"{name}.mp4", "realtime": False} for name in CAMERAS},
        )
        report = tmp_path / "report.json"
        done = streamproc("run", config, "--report", report)
        assert done.code == 0, done.err
        heard.wait_for(
            lambda topics: [m["state"] for m in topics.get("streamproc/truth/status", ())][-1:] == ["offline"]
        )
    assert_sums_close(json.loads(report.read_text()))
    f1, idf1 = [], []
    for camera in CAMERAS:
        truth = truth_frames(json.loads((samples / f"{camera}.truth.json").read_text()))
        messages = heard.messages[f"streamproc/truth/{camera}/detections"]
        assert [m["seq"] for m in messages] == list(range(len(truth)))
        score = score_tracking(truth, published_frames(messages))
        print(f"{kind} {camera}: F1 {score.f1:.3f}, IDF1 {score.idf1:.3f}, id switches {score.id_switches}")
        f1.append(score.f1)
        idf1.append(score.idf1)
    assert min(f1) >= 0.95
    assert sum(idf1) / len(idf1) >= 0.90
