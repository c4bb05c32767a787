"""ONNX files: from disk into memory, what they take and give, and back to bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped, unused-ignore]

from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError

__all__ = ["OnnxModel", "inputs_of", "metadata_of", "outputs_of", "read_onnx", "serialise"]


OnnxModel: TypeAlias = onnx.ModelProto
"""For those who hand models on without a need to know ONNX."""


def read_onnx(path: Path) -> onnx.ModelProto:
    """A model from its file, with the weights that lie beside it.

    Raises:
        ModelError: there is no such file, it is no ONNX file, it is damaged, or its weights are missing.
    """
    if path.suffix != ".onnx":
        raise ModelError(f"model file {path}: expected .onnx. Export the model to ONNX, or use engine.kind: openvino.")
    if not path.is_file():
        raise ModelError(f"model file {path}: there is no such file. Check model.path.")
    try:
        model = onnx.load(path)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as exc:
        raise ModelError(
            f"model file {path}: it cannot be read as ONNX: {exc}. The file is damaged, of another kind, or its "
            "external data is not beside it: copy or export it again."
        ) from exc
    if not model.graph.node:
        raise ModelError(f"model file {path}: it holds no graph. Export the model again.")
    return model


def serialise(model: onnx.ModelProto, *, of: str, remedy: str) -> bytes:
    """A model as the bytes of one ONNX message; ``of`` names it in an error, ``remedy`` says what to do then.

    Raises:
        ModelError: it is larger than 2 GiB, which protobuf does not encode.
    """
    try:
        serialised: bytes = model.SerializeToString()
    except (EncodeError, ValueError) as exc:
        raise ModelError(
            f"{of}: with its weights it is larger than 2 GiB, more than one ONNX message holds: {exc}. {remedy}"
        ) from exc
    return serialised


def inputs_of(model: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """What a model takes; weights, which old files list as inputs too, are left out."""
    constants = {constant.name for constant in model.graph.initializer}
    return _tensors(value for value in model.graph.input if value.name not in constants)


def outputs_of(model: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """What a model gives, as its file says: dimensions may be open, and a shape that is not stated is empty."""
    return _tensors(model.graph.output)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """What the exporter wrote into the file: ``names``, ``task``, ``stride``, ..."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorInfo, ...]:
    return tuple(_tensor_info(value) for value in values)


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim)
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except KeyError:  # a sequence or a map has no element type
        dtype = "(no tensor)"
    return TensorInfo(name=value.name, dtype=dtype, shape=shape)
