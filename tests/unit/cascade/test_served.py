"""A cascade on the server, held against the configuration: what it gives is had of it, what it cannot is said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from streamproc.cascade.served import cascade_model, read_cascade
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, SecondaryConfig
from streamproc.errors import ConfigError, ModelError
from streamproc.serving.plan import Plan, served_name
from tests.served import CANVAS, CARS, PLATES, cascade_info, finder, reader

PLAN = Plan(
    size=CANVAS,
    models=(
        finder(),
        finder("plates", "detector", labels=PLATES, classes=("car",), crop_expand=0.1, confidence=0.5),
        reader("shade", "plates", crop_min_size=8.0),
    ),
)
MODELS: dict[str, dict[str, Any]] = {
    "plates": {"classes": ["car"], "crop": {"expand": 0.1}, "confidence": 0.5},
    "shade": {"on": "plates", "crop": {"min_size": 8}},
}


def config(**changes: Any) -> Config:
    """What the plan was built from, with these changes to its sections, further models among them."""
    model = {"name": "served_detector"} | changes.pop("model", {})
    gate = {"url": "rtsp://127.0.0.1/"} | changes.pop("gate", {})
    names = dict.fromkeys([*MODELS, *changes])
    models = {name: {"name": f"served_{name}"} | MODELS.get(name, {}) | changes.get(name, {}) for name in names}
    return Config(
        engine=EngineConfig(kind="triton"),
        model=ModelConfig(**model),
        models={name: SecondaryConfig(**keys) for name, keys in models.items()},
        cascade="server",
        cameras={"gate": CameraConfig(**gate)},
    )


def test_what_was_built_from_a_configuration_serves_it() -> None:
    cascade = read_cascade(config(), cascade_info(PLAN))
    assert (cascade.head.name, cascade.head.labels) == ("yolo end-to-end", CARS)
    assert {name: one.head.name for name, one in cascade.readers.items()} == {
        "plates": "yolo end-to-end",
        "shade": "classifier",
    }
    assert cascade.readers["plates"].labels == PLATES


@pytest.mark.parametrize(
    "less",
    [
        {"model": {"confidence": 0.7, "max_detections": 5}},
        {"gate": {"confidence": 0.3, "iou": 0.45, "max_detections": 1, "classes": ["car"]}},
        {"plates": {"confidence": 0.9, "crop": {"expand": 0.1, "min_size": 99}}},
        {"shade": {"on": "plates", "iou": 0.1, "confidence": 0.1, "crop": {"min_size": 9}, "classes": ["plate"]}},
        {"plates": {"every_s": 3, "per_track": {"vote": 9}, "max_waiting": 1}, "model": {"labels": CARS}},
    ],
    ids=["model", "camera", "model on it", "what a reader has no use for", "how often, and what they are called"],
)
def test_less_than_it_gives_can_be_had(less: dict[str, Any]) -> None:
    read_cascade(config(**less), cascade_info(PLAN))


def test_not_every_model_need_be_wanted() -> None:
    wanted = config()
    some = wanted.model_copy(update={"models": {"plates": wanted.models["plates"]}})
    assert list(read_cascade(some, cascade_info(PLAN)).readers) == ["plates"]


@pytest.mark.parametrize(
    ("changes", "key", "found", "expected"),
    [
        ({"model": {"confidence": 0.1}}, "model.confidence", "0.1", "0.25 or more"),
        ({"model": {"iou": 0.6}}, "model.iou", "0.6", "0.45"),
        ({"model": {"max_detections": 301}}, "model.max_detections", "301", "300 or less"),
        ({"model": {"name": "other"}}, "model.name", "'other'", "'served_detector'"),
        ({"model": {"version": 2}}, "model.version", "2", "none"),
        ({"model": {"size": (96, 64)}}, "model.size", "[96, 64]", "[64, 64]"),
        ({"model": {"fit": "stretch"}}, "model.fit", "'stretch'", "letterbox"),
        ({"model": {"labels": ("cat", "dog")}}, "model.labels", "[cat, dog]", "[person, car]"),
        ({"gate": {"confidence": 0.2}}, "cameras.gate.confidence", "0.2", "0.25 or more"),
        ({"gate": {"iou": 0.5}}, "cameras.gate.iou", "0.5", "0.45"),
        ({"gate": {"max_detections": 400}}, "cameras.gate.max_detections", "400", "300 or less"),
        ({"plates": {"name": "served_other"}}, "models.plates.name", "'served_other'", "'served_plates'"),
        ({"plates": {"classes": ["car", "person"]}}, "models.plates.classes", "[car, person]", "some of [car]"),
        ({"plates": {"classes": None}}, "models.plates.classes", "nothing", "some of [car]"),
        ({"plates": {"confidence": 0.4}}, "models.plates.confidence", "0.4", "0.5 or more"),
        ({"plates": {"crop": {}}}, "models.plates.crop.expand", "0.0", "0.1"),
        ({"plates": {"crop": {"expand": 0.1, "min_size": 5}}}, "models.plates.crop.min_size", "5.0", "16 or more"),
        ({"shade": {"crop": {"min_size": 8, "straighten": True}}}, "models.shade.crop.straighten", "true", "false"),
        ({"shade": {"on": "detector"}}, "models.shade.on", "'detector'", "'plates'"),
        ({"shade": {"fit": "top_left"}}, "models.shade.fit", "'top_left'", "stretch"),
        ({"text": {}}, "models.text", "a model", "plates or shade, which is all"),
    ],
)
def test_what_it_cannot_give_is_said(changes: dict[str, Any], key: str, found: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="model served_detector_cascade: 1 problem") as caught:
        read_cascade(config(**changes), cascade_info(PLAN))
    (problem,) = caught.value.problems
    assert (problem.key, problem.found) == (key, found)
    assert problem.expected.startswith(expected)
    assert "streamproc models build --ensemble cameras.yaml" in problem.remedy


def test_a_model_whose_outputs_the_server_takes_for_something_else() -> None:
    crops = finder("plates", "detector", labels=PLATES, classes=("car",), crop_expand=0.1, confidence=0.5)
    built = replace(PLAN, models=(finder(), replace(crops, finds=False, head="embedding", labels=())))
    wanted = config()
    some = wanted.model_copy(update={"models": {"plates": wanted.models["plates"]}})
    with pytest.raises(ConfigError, match=r"models\.plates\.head: found 'yolo end-to-end'; expected 'embedding'"):
        read_cascade(some, cascade_info(built))


def test_several_differences_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="3 problems"):
        read_cascade(config(model={"iou": 0.1}, gate={"iou": 0.2}, plates={"crop": {}}), cascade_info(PLAN))


def old(**changes: Any) -> str:
    return json.dumps({**json.loads(PLAN.to_json()), **changes})


@pytest.mark.parametrize(
    "told", ["", "no plan", "[]", "{}", '{"size": 3, "models": []}', old(models=[{}]), old(size=None), old(models=[])]
)
def test_a_plan_that_cannot_be_read(told: str) -> None:
    with pytest.raises(ModelError, match=r"parameter cascade .*damaged.*streamproc models build --ensemble"):
        read_cascade(config(), cascade_info(PLAN, told=told))


def test_a_model_that_is_no_cascade() -> None:
    with pytest.raises(ModelError, match=r"has no parameter cascade, .*streamproc models build --ensemble"):
        read_cascade(config(), replace(cascade_info(PLAN), metadata={"task": "detect"}))


def test_a_cascade_whose_tensors_are_not_what_it_says() -> None:
    info = cascade_info(PLAN)
    with pytest.raises(ModelError, match=r"its output shade\.scores is none; expected float32 \(1, 4, 2\)"):
        read_cascade(config(), replace(info, outputs=info.outputs[:-1]))


def test_it_is_opened_under_its_own_name_and_takes_whole_pictures() -> None:
    detector = ModelConfig(name="yolov8n", version=2, size=(640, 640), fit="top_left", confidence=0.4)
    model = cascade_model(detector)
    assert model.name == served_name("yolov8n") == "yolov8n_cascade"
    assert (model.version, model.size, model.pixels, model.confidence) == (None, None, None, 0.4)
