"""The boxes of YOLOX put in their places, within the graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from streamproc.graphs.editing import PREFIX, Appender, rename_tensor
from streamproc.grids import cell_table

__all__ = ["add_grid_decoding"]


def add_grid_decoding(model: onnx.ModelProto, *, output: str, grids: Sequence[tuple[int, int, int]]) -> None:
    """Give a model, in place, an ``output`` whose boxes are in input pixels, where they were in cells of ``grids``.

    It stays (batch, cells, 5 + classes), as float32: centre x, centre y, width, height, and the scores as they were.
    ``grids``: (columns, rows, stride) of each feature map; see :mod:`streamproc.models.heads.yolox`.
    """
    graph = model.graph
    (given,) = (value for value in graph.output if value.name == output)
    made, table = Appender(model), cell_table(grids)[None]
    values = PREFIX + "grid/values"
    rename_tensor(graph, output, values)
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        values = made.node("Cast", values, out="grid/floats", to=TensorProto.FLOAT)
        given.type.tensor_type.elem_type = TensorProto.FLOAT
    beside = made.cut(values, 0, 2, axis=2, out="grid/beside")
    centre = made.node("Add", beside, made.constant("grid/corners", table[..., :2]), out="grid/centre")
    logarithms = made.cut(values, 2, 4, axis=2, out="grid/logarithms")
    boxes = made.node("Concat", centre, made.node("Exp", logarithms, out="grid/size"), out="grid/boxes", axis=2)
    placed = made.node("Mul", boxes, made.constant("grid/strides", table[..., 2:]), out="grid/placed")
    scores = made.cut(values, 4, None, axis=2, out="grid/scores")
    rename_tensor(graph, made.node("Concat", placed, scores, out="grid/rows", axis=2), output)
