"""Two networks in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from streamproc.errors import ModelError
from streamproc.graphs.joining import join
from tests.tiny_models import save, save_means

SHAPE = ("batch", 3, 8, 8)


def doubler(path: Path, shape: tuple[str | int, ...] = SHAPE) -> Path:
    node = helper.make_node("Mul", ["pictures", "two"], ["straight"])
    return save(path, [node], {"pictures": ("float32", shape)}, {"straight": shape}, {"two": np.array(2, np.float32)})


def test_the_second_sees_what_the_first_makes(tmp_path: Path) -> None:
    target = tmp_path / "both.onnx"
    join(doubler(tmp_path / "first.onnx"), save_means(tmp_path / "second.onnx", size=(8, 8)), target)
    session = onnxruntime.InferenceSession(target)
    (taken,) = session.get_inputs()
    (means,) = session.run(None, {taken.name: np.full((5, 3, 8, 8), 3, np.float32)})
    np.testing.assert_array_equal(means, np.full((5, 3), 6))
    assert session.get_modelmeta().custom_metadata_map["names"] == "{0: 'red', 1: 'green', 2: 'blue'}"


def test_an_older_operator_set_is_no_obstacle(tmp_path: Path) -> None:
    first, target = doubler(tmp_path / "first.onnx"), tmp_path / "both.onnx"
    older = onnx.load(first)
    older.opset_import[0].version = 13
    older.ir_version = 7
    onnx.save(older, first)
    join(first, save_means(tmp_path / "second.onnx", size=(8, 8)), target)
    onnxruntime.InferenceSession(target)


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    second = save_means(tmp_path / "second.onnx", size=(16, 8))
    with pytest.raises(
        ModelError, match=r"gives straight float32 \(-1, 3, 8, 8\), the second takes .*\(-1, 3, 8, 16\)"
    ):
        join(doubler(tmp_path / "first.onnx"), second, tmp_path / "both.onnx")
    assert not (tmp_path / "both.onnx").exists()


def test_a_first_with_two_outputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["pictures"], [name]) for name in ("one", "two")]
    first = save(tmp_path / "first.onnx", nodes, {"pictures": ("float32", SHAPE)}, {"one": SHAPE, "two": SHAPE})
    with pytest.raises(ModelError, match=r"found 1 and 1 input\(s\), 2 output"):
        join(first, save_means(tmp_path / "second.onnx", size=(8, 8)), tmp_path / "both.onnx")
