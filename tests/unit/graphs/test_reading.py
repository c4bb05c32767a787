"""ONNX files as they come: what they take and give, and those that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError  # type: ignore[import-untyped, unused-ignore]

from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError
from streamproc.graphs.reading import inputs_of, metadata_of, outputs_of, read_onnx, serialise
from tests.tiny_models import save_means


def test_what_a_model_takes_and_gives(tmp_path: Path) -> None:
    model = read_onnx(save_means(tmp_path / "m.onnx", dtype="float16", size=("w", "h")))
    assert inputs_of(model) == (TensorInfo(name="pictures", dtype="float16", shape=(-1, 3, -1, -1)),)
    assert outputs_of(model) == (TensorInfo(name="means", dtype="float32", shape=(-1, 3)),)
    assert metadata_of(model) == {"names": "{0: 'red', 1: 'green', 2: 'blue'}"}


def test_weights_listed_as_inputs_are_none(tmp_path: Path) -> None:
    model = read_onnx(save_means(tmp_path / "m.onnx"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("one", onnx.TensorProto.FLOAT, [1]))
    assert [tensor.name for tensor in inputs_of(model)] == ["pictures"]


def test_an_input_that_is_no_tensor_is_told(tmp_path: Path) -> None:
    model = read_onnx(save_means(tmp_path / "m.onnx"))
    model.graph.input.append(onnx.helper.make_tensor_sequence_value_info("many", onnx.TensorProto.FLOAT, None))
    assert inputs_of(model)[1] == TensorInfo(name="many", dtype="(no tensor)", shape=())


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    model = read_onnx(save_means(tmp_path / "m.onnx", external_data=True))
    (one,) = model.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), [1])


@pytest.mark.parametrize(
    ("name", "content", "saying"),
    [
        ("m.pt", b"", r"expected \.onnx"),
        ("m.onnx", None, "no such file"),
        ("m.onnx", b"PK not a model", "cannot be read as ONNX"),
        ("m.onnx", b"", "holds no graph"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, saying: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=saying) as caught:
        read_onnx(path)
    assert str(path) in str(caught.value)


class _Oversized:
    """What protobuf does with a message of more than 2 GiB, without the 2 GiB."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        raise EncodeError("Failed to serialize proto")


def test_a_model_too_large_for_one_message() -> None:
    oversized: Any = _Oversized()
    with pytest.raises(
        ModelError, match=r"model m: with its weights it is larger than 2 GiB.*: Failed.*\. Shrink it\."
    ):
        serialise(oversized, of="model m", remedy="Shrink it.")
