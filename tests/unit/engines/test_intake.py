"""What a model's input tensor demands: every combination that is taken, and every one that is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from streamproc.config import PixelsConfig
from streamproc.engines.base import Pixels, TensorInfo
from streamproc.engines.intake import Intake, cannot_run, check_outputs, plan_intake, settle_pictures
from streamproc.errors import ModelError
from streamproc.types import Fit


def plan(
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    max_batch: int | Literal["auto"] = "auto",
    auto_batch: int = 1,
    size: tuple[int, int] | None = None,
) -> Intake:
    tensor = TensorInfo(name="images", dtype=dtype, shape=shape)
    return plan_intake("m", [tensor], max_batch=max_batch, auto_batch=auto_batch, size=size)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_layouts_and_types(dtype: str) -> None:
    first = plan((1, 3, 384, 640), dtype=dtype)
    assert (first.channels_first, first.size, first.slot_shape, first.dtype) == (
        True,
        (640, 384),
        (1, 384, 640, 3),
        dtype,
    )
    last = plan((1, 384, 640, 3), dtype=dtype)
    assert (last.channels_first, last.size) == (False, (640, 384))
    unsaid = plan((-1, -1, -1, -1), dtype=dtype, size=(224, 160))  # as Optimum exports: from PyTorch, so channels first
    assert (unsaid.channels_first, unsaid.size) == (True, (224, 160))


@pytest.mark.parametrize(
    ("own", "asked", "auto", "expected", "is_open"),
    [
        (-1, "auto", 1, 1, True),
        (-1, "auto", 8, 8, True),
        (-1, 5, 1, 5, True),
        (4, "auto", 1, 4, False),
        (4, 4, 1, 4, False),
    ],
)
def test_batch(own: int, asked: int | Literal["auto"], auto: int, expected: int, is_open: bool) -> None:
    intake = plan((own, 3, 32, 32), max_batch=asked, auto_batch=auto)
    assert (intake.max_batch, intake.open_batch) == (expected, is_open)


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [
        ((-1, -1), None, (640, 640)),
        ((-1, -1), (640, 384), (640, 384)),
        ((640, 384), None, (640, 384)),
        ((640, 384), (640, 384), (640, 384)),
        ((-1, 384), None, (640, 384)),
        ((-1, 384), (320, 384), (320, 384)),
        ((300, 300), None, (300, 300)),  # a fixed size is the model's own business
        ((-1, -1), (192, 48), (192, 48)),  # as is one that is no multiple of 32, where the model can take it
    ],
)
def test_size(own: tuple[int, int], asked: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    assert plan((1, 3, own[1], own[0]), size=asked).size == expected


@pytest.mark.parametrize(
    ("shape", "asked", "saying"),
    [
        ((1, 3, 640, 640), (320, 320), "fixed at 640x640 (width x height); model.size asks for 320x320"),
        ((1, 3, -1, 384), (640, 640), "fixed at 384x640"),
    ],
)
def test_sizes_that_do_not_go(shape: tuple[int, ...], asked: tuple[int, int], saying: str) -> None:
    with pytest.raises(ModelError, match=re.escape(saying)):
        plan(shape, size=asked)


@pytest.mark.parametrize(
    ("own", "asked", "remedy"),
    [
        ((-1, -1), (600, 338), "multiples of 32, here [608, 352]. "),
        ((-1, -1), (8, 32), "multiples of 32, here [32, 32]. "),
        ((-1, 48), (192, 48), "multiples of 32, here [192, 64]. "),
        ((-1, -1), (640, 384), ""),
        ((300, 300), None, ""),
    ],
)
def test_what_a_size_may_be_to_blame_for(own: tuple[int, int], asked: tuple[int, int] | None, remedy: str) -> None:
    intake = plan((1, 3, own[1], own[0]), size=asked)
    assert intake.size_remedy.endswith(remedy)
    assert bool(intake.size_remedy) == bool(remedy)
    failed = cannot_run("m", Path("m.onnx"), "OpenVINO", "CPU", intake, "no such size")
    assert remedy + "Leave model.size out" in str(failed)


@pytest.mark.parametrize("asked", [1, 8])
def test_a_fixed_batch_is_not_changed(asked: int) -> None:
    with pytest.raises(ModelError, match=f"fixed at 4; engine.max_batch asks for {asked}"):
        plan((4, 3, 32, 32), max_batch=asked)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 1, 28, 28), "float32"), ((1, 3, 640), "float32"), ((), "float32"), ((1, 3, 640, 640), "int32")],
)
def test_inputs_that_are_no_picture(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ModelError, match=re.escape(f"its inputs are images {dtype} {shape}; expected one picture")):
        plan(shape, dtype=dtype)


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_input(count: int) -> None:
    tensors = [TensorInfo(name=f"in{number}", dtype="float32", shape=(1, 3, 32, 32)) for number in range(count)]
    with pytest.raises(ModelError, match=r"its inputs are (none|in0 .*, in1 .*); expected one"):
        plan_intake("m", tensors, max_batch="auto", auto_batch=1, size=None)


@pytest.mark.parametrize(("shape", "good"), [((2, 5), True), ((2, 84, 8400), True), ((1, 5), False), ((), False)])
def test_outputs_have_a_row_a_picture(shape: tuple[int, ...], good: bool) -> None:
    outputs = [TensorInfo(name="out", dtype="float32", shape=shape)]
    if good:
        check_outputs("m", outputs, 2)
    else:
        with pytest.raises(ModelError, match=re.escape(f"output out has shape {shape}")):
            check_outputs("m", outputs, 2)


RAW, YOLOX, CLASSES, TEXT = (1, 84, 8400), (1, 8400, 85), (1, 1000), (1, 1, 640, 640)
CORNERS = ((16800, 4), (16800, 2), (16800, 8))  # without the batch, as such models are exported
BGR_255 = Pixels(color="bgr", scale=(1, 1, 1))


def settle(
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    pixels: PixelsConfig | None = None,
    fit: Fit | Literal["auto"] = "auto",
    told: str | None = None,
) -> Intake:
    outputs = [TensorInfo(name="out", dtype="float32", shape=shape)]
    metadata = {} if told is None else {"fit": told}
    intake = plan((1, 3, 640, 640), dtype=dtype)
    return settle_pictures("m", intake, outputs, pixels=pixels, fit=fit, metadata=metadata)


@pytest.mark.parametrize(
    ("shape", "told", "asked", "fit"),
    [
        (RAW, None, "auto", "letterbox"),
        (YOLOX, None, "auto", "top_left"),
        (CLASSES, None, "auto", "stretch"),
        (TEXT, None, "auto", "letterbox"),
        ((1, 300, 6), "top_left", "auto", "top_left"),
        ((1, 300, 6), "sideways", "auto", "letterbox"),
        (RAW, "top_left", "stretch", "stretch"),
        (YOLOX, None, "letterbox", "letterbox"),
    ],
)
def test_fit(shape: tuple[int, ...], told: str | None, asked: Fit | Literal["auto"], fit: Fit) -> None:
    assert settle(shape, told=told, fit=asked).fit == fit


def test_pixels_of_each_kind() -> None:
    assert settle(RAW).pixels == settle(CLASSES).pixels == Pixels(color="rgb", mean=(0, 0, 0), scale=(1 / 255,) * 3)
    assert settle(YOLOX).pixels == settle(YOLOX, dtype="float16").pixels == BGR_255
    assert settle(YOLOX, dtype="uint8").pixels.color == "rgb"  # whoever made it take uint8 has seen to that


def test_pixels_of_what_finds_text() -> None:
    """ImageNet's, in the order of OpenCV."""
    pixels = settle(TEXT).pixels
    assert (pixels.color, pixels.mean) == ("bgr", (123.675, 116.28, 103.53))
    assert pixels.scale == pytest.approx((1 / 255 / 0.229, 1 / 255 / 0.224, 1 / 255 / 0.225))
    assert settle(TEXT, dtype="uint8").pixels.color == "rgb"


def test_pixels_of_what_finds_corners() -> None:
    outputs = [TensorInfo(name=str(shape), dtype="float32", shape=shape) for shape in CORNERS]
    settled = settle_pictures("m", plan((1, 3, 640, 640)), outputs, pixels=None, fit="auto", metadata={})
    assert settled.pixels == Pixels(color="bgr", mean=(104, 117, 123), scale=(1, 1, 1))
    assert settled.fit == "letterbox"


def test_pixels_as_configured() -> None:
    legacy = PixelsConfig(mean=(123.675, 116.28, 103.53), scale=(0.01712, 0.01751, 0.01743))
    found = settle(YOLOX, pixels=legacy).pixels
    assert found == Pixels(mean=(123.675, 116.28, 103.53), scale=(0.01712, 0.01751, 0.01743))
    assert settle(RAW, pixels=PixelsConfig(color="bgr")).pixels == Pixels(color="bgr")
    assert settle(RAW, pixels=PixelsConfig(color="bgr", scale=(1, 1, 1))).pixels == BGR_255


@pytest.mark.parametrize("pixels", [PixelsConfig(mean=(127.5,) * 3, scale=(1, 1, 1)), PixelsConfig(scale=(0.5,) * 3)])
def test_uint8_is_taken_as_it_is(pixels: PixelsConfig) -> None:
    with pytest.raises(ModelError, match=r"input images is uint8.*model\.pixels asks for a mean or a scale"):
        settle(RAW, dtype="uint8", pixels=pixels)
    assert settle(RAW, dtype="uint8", pixels=PixelsConfig(color="bgr", scale=(1, 1, 1))).pixels.color == "bgr"
