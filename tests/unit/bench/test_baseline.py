"""Which models a tutorial's client can be measured with."""

from __future__ import annotations

import pytest

from streamproc.bench.baseline import why_no_baseline
from streamproc.engines.base import ModelInfo, TensorInfo


def model(dtype: str, shape: tuple[int, ...]) -> ModelInfo:
    return ModelInfo(
        name="net",
        size=(64, 32),
        inputs=(TensorInfo(name="images", dtype=dtype, shape=shape),),
        outputs=(TensorInfo(name="output0", dtype="float32", shape=(1, 84, 42)),),
        metadata={},
    )


def test_float_in_and_raw_out_it_is() -> None:
    assert why_no_baseline(model("float32", (-1, 3, 32, 64)), "yolo") is None


@pytest.mark.parametrize(
    ("dtype", "shape", "head", "why"),
    [
        ("uint8", (-1, 32, 64, 3), "yolo", "its input is uint8"),
        ("float16", (-1, 3, 32, 64), "yolo", "its input is float16"),
        ("float32", (-1, 32, 64, 3), "yolo", "tutorials send float32 (batch, 3, height, width)"),
        ("float32", (-1, 3, 32, 64), "yolo end-to-end", "its output is that of yolo end-to-end"),
    ],
)
def test_others_are_not(dtype: str, shape: tuple[int, ...], head: str, why: str) -> None:
    reason = why_no_baseline(model(dtype, shape), head)
    assert reason is not None
    assert why in reason
