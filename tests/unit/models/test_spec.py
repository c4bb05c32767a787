"""Which tensors are recognised as what, and what is said of those that are not."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from streamproc.config import CameraConfig, ModelConfig
from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.labels import COCO_80
from streamproc.models.spec import recognise

Shape = tuple[int, ...]
NAMES = {"names": "{0: 'person', 1: 'car'}"}


def info(*outputs: Shape, size: tuple[int, int] = (640, 640), metadata: Mapping[str, str] | None = None) -> ModelInfo:
    return ModelInfo(
        name="m",
        size=size,
        inputs=(TensorInfo(name="images", dtype="float32", shape=(1, 3, size[1], size[0])),),
        outputs=tuple(
            TensorInfo(name=f"output{number}", dtype="float32", shape=shape) for number, shape in enumerate(outputs)
        ),
        metadata=metadata or {},
    )


@pytest.mark.parametrize(
    ("shape", "size", "kind", "classes"),
    [
        ((1, 84, 8400), (640, 640), "yolo", 80),
        ((1, 5, 8400), (640, 640), "yolo", 1),
        ((1, 84, 2100), (320, 320), "yolo", 80),
        ((1, 84, 5040), (640, 384), "yolo", 80),
        ((1, 84, 34000), (640, 640), "yolo", 80),  # strides 4 to 32
        ((1, 84, 8500), (640, 640), "yolo", 80),  # strides 8 to 64
        ((1, 25200, 85), (640, 640), "yolo with objectness", 80),
        ((1, 25200, 6), (640, 640), "yolo with objectness", 1),
        ((1, 6300, 85), (320, 320), "yolo with objectness", 80),
        ((1, 3549, 85), (416, 416), "yolox", 80),
        ((1, 8400, 6), (640, 640), "yolox", 1),
    ],
)
def test_kinds(shape: Shape, size: tuple[int, int], kind: str, classes: int) -> None:
    head = recognise(info(shape, size=size), tuple(map(str, range(classes))))
    assert (head.name, len(head.labels)) == (kind, classes)


@pytest.mark.parametrize("metadata", [{}, {"task": "detect", "names": "{0: 'text'}"}])
def test_texts(metadata: Mapping[str, str]) -> None:
    maps = info((1, 1, 384, 640), size=(640, 384), metadata=metadata)
    head = recognise(maps)
    assert (head.name, head.labels, head.decoder.has_corners) == ("text regions", ("text",), True)
    assert head.metadata == {"names": "{0: 'text'}", "task": "detect"}
    assert recognise(maps, ("sign",), kind="detector").labels == ("sign",)
    with pytest.raises(ModelError, match="holds 1 classes, but 80 are named"):
        recognise(maps, COCO_80)
    with pytest.raises(ModelError, match=r"no output fits.*\(1, 1, 384, 640\) as of text"):
        recognise(maps, kind="pose")
    with pytest.raises(ModelError, match="no output fits"):
        recognise(info((1, 1, 96, 160), size=(640, 384)))


def test_end_to_end() -> None:
    head = recognise(info((1, 300, 6), metadata=NAMES))
    assert (head.name, head.labels) == ("yolo end-to-end", ("person", "car"))


def test_the_first_output_that_fits_counts() -> None:
    head = recognise(info((1, 3, 80, 80, 85), (1, 25200, 85), (1, 3, 40, 40, 85)), COCO_80)
    assert head.name == "yolo with objectness"


@pytest.mark.parametrize(
    ("outputs", "metadata", "saying"),
    [
        ([(1, 8400, 84)], {}, "the output of YOLOv8 and later, transposed"),
        ([(1, 116, 8400), (1, 32, 160, 160)], {}, "segmentation"),
        ([(1, 56, 8400)], {"task": "obb"}, "its task is 'obb'"),
        ([(1, 1000)], {}, "classifier"),
        ([(1, 300, 4), (1, 300, 80)], {}, "no output fits"),
        ([], {}, "no output fits"),
    ],
)
def test_other_kinds_are_refused(outputs: list[Shape], metadata: Mapping[str, str], saying: str) -> None:
    with pytest.raises(ModelError) as caught:
        recognise(info(*outputs, metadata=metadata), COCO_80)
    message = str(caught.value)
    assert saying in message
    assert "images float32 (1, 3, 640, 640)" in message
    assert all(f"float32 {shape}" in message for shape in outputs)
    assert "(1, 4 + classes, 8400)" in message


def test_labels_come_from_the_configuration_first() -> None:
    assert recognise(info((1, 6, 8400), metadata=NAMES), ("a", "b")).labels == ("a", "b")
    assert recognise(info((1, 6, 8400), metadata=NAMES)).labels == ("person", "car")


@pytest.mark.parametrize("labels", [None, COCO_80])
def test_labels_that_do_not_fit(labels: tuple[str, ...] | None) -> None:
    count = 2 if labels is None else 80
    with pytest.raises(ModelError, match=rf"\(1, 56, 8400\) holds 52 classes, but {count} are named"):
        recognise(info((1, 56, 8400), metadata=NAMES), labels)


@pytest.mark.parametrize(("rows", "remedy"), [(84, "labels: coco"), (7, "model.labels")])
def test_classes_without_names_are_numbered(caplog: pytest.LogCaptureFixture, rows: int, remedy: str) -> None:
    with caplog.at_level(logging.WARNING):
        head = recognise(info((1, rows, 8400)))
    assert head.labels == tuple(f"class{number}" for number in range(rows - 4))
    assert remedy in caplog.text


def test_end_to_end_needs_names() -> None:
    with pytest.raises(ModelError, match=r"Set model\.labels"):
        recognise(info((1, 300, 6)))


def test_a_cameras_own_thresholds_come_first() -> None:
    head = recognise(info((1, 6, 8400), metadata=NAMES))
    model = ModelConfig.model_construct(name="m", confidence=0.3, iou=0.5, max_detections=100)
    camera = CameraConfig.model_construct(classes=None, confidence=None, iou=None, max_detections=None)
    plain = head.thresholds(model, camera)
    assert (plain.confidence, plain.iou, plain.class_ids, plain.max_detections) == (0.3, 0.5, None, 100)
    strict = CameraConfig.model_construct(classes=("car",), confidence=0.0, iou=0.9, max_detections=1)
    own = head.thresholds(model, strict)
    assert (own.confidence, own.iou, own.class_ids, own.max_detections) == (0.0, 0.9, frozenset({1}), 1)
