"""Outputs that lack the batch get it; all others stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from streamproc.graphs.batch import add_batch_axis
from streamproc.graphs.reading import outputs_of, read_onnx
from tests.tiny_models import Side, save


def make(path: Path, *shapes: tuple[Side, ...]) -> onnx.ModelProto:
    """Outputs of these shapes, filled with the mean of the picture; open sides are 2."""
    fixed = [tuple(side if isinstance(side, int) else 2 for side in shape) for shape in shapes]
    nodes = [onnx.helper.make_node("ReduceMean", ["pictures"], ["mean"], keepdims=0)]
    nodes += [onnx.helper.make_node("Expand", ["mean", f"shape{n}"], [f"out{n}"]) for n in range(len(shapes))]
    return read_onnx(
        save(
            path / "m.onnx",
            nodes,
            {"pictures": ("float32", (1, 3, 4, 4))},
            {f"out{number}": shape for number, shape in enumerate(shapes)},
            {f"shape{number}": np.array(shape, dtype=np.int64) for number, shape in enumerate(fixed)},
        )
    )


def test_the_batch_comes_in_front(tmp_path: Path) -> None:
    model = make(tmp_path, (5, 4), (1, 5, 2), (7,))
    add_batch_axis(model)
    onnx.checker.check_model(model)
    assert [(tensor.name, tensor.shape) for tensor in outputs_of(model)] == [
        ("out0", (1, 5, 4)),
        ("out1", (1, 5, 2)),
        ("out2", (1, 7)),
    ]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"pictures": np.full((1, 3, 4, 4), 3, np.float32)})
    assert [values.shape for values in found] == [(1, 5, 4), (1, 5, 2), (1, 7)]
    assert all((values == 3).all() for values in found)


@pytest.mark.parametrize("shape", [(1, 5), (1,), ("n", 7), (5, "n")])
def test_what_has_it_or_does_not_tell_stays(tmp_path: Path, shape: tuple[Side, ...]) -> None:
    model = make(tmp_path, shape)
    before = model.SerializeToString()
    add_batch_axis(model)
    assert model.SerializeToString() == before
