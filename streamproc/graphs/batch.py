"""The batch in front of every output, where a model for one picture leaves it out."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from streamproc.graphs.editing import PREFIX, rename_tensor

__all__ = ["add_batch_axis"]


def add_batch_axis(model: onnx.ModelProto) -> None:
    """Give the outputs of a model that takes one picture, and no more, that batch as their first dimension, in place.

    Only outputs whose shapes are stated and fixed can be told to lack it: (n, ...) becomes (1, n, ...).
    """
    graph = model.graph
    for output in graph.output:
        sides = output.type.tensor_type.shape.dim
        shape = [side.dim_value for side in sides]
        if not shape or shape[0] == 1 or min(shape) < 1:
            continue
        bare, target = f"{PREFIX}bare/{output.name}", f"{PREFIX}batched/{output.name}"
        rename_tensor(graph, output.name, bare)
        graph.initializer.append(numpy_helper.from_array(np.array([1, *shape], dtype=np.int64), target))
        graph.node.append(helper.make_node("Reshape", [bare, target], [output.name], f"{bare}/Reshape"))
        del sides[:]
        for side in (1, *shape):
            sides.add(dim_value=side)
