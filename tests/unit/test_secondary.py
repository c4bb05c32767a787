"""What secondary models ask of those they stand on, held against what these give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, SecondaryConfig
from streamproc.errors import ConfigError
from streamproc.models.heads import Thresholds
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.heads.retinaface import RetinaFaceDecoder
from streamproc.models.heads.text_regions import TextRegionsDecoder
from streamproc.models.heads.yolo import RawDecoder
from streamproc.models.secondary import SecondaryHead
from streamproc.models.spec import Head
from streamproc.secondary import Secondary, check_links
from streamproc.types import UInt8Array
from tests.fakes import FakeEngine

CARS = Head(labels=("car",), decoder=RawDecoder("output0", 1))
PLATES = Head(
    labels=("plate",), decoder=RetinaFaceDecoder(boxes="boxes", scores="scores", corners="corners", size=(64, 64))
)
TEXTS = Head(labels=("text",), decoder=TextRegionsDecoder("maps"))
COLOURS = ClassifierReader("scores", ("red", "blue"))
THRESHOLDS = Thresholds(confidence=0.25, iou=0.5, class_ids=None, max_detections=10)


def nothing(images: UInt8Array) -> dict[str, NDArray[Any]]:
    return {"scores": np.zeros((len(images), 2), np.float32)}


def problems(detector: Head, models: Mapping[str, tuple[SecondaryHead, Mapping[str, Any]]]) -> list[str]:
    config = Config(
        engine=EngineConfig(kind="null"),
        model=ModelConfig(name="any"),
        models={name: SecondaryConfig(name=name, **keys) for name, (_, keys) in models.items()},
        cameras={"gate": CameraConfig(url="rtsp://127.0.0.1/")},
    )
    secondaries = {
        name: Secondary(engine=FakeEngine(nothing, size=(64, 64)), head=head, thresholds=THRESHOLDS)
        for name, (head, _) in models.items()
    }
    try:
        check_links(config, detector, secondaries)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


STRAIGHT: Mapping[str, Any] = {"crop": {"straighten": True}}


@pytest.mark.parametrize("found", [PLATES, TEXTS], ids=["plates", "texts"])
def test_what_has_corners_is_straightened_on_the_detector_and_on_another_model(found: Head) -> None:
    assert problems(found, {"text": (COLOURS, STRAIGHT)}) == []
    assert problems(CARS, {"lines": (found, {}), "text": (COLOURS, {"on": "lines", **STRAIGHT})}) == []


@pytest.mark.parametrize(
    ("detector", "models", "said"),
    [
        (
            CARS,
            {"text": (COLOURS, STRAIGHT)},
            "models.text.crop.straighten: found true, on 'detector', whose output (yolo) has no corners; "
            "expected objects with four corners.",
        ),
        (CARS, {"plates": (PLATES, STRAIGHT)}, "has no corners"),
        (
            PLATES,
            {"screws": (CARS, STRAIGHT)},
            "models.screws.crop.straighten: found true, for a detector; expected a model that finds no objects",
        ),
        (CARS, {"hue": (COLOURS, {"classes": ["cat"]})}, "models.hue.classes[0]: found 'cat'"),
        (CARS, {"hue": (COLOURS, {}), "tone": (COLOURS, {"on": "hue"})}, "expected a model that finds objects"),
    ],
    ids=["of a detector without", "of an own detector", "for a detector", "class", "on a classifier"],
)
def test_what_is_not_there_is_refused(
    detector: Head, models: Mapping[str, tuple[SecondaryHead, Mapping[str, Any]]], said: str
) -> None:
    (problem,) = problems(detector, models)
    assert said in problem
