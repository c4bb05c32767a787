"""Tensors renamed wherever they are."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from streamproc.graphs.editing import opset_of, rename_tensor


def model() -> onnx.ModelProto:
    """``x`` doubled, then passed on by either branch."""
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", ["twice"], ["out"])], "branch", [], [out])
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("If", ["flag"], ["result"], then_branch=branch, else_branch=branch),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "tiny", [given, flag], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("other", 3), helper.make_opsetid("", 17)])


def test_a_tensor_is_renamed_in_branches_too() -> None:
    renamed = model()
    rename_tensor(renamed.graph, "twice", "double")
    onnx.checker.check_model(renamed, full_check=True)
    assert renamed.graph.node[0].output[0] == "double"
    branches = [attribute.g for attribute in renamed.graph.node[1].attribute]
    assert [branch.node[0].input[0] for branch in branches] == ["double", "double"]


def test_the_version_of_the_standard_operators() -> None:
    assert opset_of(model()) == 17
    assert opset_of(onnx.ModelProto()) == 0
