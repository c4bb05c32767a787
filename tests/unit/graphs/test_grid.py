"""Boxes placed in the graph as the decoder places them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from streamproc.graphs.grid import add_grid_decoding
from streamproc.graphs.reading import outputs_of, read_onnx
from streamproc.graphs.suppression import Suppression, add_suppression
from streamproc.grids import cell_table, grids_of
from tests.tiny_models import InputType, save

GRIDS = grids_of(84, (64, 64))


def decoding(path: Path, dtype: InputType = "float32") -> onnx.ModelProto:
    """A model that gives what it takes, cells beside others, and puts the boxes in their places."""
    shape = ("batch", 84, 7)
    node = helper.make_node("Cast", ["raw"], ["output0"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    model = read_onnx(save(path, [node], {"raw": ("float32", shape)}, {"output0": shape}))
    if dtype != "float32":
        model.graph.output[0].type.tensor_type.elem_type = node.attribute[0].i
    add_grid_decoding(model, output="output0", grids=GRIDS)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_boxes_come_to_their_places(tmp_path: Path, dtype: InputType) -> None:
    model = decoding(tmp_path / "m.onnx", dtype)
    assert outputs_of(model)[0].dtype == "float32"
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    raw = np.random.default_rng(1).normal(0, 1, (2, 84, 7)).astype(dtype).astype(np.float32)
    (found,) = session.run(["output0"], {"raw": raw})
    table = cell_table(GRIDS)
    expected = raw.copy()
    expected[..., :2] = (raw[..., :2] + table[:, :2]) * table[:, 2:]
    expected[..., 2:4] = np.exp(raw[..., 2:4]) * table[:, 2:]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_suppression_goes_behind_it(tmp_path: Path) -> None:
    model = decoding(tmp_path / "m.onnx")
    limits = Suppression(confidence=0.5, iou=0.5, max_detections=5)
    add_suppression(model, output="output0", layout="objectness", suppression=limits)
    onnx.checker.check_model(model, full_check=True)
