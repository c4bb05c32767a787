"""Pictures as cameras give them, in front of a model: uint8 RGB, a fourth of float32's bytes on the way there."""

from __future__ import annotations

from itertools import count
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamproc.engines.base import UNIT_RGB, Pixels
from streamproc.graphs.editing import PREFIX, rename_tensor

__all__ = ["IMAGES", "add_uint8_intake"]

IMAGES = "images"

_CONSTANTS = {"Sub": "mean", "Mul": "scale", "Gather": "channels"}


def add_uint8_intake(
    model: onnx.ModelProto,
    *,
    tensor: str,
    dtype: Literal["float32", "float16", "uint8"],
    channels_first: bool,
    size: tuple[int, int],
    batch: int | None,
    pixels: Pixels = UNIT_RGB,
) -> None:
    """Give a model, in place, one input ``images``: uint8 (batch, height, width, 3) RGB.

    Nodes in front of its old input ``tensor`` turn that into what it was: cast to ``dtype`` with the values of
    ``pixels`` unless that is uint8, transposed where ``channels_first``, and with the channels in the order of
    ``pixels``. None are needed by a model that took such pictures already. ``size``: (width, height); ``batch``: None
    leaves it open.
    """
    graph = model.graph
    steps = _steps(dtype, channels_first, pixels)
    prefix = _unused_prefix(graph)
    old = prefix + "old_input" if steps else IMAGES
    rename_tensor(graph, tensor, old)
    names = [IMAGES, *(f"{prefix}{step}" for step in range(1, len(steps))), old]
    for index, (kind, constant, attributes) in enumerate(steps):
        taken = [names[index]]
        if constant is not None:
            taken.append(prefix + _CONSTANTS[kind])
            graph.initializer.append(numpy_helper.from_array(constant, taken[1]))
        node = helper.make_node(kind, taken, [names[index + 1]], f"{prefix}{kind}{index}", **attributes)
        graph.node.insert(index, node)
    shape = ["batch" if batch is None else batch, size[1], size[0], 3]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, shape))


def _unused_prefix(graph: onnx.GraphProto) -> str:
    """What our names start with, in a model that may have been given such nodes before."""
    used = {name for node in graph.node for name in node.output}
    return next(prefix for times in count() if (prefix := PREFIX + "outer/" * times) + "old_input" not in used)


def _steps(
    dtype: Literal["float32", "float16", "uint8"], channels_first: bool, pixels: Pixels
) -> list[tuple[str, NDArray[Any] | None, dict[str, Any]]]:
    """Operators, each with a constant and attributes where it takes some, from pictures to the model's own input.

    The cast comes first: TensorRT does nothing else with uint8 (NvInfer.h, ``DataType::kUINT8``). The channels change
    places last, where whole planes move if they come first.
    """
    steps: list[tuple[str, NDArray[Any] | None, dict[str, Any]]] = []
    if dtype != "uint8":
        steps.append(("Cast", None, {"to": TensorProto.FLOAT}))
        if any(pixels.mean):
            steps.append(("Sub", _as_rgb(pixels.mean, pixels), {}))
        if set(pixels.scale) != {1.0}:
            steps.append(("Mul", _as_rgb(pixels.scale, pixels), {}))
    if channels_first:
        steps.append(("Transpose", None, {"perm": [0, 3, 1, 2]}))
    if pixels.color == "bgr":
        steps.append(("Gather", np.array([2, 1, 0], dtype=np.int64), {"axis": 1 if channels_first else 3}))
    if dtype == "float16":
        steps.append(("Cast", None, {"to": TensorProto.FLOAT16}))
    return steps


def _as_rgb(numbers: tuple[float, float, float], pixels: Pixels) -> NDArray[np.float32]:
    """Numbers of the model's channels for those of pictures: one if they are equal, else (3,)."""
    ordered = numbers[::-1] if pixels.color == "bgr" else numbers
    return np.array(ordered[0] if len(set(ordered)) == 1 else ordered, dtype=np.float32)
