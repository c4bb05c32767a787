"""Suppression in the graph against the decoders that it stands in for, in ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from streamproc.errors import ModelError
from streamproc.graphs.editing import opset_of
from streamproc.graphs.suppression import DETECTIONS, Layout, Suppression, add_efficient_nms, add_suppression
from tests.unit.graphs.crowds import CLASSES, assert_same, crowd, decoded, passing_through, wanted

layouts = pytest.mark.parametrize("layout", ["raw", "objectness"])


def suppressed(layout: Layout, suppression: Suppression, **options: Any) -> onnx.ModelProto:
    model = passing_through(layout, **options)
    add_suppression(model, output="out", layout=layout, suppression=suppression)
    onnx.checker.check_model(model, full_check=True)
    return model


def in_onnxruntime(model: onnx.ModelProto, values: NDArray[Any]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run([DETECTIONS], {"values": values})[0]
    return found


def in_openvino(model: onnx.ModelProto, values: NDArray[Any]) -> NDArray[np.float32]:
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found: NDArray[np.float32] = compiled(values)[0].copy()
    return found


both = pytest.mark.parametrize("run", [in_onnxruntime, in_openvino])


@both
@layouts
@pytest.mark.parametrize(
    ("confidence", "iou", "limit"), [(0.25, 0.45, 300), (0.001, 0.65, 300), (0.6, 0.3, 1000), (0.5, 0.45, 4)]
)
def test_equals_the_decoder(run: Any, layout: Layout, confidence: float, iou: float, limit: int) -> None:
    suppression = wanted(confidence, iou, limit)
    values = crowd(layout, seed=limit)
    found = run(suppressed(layout, suppression), values)
    assert found.shape == (3, limit, 6)
    assert found.dtype == np.float32
    for row in range(3):
        assert_same(found[row], decoded(layout, values, row, suppression))


@both
@pytest.mark.parametrize("opset", [11, 13, 18, 20])
def test_operators_of_every_age(run: Any, opset: int) -> None:
    values = crowd("raw", seed=opset)
    model = suppressed("raw", wanted(), opset=opset)
    assert opset_of(model) == opset
    assert_same(run(model, values)[1], decoded("raw", values, 1, wanted()))


@layouts
def test_more_boxes_than_candidates(layout: Layout) -> None:
    values = crowd(layout, seed=7, count=3000, batch=1)
    suppression = wanted(0.001, 0.65, 1000)
    found = in_onnxruntime(suppressed(layout, suppression), values)
    assert_same(found[0], decoded(layout, values, 0, suppression))


@layouts
def test_half_precision_is_compared_in_full(layout: Layout) -> None:
    values = crowd(layout, seed=3).astype(np.float16)
    found = in_onnxruntime(suppressed(layout, wanted(), dtype=TensorProto.FLOAT16), values)
    assert found.dtype == np.float32
    assert_same(found[0], decoded(layout, values, 0, wanted()))


def raw(*boxes: tuple[float, ...]) -> NDArray[np.float32]:
    """A picture with these boxes: centre x, centre y, width, height, a score a class."""
    return np.array(boxes, dtype=np.float32).reshape(1, -1, 4 + CLASSES).transpose(0, 2, 1)


def box(x: float, class_id: int, score: float, *, width: float = 40) -> tuple[float, ...]:
    return (x, 100, width, 40, *(score if number == class_id else 0 for number in range(CLASSES)))


@both
def test_nothing_to_see(run: Any) -> None:
    assert not run(suppressed("raw", wanted()), raw(box(100, 1, 0.1), box(200, 2, 0.2))).any()


@both
def test_classes_leave_each_other_alone(run: Any) -> None:
    found = run(suppressed("raw", wanted()), raw(box(100, 1, 0.8), box(101, 2, 0.9), box(102, 1, 0.7)))
    assert found[0, :3, 5].tolist() == [2, 1, 0]
    np.testing.assert_allclose(found[0, :3, 4], [0.9, 0.8, 0])


@both
def test_a_box_counts_for_its_best_class_only(run: Any) -> None:
    found = run(suppressed("raw", wanted()), raw((100, 100, 40, 40, 0.6, 0.9, 0.9, 0, 0)))
    np.testing.assert_allclose(found[0, :2], np.array([[80, 80, 120, 120, 0.9, 1], [0] * 6]))


@both
def test_the_threshold_itself_is_enough(run: Any) -> None:
    confidence = float(np.float32(0.3))
    assert run(suppressed("raw", wanted(confidence)), raw(box(100, 0, confidence)))[0, 0, 4] == np.float32(0.3)


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 2, 3])
def test_boxes_that_are_nonsense_are_dropped(nonsense: float, at: int) -> None:
    broken = list(box(100, 0, 0.9))
    broken[at] = nonsense
    empty, inverted = box(300, 0, 0.9, width=0), box(400, 0, 0.9, width=-40)
    found = in_onnxruntime(suppressed("raw", wanted()), raw(tuple(broken), empty, inverted, box(500, 3, 0.5)))
    np.testing.assert_allclose(found[0, :2], np.array([[480, 80, 520, 120, 0.5, 3], [0] * 6]))


def test_an_output_that_has_the_name_already() -> None:
    model = passing_through("raw")
    model.graph.output[0].name = model.graph.node[0].output[0] = DETECTIONS
    add_suppression(model, output=DETECTIONS, layout="raw", suppression=wanted())
    onnx.checker.check_model(model, full_check=True)
    values = crowd("raw", seed=1)
    assert_same(in_onnxruntime(model, values)[0], decoded("raw", values, 0, wanted()))


@pytest.mark.parametrize("add", [add_suppression, add_efficient_nms])
def test_models_that_it_cannot_be_added_to(add: Callable[..., None]) -> None:
    with pytest.raises(ModelError, match=r"no output output0; it has out\. Name one"):
        add(passing_through("raw"), output="output0", layout="raw", suppression=wanted())
    with pytest.raises(ModelError, match=r"operators of opset 10; suppression needs 11 or later\. Export"):
        add(passing_through("raw", opset=10), output="out", layout="raw", suppression=wanted())


@pytest.mark.parametrize(
    ("values", "saying"),
    [
        ((0, 0.45, 300), "confidence: expected above 0 and up to 1, got 0"),
        ((1.1, 0.45, 300), "confidence"),
        ((0.25, -0.1, 300), r"iou: expected 0\.\.1"),
        ((0.25, 0.45, 0), r"max_detections: expected 1\.\.1000, got 0"),
        ((0.25, 0.45, 1001), "max_detections"),
    ],
)
def test_thresholds_out_of_range(values: tuple[float, float, int], saying: str) -> None:
    with pytest.raises(ValueError, match=saying):
        wanted(*values)
