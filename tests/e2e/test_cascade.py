"""Models on what another one has found, in whole runs: in messages, in the report, and refused where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamproc.messages import DetectedObject, decode_detections
from tests.e2e.harness import streamproc, write_config
from tests.tiny_models import save_means
from tests.viewers import as_cameras_send

COLOURS = {"red", "green", "blue"}
CLIP_S = "2"


@pytest.fixture
def clip(samples: Path, tmp_path: Path) -> Path:
    return as_cameras_send(samples / "gate.mp4", tmp_path, "-t", CLIP_S, "-s", "640x360")


@pytest.fixture
def models(samples: Path, tmp_path: Path) -> dict[str, Any]:
    means = save_means(tmp_path / "means.onnx")
    return {
        "colour": {"path": means, "classes": ["car"], "top": 3},
        "again": {"path": samples / "streetnet.onnx", "classes": ["car"], "crop": {"expand": 0.3, "min_size": 24}},
        "tint": {"path": means, "on": "again", "per_track": {"vote": 2, "refresh_s": 0.5}},
    }


def run(folder: Path, clip: Path, *arguments: str, samples: Path, **sections: Any) -> tuple[list[Any], dict[str, Any]]:
    """The messages and the report of a run."""
    out, report = folder / "out.jsonl", folder / "report.json"
    config = write_config(folder, model={"path": samples / "streetnet.onnx"}, file={"path": out}, **sections)
    done = streamproc("run", config, "--report", report, *arguments)
    assert done.code == 0, done.err
    return [decode_detections(line) for line in out.read_bytes().splitlines()], json.loads(report.read_text())


def named(found: DetectedObject, label: str) -> bool:
    return found.label == label and min(found.box[2] - found.box[0], found.box[3] - found.box[1]) >= 24


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_car_of_a_file_has_its_colour_and_what_is_in_it(
    tmp_path: Path, clip: Path, samples: Path, models: dict[str, Any], workers: str
) -> None:
    cameras = {name: {"url": clip, "realtime": False} for name in ("gate", "yard")}
    messages, report = run(tmp_path, clip, "--workers", workers, samples=samples, models=models, cameras=cameras)
    tracked = [found for message in messages for found in message.detections if found.track_id]
    cars = [found for found in tracked if named(found, "car")]
    assert cars
    for found in cars:
        assert {one.label for one in found.attributes["colour"]} == COLOURS
        assert sum(one.confidence for one in found.attributes["colour"]) == pytest.approx(1, abs=0.01)
    children = [child for found in cars for child in found.children]
    assert {child.model for child in children} == {"again"}
    tinted = [child for child in children if child.attributes]
    assert tinted
    assert {one.label for child in tinted for one in child.attributes["tint"]} <= COLOURS
    assert not any(found.attributes or found.children for found in tracked if found.label != "car")
    told = report["models"]
    assert set(told) == set(models)
    assert 0 < told["colour"]["crops"] < len(cars), "a car is looked at a few times, not in every frame"
    assert all(counts["lost"] == {} and counts["crops"] >= counts["batches"] > 0 for counts in told.values())


def test_live_cameras_get_the_answers_when_they_come(
    tmp_path: Path, clip: Path, samples: Path, models: dict[str, Any]
) -> None:
    cameras = {"gate": {"url": clip, "loop": True}}
    budget = {"max_frame_age_ms": 2000}
    messages, report = run(
        tmp_path, clip, "--duration", "3", samples=samples, models=models, cameras=cameras, budget=budget
    )
    assert any(found.attributes for message in messages for found in message.detections)
    assert report["models"]["colour"]["crops"] > 0


@pytest.mark.parametrize(
    ("model", "key", "said"),
    [
        ({"on": "nobody"}, "models", "'nobody'"),
        ({"classes": ["bicicle"]}, "models.colour.classes[0]", "Did you mean"),
        ({"head": "ctc"}, "models.colour", "alphabet"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, clip: Path, samples: Path, model: dict[str, Any], key: str, said: str
) -> None:
    config = write_config(
        tmp_path,
        model={"path": samples / "streetnet.onnx"},
        models={"colour": {"path": save_means(tmp_path / "means.onnx"), **model}},
        cameras={"gate": {"url": clip}},
    )
    done = streamproc("run", config)
    assert done.code in (1, 2)
    assert key in done.err
    assert said in done.err
    assert "Traceback" not in done.err
