"""Tiny ONNX models for tests, small enough to be computed in the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["InputType", "Side", "save", "save_constant", "save_fragile", "save_means"]

InputType: TypeAlias = Literal["float32", "float16", "uint8"]
Side: TypeAlias = int | str  # a string is the name of an open dimension

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64,
}


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[str, Sequence[Side]]],
    outputs: Mapping[str, Sequence[Side]],
    constants: Mapping[str, np.ndarray] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    external_data: bool = False,
) -> Path:
    """Write a checked model; ``inputs`` maps names to (type, shape), outputs are float32."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, _TYPES[kind], list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid(domain, 17) for domain in {"", *(node.domain for node in nodes)}]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path), save_as_external_data=external_data, size_threshold=0)
    return path


def save_means(
    path: Path,
    *,
    dtype: InputType = "float32",
    channels_first: bool = True,
    batch: Side = "batch",
    size: tuple[Side, Side] = (32, 32),
    external_data: bool = False,
) -> Path:
    """(batch, 3): the mean of each channel of each picture, of the values that the model sees."""
    width, height = size
    shape = (batch, 3, height, width) if channels_first else (batch, height, width, 3)
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "one"], ["same"]),
        helper.make_node("ReduceMean", ["same"], ["means"], axes=[2, 3] if channels_first else [1, 2], keepdims=0),
    ]
    return save(
        path,
        nodes,
        {"pictures": (dtype, shape)},
        {"means": (batch, 3)},
        {"one": np.ones(1, dtype=np.float32)},
        {"names": "{0: 'red', 1: 'green', 2: 'blue'}"},
        external_data=external_data,
    )


def save_fragile(path: Path) -> Path:
    """(1, 1): works on black pictures of 32 x 32, and fails while running where the first value is 7.

    The pictures are reshaped to (first value, -1); 0 leaves a dimension as it is, 7 does not divide 3072.
    """
    nodes = [
        helper.make_node("Slice", ["pictures", "start", "end", "axes"], ["corner"]),
        helper.make_node("Cast", ["corner"], ["number"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["number", "one"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["table"]),
        helper.make_node("ReduceMean", ["table"], ["mean"], keepdims=1),
    ]
    constants = {
        "start": np.zeros(4, dtype=np.int64),
        "end": np.ones(4, dtype=np.int64),
        "axes": np.arange(4, dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
        "rest": np.array([-1], dtype=np.int64),
    }
    return save(path, nodes, {"pictures": ("uint8", (1, 32, 32, 3))}, {"mean": (1, 1)}, constants)


def save_constant(path: Path, shape: Sequence[int], *, size: tuple[int, int] = (32, 32), batch: Side = 1) -> Path:
    """An output of a fixed shape and zeros, whatever the picture."""
    width, height = size
    nodes = [
        helper.make_node("ReduceMean", ["pictures"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zeros"], ["output"]),
    ]
    return save(
        path,
        nodes,
        {"pictures": ("float32", (batch, 3, height, width))},
        {"output": shape},
        {"zeros": np.zeros(shape, dtype=np.float32)},
    )
