"""What every change of a graph needs: names that clash with nothing, nodes appended, tensors renamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, helper, numpy_helper

__all__ = ["PREFIX", "Appender", "opset_of", "rename_tensor"]

PREFIX = "streamproc/"  # starts the name of every node and tensor of ours; none of the model's own has it


class Appender:
    """Appends nodes to a model, each named after the tensor it makes, and the constants that they need."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._opset = opset_of(model)

    def node(self, kind: str, *inputs: str, out: str, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output; that output's name."""
        return self.nodes(kind, *inputs, outs=[out], domain=domain, **attributes)[0]

    def nodes(self, kind: str, *inputs: str, outs: Sequence[str], domain: str = "", **attributes: Any) -> list[str]:
        """Append a node with several outputs; their names."""
        names = [PREFIX + name for name in outs]
        node = helper.make_node(kind, list(inputs), names, f"{names[0]}/{kind}", domain=domain, **attributes)
        self.model.graph.node.append(node)
        return names

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant; its name."""
        self.model.graph.initializer.append(numpy_helper.from_array(value, PREFIX + name))
        return PREFIX + name

    def number(self, name: str, value: float) -> str:
        """Add a float32 scalar; its name."""
        return self.constant(name, np.array(value, dtype=np.float32))

    def ints(self, name: str, *values: int) -> str:
        """Add an int64 vector; its name."""
        return self.constant(name, np.array(values, dtype=np.int64))

    def reshape(self, tensor: str, *shape: int, out: str) -> str:
        """Append a Reshape, where 0 keeps a dimension and -1 takes what is left."""
        return self.node("Reshape", tensor, self.ints(f"{out}/shape", *shape), out=out)

    def cut(self, tensor: str, start: int, end: int | None, *, axis: int, out: str) -> str:
        """Append a Slice along one axis."""
        ends = np.iinfo(np.int64).max if end is None else end
        bounds = {"start": start, "end": int(ends), "axis": axis}
        return self.node("Slice", tensor, *(self.ints(f"{out}/{name}", bounds[name]) for name in bounds), out=out)

    def reduce(self, kind: str, tensor: str, *, axis: int, out: str) -> str:
        """Append a ReduceMax or ReduceMin over one axis, which goes."""
        if self._opset < 18:  # the axes became an input then
            return self.node(kind, tensor, out=out, axes=[axis], keepdims=0)
        return self.node(kind, tensor, self.ints(f"{out}/axes", axis), out=out, keepdims=0)

    def rows(self, table: str, places: str, width: str, *, out: str) -> str:
        """Append what gathers rows ``places`` (batch, k) of ``table`` (batch, n, width): (batch, k, width)."""
        column = self.reshape(places, 0, -1, 1, out=f"{out}/column")
        shape = self.node("Concat", self.ints(f"{out}/ones", 1, 1), width, out=f"{out}/shape", axis=0)
        index = self.node("Expand", column, shape, out=f"{out}/index")
        return self.node("GatherElements", table, index, out=out, axis=1)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model is written in; 0 if it uses none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def rename_tensor(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name where it is made and wherever it is read, in subgraphs as well; the graph's own
    lists of inputs and outputs are left alone."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                rename_tensor(attribute.g, old, new)
