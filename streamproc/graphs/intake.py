"""Pictures as cameras give them, in front of a model: uint8 RGB, a fourth of float32's bytes on the way there."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamproc.graphs.editing import PREFIX, rename_tensor

__all__ = ["IMAGES", "add_uint8_intake"]

IMAGES = "images"

_SCALE = PREFIX + "scale"


def add_uint8_intake(
    model: onnx.ModelProto,
    *,
    tensor: str,
    dtype: Literal["float32", "float16", "uint8"],
    channels_first: bool,
    size: tuple[int, int],
    batch: int | None,
) -> None:
    """Give a model, in place, one input ``images``: uint8 (batch, height, width, 3) RGB.

    Nodes in front of its old input ``tensor`` turn that into what it was: cast to ``dtype`` and scaled to 0..1 unless
    that is uint8, and transposed where ``channels_first``. None are needed by a model that took such pictures already.
    ``size``: (width, height); ``batch``: None leaves it open.
    """
    graph = model.graph
    steps = _steps(dtype, channels_first)
    old = PREFIX + "old_input" if steps else IMAGES
    rename_tensor(graph, tensor, old)
    if dtype != "uint8":
        graph.initializer.append(numpy_helper.from_array(np.array(1 / 255, dtype=np.float32), _SCALE))
    names = [IMAGES, *(f"{PREFIX}{step}" for step in range(1, len(steps))), old]
    for index, (kind, attributes) in enumerate(steps):
        taken = [names[index], _SCALE] if kind == "Mul" else [names[index]]
        node = helper.make_node(kind, taken, [names[index + 1]], f"{PREFIX}{kind}{index}", **attributes)
        graph.node.insert(index, node)
    shape = ["batch" if batch is None else batch, size[1], size[0], 3]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, shape))


def _steps(dtype: Literal["float32", "float16", "uint8"], channels_first: bool) -> list[tuple[str, dict[str, Any]]]:
    """Operators with their attributes, from pictures to the model's own input.

    The cast comes first: TensorRT does nothing else with uint8 (NvInfer.h, ``DataType::kUINT8``).
    """
    steps: list[tuple[str, dict[str, Any]]] = []
    if dtype != "uint8":
        steps += [("Cast", {"to": TensorProto.FLOAT}), ("Mul", {})]
    if channels_first:
        steps.append(("Transpose", {"perm": [0, 3, 1, 2]}))
    if dtype == "float16":
        steps.append(("Cast", {"to": TensorProto.FLOAT16}))
    return steps
