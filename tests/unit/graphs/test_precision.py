"""Arithmetic in fewer bits, on models small enough to see through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamproc.errors import ModelError
from streamproc.graphs.intake import IMAGES, add_uint8_intake
from streamproc.graphs.precision import to_fp16, to_int8
from streamproc.graphs.reading import inputs_of, metadata_of, outputs_of
from streamproc.graphs.suppression import Suppression, add_suppression
from streamproc.types import UInt8Array
from tests.tiny_models import Side, save_means


def model_of(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, NDArray[Any]], out: Sequence[Side], *, opset: int = 17
) -> onnx.ModelProto:
    """From ``pictures``, float32 (batch, 3, 32, 32), to ``out``."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, list(out))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def convolutional(opset: int = 17) -> onnx.ModelProto:
    """Three convolutions: two of many channels, and a last one of a single channel."""
    random = np.random.default_rng(0)
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 1, 1), "w2": (1, 8, 1, 1)}
    constants: dict[str, NDArray[Any]] = {
        name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()
    }
    constants["offset"] = np.array([1, 0, 0, 0, 0, 0, 0, 0], dtype=np.float32).reshape(1, 8, 1, 1)
    nodes = [
        helper.make_node("Conv", ["pictures", "w0"], ["a"], "first"),
        helper.make_node("Add", ["a", "offset"], ["b"], "bias"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("Conv", ["c", "w1"], ["d"], "second"),
        helper.make_node("Softmax", ["d"], ["e"], "softmax", axis=1),
        helper.make_node("Conv", ["e", "w2"], ["f"], "third"),
        helper.make_node("ReduceMean", ["f"], ["out"], "mean", axes=[2, 3], keepdims=0),
    ]
    return model_of(nodes, constants, ["batch", 1], opset=opset)


def with_intake(model: onnx.ModelProto) -> onnx.ModelProto:
    add_uint8_intake(model, tensor="pictures", dtype="float32", channels_first=True, size=(32, 32), batch=None)
    return model


def noise(count: int) -> UInt8Array:
    return np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def run(model: onnx.ModelProto, images: NDArray[Any], tensor: str = IMAGES) -> NDArray[Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: NDArray[Any] = session.run(None, {tensor: images})[0]
    return output


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}


def test_fp16_inside_and_the_same_types_outside() -> None:
    model = with_intake(convolutional())
    before = model.SerializeToString()
    halved = to_fp16(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(halved, full_check=True)
    assert (inputs_of(halved), outputs_of(halved)) == (inputs_of(model), outputs_of(model))
    types = types_of(halved)
    assert {types[name] for name in "abcdef"} == {TensorProto.FLOAT16}
    assert {weight.data_type for weight in halved.graph.initializer if weight.name != "streamproc/scale"} == {
        TensorProto.FLOAT16
    }
    images = noise(2)
    np.testing.assert_allclose(run(halved, images), run(model, images), atol=2e-3)


def test_fp16_casts_an_input_that_is_float32() -> None:
    halved = to_fp16(convolutional())
    pictures = noise(1).transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert inputs_of(halved)[0].dtype == "float32"
    np.testing.assert_allclose(run(halved, pictures, "pictures"), run(convolutional(), pictures, "pictures"), atol=2e-3)


def test_fp16_leaves_suppression_in_float32() -> None:
    boxes = np.array([[[610.3, 333.3, 21.7, 5.3, 0.9]]], dtype=np.float32).transpose(0, 2, 1)
    nodes = [
        helper.make_node("ReduceMean", ["pictures"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean", "last"], ["scale"]),
        helper.make_node("Mul", ["scale", "boxes"], ["out"]),
    ]
    model = with_intake(model_of(nodes, {"boxes": boxes, "last": np.array([3])}, ["batch", 5, 1]))
    add_suppression(
        model, output="out", layout="raw", suppression=Suppression(confidence=0.5, iou=0.5, max_detections=1)
    )
    halved = to_fp16(model)
    onnx.checker.check_model(halved, full_check=True)
    types = types_of(halved)
    ours = [name for name, kind in types.items() if kind == TensorProto.FLOAT16 and name.startswith("streamproc/")]
    assert set(ours) <= {"streamproc/fp16/streamproc/old_input", "streamproc/old_output"}
    found = run(halved, np.full((1, 32, 32, 3), 255, dtype=np.uint8))
    # The model's own numbers are rounded, by up to 0.25 px here; what is made of them is not.
    x, y, width, height = boxes[0, :4, 0].astype(np.float16).astype(np.float32)
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    np.testing.assert_array_equal(found[0, 0, :4], corners)


def test_fp16_keeps_scales_in_float32() -> None:
    nodes = [
        helper.make_node("Resize", ["pictures", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, dtype=np.float32))),
        helper.make_node("Mul", ["large", "half"], ["less"]),
        helper.make_node("Cast", ["less"], ["same"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["same", "huge"], ["out"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "scales": np.array([1, 1, 2, 2], dtype=np.float32),
        "huge": np.array(1e6, dtype=np.float32),
    }
    model = model_of(nodes, constants, ["batch", 3, 64, 64])
    halved = to_fp16(model)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in halved.graph.initializer}
    assert weights["scales"].dtype == np.float32
    assert weights["streamproc/fp16/huge"] == np.float16(65504)
    pictures = np.zeros((1, 3, 32, 32), dtype=np.float32)
    assert run(halved, pictures, "pictures").shape == (1, 3, 64, 64)


@pytest.mark.parametrize("stored", ["initializer", "constant"])
def test_fp16_of_variances_beyond_its_range(stored: str) -> None:
    random = np.random.default_rng(7)
    weights: dict[str, NDArray[Any]] = {
        "gain": np.array([3e3, 9e3, 1], dtype=np.float32).reshape(1, 3, 1, 1),
        "scale": random.uniform(0.5, 2, 3).astype(np.float32),
        "shift": random.uniform(-1, 1, 3).astype(np.float32),
        "mean": np.array([1500, 4500, 0.5], dtype=np.float32),
        "variance": np.array([9e6, 4.8e7, 1e-3], dtype=np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["pictures", "gain"], ["large"]),
        helper.make_node("BatchNormalization", ["large", "scale", "shift", "mean", "variance"], ["out"], epsilon=1e-3),
    ]
    if stored == "constant":
        values = {name: numpy_helper.from_array(value) for name, value in weights.items()}
        nodes = [*(helper.make_node("Constant", [], [name], value=value) for name, value in values.items()), *nodes]
        weights = {}
    model = model_of(nodes, weights, ["batch", 3, 32, 32])
    before = model.SerializeToString()
    halved = to_fp16(model)
    onnx.checker.check_model(halved, full_check=True)
    assert model.SerializeToString() == before
    pictures = random.uniform(0, 1, (2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(run(halved, pictures, "pictures"), run(model, pictures, "pictures"), atol=0.03)


@pytest.mark.parametrize("opset", [11, 17])
def test_int8_from_the_first_convolution_to_before_the_last(opset: int) -> None:
    model = with_intake(convolutional(opset))
    helper.set_model_props(model, {"task": "detect"})
    quantised = to_int8(model, [noise(2), noise(3)])
    onnx.checker.check_model(quantised, full_check=True)
    assert (inputs_of(quantised), outputs_of(quantised)) == (inputs_of(model), outputs_of(model))
    assert metadata_of(quantised) == {"task": "detect"}
    makers = {name: node for node in quantised.graph.node for name in node.output}
    kinds = [
        makers[node.input[1]].op_type if node.input[1] in makers else "float"
        for node in quantised.graph.node
        if node.op_type == "Conv"
    ]
    assert kinds == ["DequantizeLinear", "float", "float"]
    assert {entry.domain for entry in quantised.opset_import} <= {"", "ai.onnx"}
    np.testing.assert_allclose(run(quantised, noise(4)), run(model, noise(4)), atol=0.02)


@pytest.mark.parametrize(("symmetric", "kind"), [(True, np.int8), (False, np.uint8)])
def test_int8_for_tensorrt_is_symmetric(symmetric: bool, kind: type) -> None:
    quantised = to_int8(with_intake(convolutional()), iter([noise(2)]), symmetric=symmetric)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in quantised.graph.initializer}
    zeros = [weights[node.input[2]] for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros} == {np.dtype(kind)}
    assert not symmetric or not any(zero.any() for zero in zeros)


def test_int8_needs_pictures_and_samples(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="expected one uint8 input, which add_uint8_intake gives; got pictures float32"
    ):
        to_int8(onnx.load(save_means(tmp_path / "m.onnx")), [noise(1)])
    with pytest.raises(ValueError, match="at least one batch"):
        to_int8(with_intake(convolutional()), [])


def test_int8_of_a_model_that_fails_on_the_samples() -> None:
    with pytest.raises(ModelError, match="precision int8: ONNX Runtime cannot run the model on the samples"):
        to_int8(with_intake(convolutional()), [np.zeros((1, 16, 16, 3), dtype=np.uint8)])


def test_models_that_are_not_converted() -> None:
    quantised = to_int8(with_intake(convolutional()), [noise(2)])
    with pytest.raises(ModelError, match=r"precision fp16: the model is quantised already \(DequantizeLinear"):
        to_fp16(quantised)
    with pytest.raises(ModelError, match="precision int8: the model is quantised already"):
        to_int8(quantised, [noise(1)])
    with pytest.raises(ModelError, match="weights are float16"):
        to_int8(to_fp16(with_intake(convolutional())), [noise(1)])
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    node = helper.make_node("If", ["flag"], ["out"], then_branch=branch, else_branch=branch)
    with pytest.raises(ModelError, match=r"branches or loops \(If\)"):
        to_fp16(model_of([node], {"flag": np.array(True)}, [1]))


def test_fp16_needs_operators_that_are_known() -> None:
    foreign = helper.make_node("Gelu", ["pictures"], ["out"], domain="com.microsoft")
    with pytest.raises(ModelError, match=r"types are not known: com\.microsoft\.Gelu\. Export"):
        to_fp16(model_of([foreign], {}, ["batch", 3, 32, 32]))
