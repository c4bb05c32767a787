"""Pictures in front of a model: whatever it wants, it gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from streamproc.engines.base import UNIT_RGB, Pixels, TensorInfo
from streamproc.graphs.intake import IMAGES, add_uint8_intake
from streamproc.graphs.reading import inputs_of, read_onnx
from tests.tiny_models import InputType, Side, save_means


def with_intake(
    path: Path,
    *,
    dtype: InputType = "float32",
    channels_first: bool = True,
    batch: int | None = None,
    pixels: Pixels = UNIT_RGB,
) -> onnx.ModelProto:
    model = read_onnx(path)
    (tensor,) = inputs_of(model)
    add_uint8_intake(
        model,
        tensor=tensor.name,
        dtype=dtype,
        channels_first=channels_first,
        size=(64, 32),
        batch=batch,
        pixels=pixels,
    )
    onnx.checker.check_model(model)
    return model


def means(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {IMAGES: images})[0]
    return found


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 32, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_model_sees_what_it_was_trained_on(tmp_path: Path, dtype: InputType, channels_first: bool) -> None:
    path = save_means(tmp_path / "m.onnx", dtype=dtype, channels_first=channels_first, size=(64, 32))
    images = noise(2)
    expected = images.mean(axis=(1, 2)) / (1 if dtype == "uint8" else 255)
    found = means(with_intake(path, dtype=dtype, channels_first=channels_first), images)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize(("own", "wanted", "given"), [("n", None, -1), ("n", 3, 3), (2, 2, 2)])
def test_batches(tmp_path: Path, own: Side, wanted: int | None, given: int) -> None:
    model = with_intake(save_means(tmp_path / "m.onnx", batch=own, size=(64, 32)), batch=wanted)
    assert inputs_of(model) == (TensorInfo(name=IMAGES, dtype="uint8", shape=(given, 32, 64, 3)),)


def test_open_sizes_are_closed(tmp_path: Path) -> None:
    model = with_intake(save_means(tmp_path / "m.onnx", size=("w", "h")))
    assert inputs_of(model)[0].shape == (-1, 32, 64, 3)


def test_an_input_that_has_the_name_already(tmp_path: Path) -> None:
    path = save_means(tmp_path / "m.onnx", size=(64, 32))
    model = read_onnx(path)
    model.graph.input[0].name = model.graph.node[0].input[0] = IMAGES
    onnx.save_model(model, str(path))
    images = noise(1)
    np.testing.assert_allclose(means(with_intake(path), images), images.mean(axis=(1, 2)) / 255, rtol=1e-3)


def test_a_model_that_takes_such_pictures_needs_no_nodes(tmp_path: Path) -> None:
    path = save_means(tmp_path / "m.onnx", dtype="uint8", channels_first=False, size=(64, 32))
    model = with_intake(path, dtype="uint8", channels_first=False)
    assert len(model.graph.node) == len(read_onnx(path).graph.node)


def test_it_can_be_added_twice(tmp_path: Path) -> None:
    path = save_means(tmp_path / "m.onnx", size=(64, 32))
    onnx.save_model(with_intake(path), str(path))
    images = noise(2)
    model = with_intake(path, dtype="uint8", channels_first=False, batch=2)
    np.testing.assert_allclose(means(model, images), images.mean(axis=(1, 2)) / 255, rtol=1e-3)


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "pixels",
    [
        Pixels(color="bgr", scale=(1, 1, 1)),
        Pixels(mean=(127.5,) * 3, scale=(1 / 128,) * 3),
        Pixels(color="bgr", mean=(10, 20, 30), scale=(0.1, -0.2, 0.3)),
    ],
)
def test_other_pixels(tmp_path: Path, dtype: InputType, channels_first: bool, pixels: Pixels) -> None:
    path = save_means(tmp_path / "m.onnx", dtype=dtype, channels_first=channels_first, size=(64, 32))
    images = noise(2)
    channels = images.mean(axis=(1, 2))
    ordered = channels[:, ::-1] if pixels.color == "bgr" else channels
    expected = (ordered - pixels.mean) * pixels.scale
    found = means(with_intake(path, dtype=dtype, channels_first=channels_first, pixels=pixels), images)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("channels_first", [True, False])
def test_uint8_in_another_order(tmp_path: Path, channels_first: bool) -> None:
    path = save_means(tmp_path / "m.onnx", dtype="uint8", channels_first=channels_first, size=(64, 32))
    pixels, images = Pixels(color="bgr"), noise(1)
    once = with_intake(path, dtype="uint8", channels_first=channels_first, pixels=pixels)
    np.testing.assert_allclose(means(once, images), images.mean(axis=(1, 2))[:, ::-1], rtol=1e-5)
    onnx.save_model(once, str(path))
    twice = with_intake(path, dtype="uint8", channels_first=False, pixels=pixels)
    np.testing.assert_allclose(means(twice, images), images.mean(axis=(1, 2)), rtol=1e-5)
