"""Cascades from a configuration and a repository to what a server is to load, and what is said about the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamproc.config.ensemble import is_ensemble
from streamproc.errors import ConfigError, ModelError
from streamproc.repository.build import BuiltModel
from streamproc.repository.closure import copy_modules, modules_behind
from streamproc.repository.config_pbtxt import inputs_of_config, outputs_of_config, read_config, steps_of
from streamproc.repository.from_cascade import build_cascade
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from streamproc.repository.versions import list_models, remove_version
from tests.served import built_plan
from tests.spots import add_shades, add_spots

PARTS: Mapping[str, Any] = {"parts": {"name": "spots", "classes": ["red"]}}
SHADE: Mapping[str, Any] = {"shade": {"name": "shades", "max_waiting": 4}}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    add_spots(folder, "spots")
    add_shades(folder, "shades")
    return folder


def configured(repository: Path, **sections: Any) -> Path:
    path = repository.parent / "cameras.yaml"
    config = {
        "engine": {"kind": "triton"},
        "model": {"name": "spots"},
        "cameras": {"gate": {"url": "rtsp://127.0.0.1/"}},
    }
    path.write_text(yaml.safe_dump(config | sections))
    return path


def built(repository: Path, *, options: Mapping[str, Any] | None = None, **sections: Any) -> BuiltModel:
    given: dict[str, Any] = {"repository": repository, "backend": "ensemble", "size": (320, 160)} | dict(options or {})
    return build_cascade(configured(repository, **sections), BuildOptions(**given))


def test_the_plan_is_what_is_configured(repository: Path) -> None:
    built(
        repository,
        model={"name": "spots", "confidence": 0.5, "max_detections": 5},
        models={
            "shade": {"name": "shades", "on": "parts", "max_batch": 2, "version": 1, "crop": {"expand": 0.1}},
            "parts": {"name": "spots", "classes": ["red"], "crop": {"min_size": 8}, "max_detections": 7},
        },
        cameras={
            "gate": {"url": "rtsp://127.0.0.1/", "confidence": 0.2},
            "yard": {"url": "rtsp://127.0.0.1/", "max_detections": 9},
        },
    )
    plan = built_plan(repository, "spots")
    assert plan.size == (320, 160)
    assert [model.name for model in plan.models] == ["detector", "parts", "shade"]
    detector, parts, shade = plan.models
    assert (detector.confidence, detector.most, detector.max_detections, detector.max_batch) == (0.2, 9, 9, 8)
    assert detector.labels == ("red", "green", "blue")
    assert (detector.info.size, detector.info.fit) == ((64, 32), "letterbox")
    assert detector.info.outputs[0].shape == (1, 3, 6)
    assert (parts.finds, parts.on, parts.classes, parts.most, parts.crop_min_size) == (True, "detector", ("red",), 7, 8)
    assert (shade.finds, shade.head, shade.info.fit, shade.labels) == (False, "classifier", "stretch", ())
    assert (shade.most, shade.max_batch, shade.version, shade.crop_expand) == (7, 2, 1, 0.1)  # a crop for each part


def test_what_branches_is_a_python_model(repository: Path) -> None:
    done = built(repository, models={**PARTS, "shade": {**SHADE["shade"], "on": "parts"}})
    assert "branch, or have nothing to look at" in str(done)
    assert "spots, parts (spots) on detector, shade (shades) on parts; pictures of up to 320x160 are not scaled" in str(
        done
    )
    assert "key cascade: server" in str(done)
    config = read_config(repository / "spots_cascade" / "config.pbtxt")
    assert (config.backend, config.max_batch_size) == ("python", 8)
    assert config.instance_group[0].count == 2  # one more than the detector
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 128
    assert not config.model_warmup
    assert [tensor.shape for tensor in inputs_of_config(config)] == [(-1, 81, 320, 3)]
    shapes = {tensor.name: tensor.shape for tensor in outputs_of_config(config)}
    assert shapes["detections"] == (-1, 300, 6)
    assert shapes["shade.means"] == (-1, 4, 3)
    assert json.loads((done.folder / "plan.json").read_text()) == json.loads(built_plan(repository, "spots").to_json())


def test_it_stands_where_its_detector_does(repository: Path) -> None:
    add_spots(repository, "fast", kind="KIND_GPU", count=2)
    built(repository, model={"name": "fast"}, models=PARTS)
    (group,) = read_config(repository / "fast_cascade" / "config.pbtxt").instance_group
    assert (group.Kind.Name(group.kind), group.count) == ("KIND_GPU", 3)


def test_options_of_a_python_model(repository: Path) -> None:
    given = {"instances": 1, "max_batch": 2, "queue_timeout_ms": 50, "size": None}
    built(repository, options=given, models=PARTS)
    config = read_config(repository / "spots_cascade" / "config.pbtxt")
    assert (config.max_batch_size, config.instance_group[0].count) == (2, 1)
    assert config.dynamic_batching.default_queue_policy.default_timeout_microseconds == 50_000
    assert built_plan(repository, "spots").size == (1920, 1080)


def test_a_straight_line_is_an_ensemble(repository: Path) -> None:
    done = built(repository, models=SHADE)
    assert "steps: spots_cascade_prepare, spots, spots_cascade_cut, shades, spots_cascade_answer" in str(done)
    config = read_config(repository / "spots_cascade" / "config.pbtxt")
    assert (config.platform, config.max_batch_size) == ("ensemble", 0)
    assert [tensor.shape for tensor in inputs_of_config(config)] == [(1, 81, 320, 3)]
    plan = built_plan(repository, "spots")
    expected = {tensor.name: (tensor.dtype, (1, *tensor.shape)) for tensor in plan.outputs()}
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in outputs_of_config(config)} == expected
    assert [entry.name for entry in list_models(repository) if entry.problem] == []


def test_a_detector_alone_keeps_its_batches(repository: Path) -> None:
    built(repository)
    config = read_config(repository / "spots_cascade" / "config.pbtxt")
    assert config.max_batch_size == 8
    assert [step.model for step in steps_of(config)] == ["spots_cascade_prepare", "spots", "spots_cascade_answer"]


def test_more_crops_than_one_call_takes_are_no_straight_line(repository: Path) -> None:
    done = built(repository, models={"shade": {"name": "shades"}})
    assert "shown up to 32 crops of a picture, and shades takes 8 at once; it would be an ensemble with" in str(done)
    assert "models.shade.max_waiting: 8, or with shades built with --max-batch 32" in str(done)
    assert done.backend == "python"


def test_it_is_built_again_and_kept_together(repository: Path) -> None:
    built(repository, models=SHADE)
    assert built(repository, models=SHADE).version == 2
    with pytest.raises(ModelError, match=r"other backend than its other versions.*or replace its only version"):
        built(repository, models=PARTS)
    with pytest.raises(ModelError, match="shades: it is a step of spots_cascade"):
        remove_version(repository, "shades", 1)


def test_a_python_model_needs_its_models(repository: Path) -> None:
    built(repository, models={**PARTS, "shade": {**SHADE["shade"], "on": "parts"}})
    with pytest.raises(ModelError, match="shades: it is a step of spots_cascade"):
        remove_version(repository, "shades", 1)
    (repository / "shades" / "config.pbtxt").unlink()
    entry = next(entry for entry in list_models(repository) if entry.name == "spots_cascade")
    assert entry.problem == "the repository has no shades, which is a step of it"


def test_inspecting(repository: Path) -> None:
    built(repository, models=SHADE)
    found = inspect(repository / "spots_cascade")
    assert found.runs
    assert found.head is None
    assert "cascade of spots, shade (shades) on detector; pictures of up to 320x160 are not scaled" in str(found)
    assert "runs in: triton" in str(found)
    assert inspect(repository / "spots_cascade_cut").runs
    path = repository / "spots_cascade" / "config.pbtxt"
    path.write_text(path.read_text().replace('{\\"size\\"', '{\\"sizes\\"'))
    assert "parameter cascade does not tell what this cascade does" in str(inspect(path.parent))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"engine": {"kind": "null"}}, "engine.kind: found null; expected triton"),
        (
            {"model": {"name": "cars"}},
            r"model.name: found 'cars'; expected a model of the repository .*models, of which there are: shades, spots."
            r" Build it first: streamproc models build cars.onnx -r",
        ),
        (
            {"models": {"text": {"name": "lprnet", "head": "ctc", "alphabet": "ab"}}},
            "models.text.name: found 'lprnet'.*streamproc models build lprnet.onnx --head ctc -r",
        ),
        ({"model": {"name": "spots", "version": 3}}, "model.version: found 3; expected a version of spots.*: 1"),
        (
            {"cameras": {"gate": {"url": "rtsp://127.0.0.1/", "iou": 0.6}}},
            "cameras.gate.iou: found 0.6; expected 0.45, which is model.iou",
        ),
        ({"models": {"shade": {"name": "shades", "classes": ["car"]}}}, r"models.shade.classes\[0\]: found 'car'"),
        ({"models": {"shade": {"name": "shades", "crop": {"straighten": True}}}}, "has no corners"),
    ],
)
def test_configurations_that_are_refused(repository: Path, sections: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        built(repository, **sections)
    assert not [*repository.glob("spots_cascade*")]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"dtype": "TYPE_FP32"}, r"takes images float32 \(-1, 32, 64, 3\); expected a model that takes one tensor"),
        ({"dims": "-1, 6"}, r"gives boxes float32 \(-1, -1, 6\); expected an output of a fixed shape"),
        ({"max_batch": -1}, "a server would refuse it"),
    ],
)
def test_models_that_do_not_suit(repository: Path, keys: Mapping[str, Any], said: str) -> None:
    add_spots(repository, "odd", **keys)
    with pytest.raises(ConfigError, match=f"models.odd.name: found odd, .*{said}"):
        built(repository, models={"odd": {"name": "odd"}})


def test_an_output_that_is_called_as_one_of_the_answers_own(repository: Path) -> None:
    add_shades(repository, "odd", output="parent")
    with pytest.raises(ConfigError, match="found odd, which has outputs named parent; expected other"):
        built(repository, models={"odd": {"name": "odd"}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "mine"}, "name: found mine; expected no such option"),
        ({"confidence": 0.4}, "confidence: found 0.4; expected no such option"),
        ({"precision": "fp16"}, "precision: found fp16"),
        ({"size": (641, 360)}, "size: found 641x360; expected an even width and height.*Choose 642x360"),
        ({"backend": "python"}, "backend: found python; expected ensemble"),
        ({"instances": 3}, "instances: found 3; expected it for the models of an ensemble only"),
    ],
)
def test_options_that_are_refused(repository: Path, options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        built(repository, options=options)


@pytest.mark.parametrize(
    ("text", "found"),
    [("{model: {name: a}, cameras: {}}", False), ("{steps: [], inputs: [a]}", True), ("{inputs: [a], more: 1}", True)],
)
def test_the_kind_of_a_file_is_told_by_its_keys(tmp_path: Path, text: str, found: bool) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text)
    assert is_ensemble(path) is found


@pytest.mark.parametrize("text", ["{step: []}", "{steps: [], cameras: {}}"])
def test_files_of_neither_or_both_kinds(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"found the keys 'step.*expected those of steps .inputs, outputs, steps. or"):
        is_ensemble(path)


def test_modules_are_copied_with_what_they_import(tmp_path: Path) -> None:
    behind = modules_behind("streamproc.serving.graph")
    assert {"streamproc", "streamproc.serving.plan", "streamproc.models.heads", "streamproc.types"} <= set(behind)
    assert not [name for name in behind if name.startswith(("streamproc.config", "streamproc.repository"))]
    copy_modules("streamproc.serving.graph", tmp_path / "modules")
    told = "import streamproc.serving.graph as g, sys; print(g.__file__, 'pydantic' in sys.modules)"
    command = [sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, sys.argv[1]); {told}"]
    done = subprocess.run([*command, tmp_path / "modules"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(tmp_path / "modules/streamproc/serving/graph.py"), "False"]
