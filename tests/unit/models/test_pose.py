"""Pose models: which output is taken for one, and keypoints that are known exactly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.config.model import HeadKind
from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.labels import COCO_80
from streamproc.models.heads import Thresholds
from streamproc.models.heads.pose import PoseDecoder, PoseLayout
from streamproc.models.heads.yolo import RawDecoder
from streamproc.models.spec import recognise
from streamproc.types import Letterbox

PERSON = PoseLayout(classes=1, keypoints=17, values=3)
WIDE = Letterbox.fit((1920, 1080), (640, 640))
SAME = Letterbox.fit((640, 640), (640, 640))
USUAL = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)
ONE_NAME, TWO_NAMES = {"names": "{0: 'fish'}"}, {"names": "{0: 'cat', 1: 'dog'}"}


def raw(*columns: tuple[Any, ...], dtype: type = np.float32) -> dict[str, NDArray[Any]]:
    """A batch of two whose second picture has these columns."""
    values: NDArray[Any] = np.array(columns, dtype=dtype).T
    return {"out": np.stack([np.zeros_like(values), values])}


def person(x: float, score: float, *, points: int = 17) -> tuple[float, ...]:
    """One of 40 x 80 pixels around (x, 300), its keypoints in a row from its left edge on, surer and surer."""
    keypoints = [(x - 20 + number, 280 + number, number / points) for number in range(points)]
    return (x, 300, 40, 80, score, *(value for point in keypoints for value in point))


# --- reading --------------------------------------------------------------------------------------------------------


def test_keypoints_are_those_of_what_is_kept_in_source_pixels() -> None:
    outputs = raw(person(103, 0.6), person(400, 0.8), person(100, 0.9), person(250, 0.1))
    found = PoseDecoder("out", PERSON).decode(outputs, 1, WIDE, USUAL)
    np.testing.assert_allclose(found.confidence, [0.9, 0.8])
    np.testing.assert_allclose(found.boxes, [[240, 360, 360, 600], [1140, 360, 1260, 600]])
    assert found.keypoints is not None
    assert found.keypoints.dtype == np.float32
    assert found.keypoints.shape == (2, 17, 3)
    steps = np.arange(17)
    for keypoints, x in zip(found.keypoints, (100, 400), strict=True):
        expected = np.stack([3 * (x - 20 + steps), 3 * (140 + steps), steps / 17], axis=1)
        np.testing.assert_allclose(keypoints, expected, rtol=1e-5)
    outputs["out"][:] = 0  # what was found is a copy
    assert found.keypoints[0, 16, 0] == pytest.approx(288)


def test_rows_of_a_batch_are_apart() -> None:
    found = PoseDecoder("out", PERSON).decode(raw(person(100, 0.9)), 0, SAME, USUAL)
    assert found.keypoints is not None
    assert found.keypoints.shape == (0, 17, 3)


def test_several_classes_and_keypoints_without_a_confidence() -> None:
    layout = PoseLayout(classes=2, keypoints=4, values=2)
    corners = (90, 90, 110, 90, 110, 110, 90, 110)
    found = PoseDecoder("out", layout).decode(raw((100, 100, 20, 20, 0.1, 0.8, *corners)), 1, SAME, USUAL)
    assert found.class_ids.tolist() == [1]
    assert found.keypoints is not None
    assert found.keypoints.tolist() == [[[90, 90, 1], [110, 90, 1], [110, 110, 1], [90, 110, 1]]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60), dtype=st.sampled_from([np.float16, np.float32]))
def test_boxes_are_those_of_a_detector_and_keypoints_those_of_the_same_column(
    seed: int, count: int, dtype: type
) -> None:
    random = np.random.default_rng(seed)
    values: NDArray[Any] = np.empty((1, 56, count), dtype)
    values[0, :2] = random.uniform(0, 640, (2, count))
    values[0, 2:4] = random.uniform(20, 200, (2, count))
    values[0, 4] = random.permutation(np.linspace(0.1, 0.9, count))
    values[0, 5::3] = np.arange(count) + 20  # the x of every keypoint tells the column
    values[0, 6::3], values[0, 7::3] = 320, 0.5
    plain = RawDecoder("out", 1).decode({"out": values[:, :5]}, 0, SAME, USUAL)
    found = PoseDecoder("out", PERSON).decode({"out": values}, 0, SAME, USUAL)
    np.testing.assert_array_equal(found.boxes, plain.boxes)
    np.testing.assert_array_equal(found.confidence, plain.confidence)
    assert found.keypoints is not None
    for keypoints, confidence in zip(found.keypoints, found.confidence, strict=True):
        column = int(keypoints[0, 0]) - 20
        assert values[0, 4, column] == confidence
        np.testing.assert_allclose(keypoints, [[column + 20, 320, 0.5]] * 17)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_object_whose_keypoints_are_not_finite_is_dropped(value: float) -> None:
    broken, good = person(100, 0.9), person(400, 0.8)
    found = PoseDecoder("out", PERSON).decode(raw((*broken[:20], value, *broken[21:]), good), 1, SAME, USUAL)
    np.testing.assert_allclose(found.confidence, [0.8])


def test_keypoints_beyond_everything_stay_in_the_picture_and_confidences_within_0_and_1() -> None:
    values = person(100, 0.9)
    points = (3e38, -3e38, 1.7, -5, 700, -0.2)
    found = PoseDecoder("out", PERSON).decode(raw((*values[:5], *points, *values[11:])), 1, SAME, USUAL)
    assert found.keypoints is not None
    assert found.keypoints[0, :2].tolist() == [[640, 0, 1], [0, 640, 0]]


# --- recognising ----------------------------------------------------------------------------------------------------


def info(shape: tuple[int, ...], metadata: Mapping[str, str] | None = None) -> ModelInfo:
    return ModelInfo(
        name="m",
        size=(640, 640),
        inputs=(TensorInfo(name="images", dtype="float32", shape=(1, 3, 640, 640)),),
        outputs=(TensorInfo(name="output0", dtype="float32", shape=shape),),
        metadata=metadata or {},
    )


@pytest.mark.parametrize(
    ("rows", "metadata", "labels", "classes", "keypoints"),
    [
        (56, {"task": "pose", "kpt_shape": "[17, 3]", **ONE_NAME}, None, ("fish",), (17, 3)),
        (56, {"task": "pose", **ONE_NAME}, None, ("fish",), (17, 3)),
        (56, {"task": "pose"}, None, ("person",), (17, 3)),
        (13, {"task": "pose", "kpt_shape": "(4, 2)"}, None, ("person",), (4, 2)),
        (13, {"kpt_shape": "[4, 2]"}, None, ("person",), (4, 2)),
        (13, {"task": "pose"}, ("plate",), ("plate",), (4, 2)),
        (57, {"task": "pose", "kpt_shape": "[17, 3]"}, ("cow", "hen"), ("cow", "hen"), (17, 3)),
        (78, {"task": "pose", **TWO_NAMES}, None, ("cat", "dog"), (24, 3)),
        (56, ONE_NAME, None, ("fish",), (17, 3)),  # as OpenVINO files are: names, but no task
        (17, ONE_NAME, ("cat",), ("cat",), (4, 3)),
        (56, {}, ("cat",), ("cat",), (17, 3)),
        (56, {}, None, ("person",), (17, 3)),
    ],
)
def test_pose_models(
    rows: int,
    metadata: Mapping[str, str],
    labels: tuple[str, ...] | None,
    classes: tuple[str, ...],
    keypoints: tuple[int, Literal[2, 3]],
) -> None:
    head = recognise(info((1, rows, 8400), metadata), labels)
    count, values = keypoints
    assert head.pose == PoseLayout(classes=len(classes), keypoints=count, values=values)
    assert (head.name, head.labels) == ("yolo pose", classes)


@pytest.mark.parametrize(
    ("rows", "metadata", "labels"),
    [
        (56, {}, tuple(map(str, range(52)))),
        (56, {"task": "detect"}, None),
        (5, ONE_NAME, None),
        (84, {}, COCO_80),
        (84, {"task": "detect"}, COCO_80),
        (17, {}, None),
    ],
)
def test_detectors_are_not_taken_for_pose_models(
    rows: int, metadata: Mapping[str, str], labels: tuple[str, ...] | None
) -> None:
    head = recognise(info((1, rows, 8400), metadata), labels)
    assert (head.name, head.pose, len(head.labels)) == ("yolo", None, rows - 4)


@pytest.mark.parametrize(
    ("rows", "metadata", "labels", "kind", "name", "classes"),
    [
        (56, {}, None, "detector", "yolo", 52),
        (56, {"task": "detect"}, None, "pose", "yolo pose", 1),
        (17, {}, None, "pose", "yolo pose", 1),
        (16, {}, ("cat", "dog", "cow"), "pose", "yolo pose", 3),
    ],
)
def test_the_configuration_decides(
    rows: int,
    metadata: Mapping[str, str],
    labels: tuple[str, ...] | None,
    kind: HeadKind,
    name: str,
    classes: int,
) -> None:
    head = recognise(info((1, rows, 8400), metadata), labels, kind=kind)
    assert (head.name, len(head.labels)) == (name, classes)


@pytest.mark.parametrize(("metadata", "level"), [({}, logging.WARNING), (ONE_NAME, logging.INFO)])
def test_a_guess_is_said_with_the_way_out(
    caplog: pytest.LogCaptureFixture, metadata: Mapping[str, str], level: int
) -> None:
    with caplog.at_level(logging.INFO):
        recognise(info((1, 56, 8400), metadata))
    (record,) = caplog.records
    assert record.levelno == level
    assert "taken for that of a pose model, with classes: 1, keypoints: 17" in caplog.text
    assert "name its 52 classes in model.labels, or set model.head: detector" in caplog.text


def test_what_the_exporter_wrote_is_no_guess(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        recognise(info((1, 56, 8400), {"task": "pose", "kpt_shape": "[17, 3]", **ONE_NAME}))
    assert not caplog.records


@pytest.mark.parametrize(
    ("shape", "metadata", "labels", "kind", "saying"),
    [
        ((1, 56, 8400), {}, COCO_80, "auto", "set model.head: pose if there are keypoints"),
        ((1, 56, 8400), {}, COCO_80, "pose", r"none of a pose model.*one a class \(80\)"),
        ((1, 56, 8400), ONE_NAME, COCO_80, "auto", "classes: 1, keypoints: 17, but 80 classes are named"),
        (
            (1, 56, 8400),
            {"task": "pose", "kpt_shape": "[17, 3]"},
            COCO_80,
            "auto",
            "classes: 1, keypoints: 17, but 80 classes are named",
        ),
        ((1, 55, 8400), {"kpt_shape": "[17, 3]"}, None, "auto", r"its metadata says \[17, 3\]"),
        ((1, 6, 8400), {"task": "pose"}, None, "auto", "none of a pose model"),
        ((1, 56, 8400), {"kpt_shape": "[17, 3.0]"}, None, "auto", r"kpt_shape in its metadata cannot be used"),
        ((1, 56, 8400), {"kpt_shape": "seventeen"}, None, "auto", r"kpt_shape in its metadata cannot be used"),
        ((1, 56, 8400), {"task": "pose", "kpt_shape": "17"}, None, "auto", r"kpt_shape in its metadata cannot be used"),
        ((1, 25200, 85), {}, COCO_80, "pose", "of a pose model only the raw output"),
        ((1, 300, 6), {"task": "pose", **ONE_NAME}, None, "auto", "of a pose model only the raw output"),
        ((1, 300, 57), {"task": "pose", **ONE_NAME}, None, "auto", "of a pose model only the raw output"),
        ((1, 56, 8400), {"task": "segment", **ONE_NAME}, None, "pose", "its task is 'segment'"),
    ],
)
def test_what_cannot_be_is_refused(
    shape: tuple[int, ...],
    metadata: Mapping[str, str],
    labels: tuple[str, ...] | None,
    kind: HeadKind,
    saying: str,
) -> None:
    with pytest.raises(ModelError, match=saying):
        recognise(info(shape, metadata), labels, kind=kind)
