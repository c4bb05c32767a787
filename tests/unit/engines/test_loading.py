"""Opening models in the real engines: what goes in, files that cannot be read, devices that are not there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import openvino
import pytest
from onnx import helper

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import TensorInfo
from streamproc.engines.factory import open_engine
from streamproc.engines.intake import cannot_run, plan_intake
from streamproc.engines.onnxruntime import OnnxRuntimeEngine
from streamproc.engines.openvino import OpenVinoEngine
from streamproc.errors import DependencyError, EngineError, ModelError
from tests.engines import open_model
from tests.tiny_models import InputType, Side, save, save_constant, save_means
from tests.unit.repository.detectors import save_detector

Kind: TypeAlias = type[OpenVinoEngine] | type[OnnxRuntimeEngine]

both = pytest.mark.parametrize("kind", [OpenVinoEngine, OnnxRuntimeEngine])


async def means_of(kind: Kind, path: Path, images: np.ndarray, **options: Any) -> np.ndarray:
    """(n, 3): what the model of means says of some pictures, in one batch."""
    engine = await open_model(kind, path, name="means", precision="fp32", **options)
    try:
        async with engine.lease() as slot:
            slot.images[: len(images)] = images
            outputs = await engine.infer(slot, len(images))
            return outputs["means"].copy()
    finally:
        await engine.close()


def noise(count: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@both
@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
async def test_a_model_sees_rgb_in_its_own_type_and_order(
    tmp_path: Path, kind: Kind, channels_first: bool, dtype: InputType
) -> None:
    path = save_means(tmp_path / "m.onnx", dtype=dtype, channels_first=channels_first, size=(64, 32))
    images = noise(1, 64, 32)
    expected = images.mean(axis=(1, 2)) / (1 if dtype == "uint8" else 255)
    np.testing.assert_allclose(await means_of(kind, path, images), expected, rtol=1e-3)


@both
@pytest.mark.parametrize(("batch", "options"), [(4, {}), ("batch", {"max_batch": 4})])
async def test_batches(tmp_path: Path, kind: Kind, batch: Side, options: dict[str, Any]) -> None:
    path = save_means(tmp_path / "m.onnx", batch=batch)
    for count in (1, 3, 4):
        images = noise(count, 32, 32)
        np.testing.assert_allclose(
            await means_of(kind, path, images, **options), images.mean(axis=(1, 2)) / 255, rtol=1e-3
        )


@both
async def test_open_sizes(tmp_path: Path, kind: Kind) -> None:
    path = save_means(tmp_path / "m.onnx", size=("width", "height"))
    images = noise(1, 96, 64)
    found = await means_of(kind, path, images, size=(96, 64))
    np.testing.assert_allclose(found, images.mean(axis=(1, 2)) / 255, rtol=1e-3)


@both
async def test_automatic_batch_on_a_processor_is_one(tmp_path: Path, kind: Kind) -> None:
    engine = await open_model(kind, save_means(tmp_path / "m.onnx"), name="m", device="cpu", threads=1)
    assert engine.max_batch == 1
    assert engine.info.inputs[0].shape == (-1, 3, 32, 32)
    await engine.close()


@both
async def test_weights_outside_the_file(tmp_path: Path, kind: Kind) -> None:
    path = save_means(tmp_path / "m.onnx", external_data=True)
    images = noise(1, 32, 32)
    np.testing.assert_allclose(await means_of(kind, path, images), images.mean(axis=(1, 2)) / 255, rtol=1e-3)


def damaged(folder: Path) -> Path:
    path = save_means(folder / "cut.onnx")
    path.write_bytes(path.read_bytes()[:200])
    return path


def foreign(folder: Path) -> Path:
    path = folder / "foreign.onnx"
    path.write_text("PK not a model")
    return path


def empty(folder: Path) -> Path:
    path = folder / "empty.onnx"
    path.touch()
    return path


def absent(folder: Path) -> Path:
    return folder / "absent.onnx"


def checkpoint(folder: Path) -> Path:
    return folder / "yolo.pt"


def without_weights(folder: Path) -> Path:
    path = save_means(folder / "weightless.onnx", external_data=True)
    for other in folder.iterdir():
        if other != path:
            other.unlink()
    return path


@both
@pytest.mark.parametrize("make", [damaged, foreign, empty, absent, checkpoint, without_weights])
async def test_files_that_cannot_be_read(tmp_path: Path, kind: Kind, make: Any) -> None:
    path = make(tmp_path)
    with pytest.raises(ModelError) as caught:
        await open_model(kind, path, name="m")
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700


async def test_openvino_ir_without_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    openvino.save_model(openvino.Core().read_model(save_means(tmp_path / "m.onnx")), path)
    images = noise(1, 32, 32)
    expected = images.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(await means_of(OpenVinoEngine, path, images), expected, rtol=1e-3)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"its weights, m\.bin, are not beside it"):
        await open_model(OpenVinoEngine, path, name="m")


async def test_onnxruntime_reads_onnx_only(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected \.onnx"):
        await open_model(OnnxRuntimeEngine, tmp_path / "m.xml", name="m")


@both
async def test_two_inputs_are_refused(tmp_path: Path, kind: Kind) -> None:
    shape = (1, 3, 32, 32)
    add = helper.make_node("Add", ["a", "b"], ["sum"])
    path = save(tmp_path / "two.onnx", [add], {"a": ("float32", shape), "b": ("float32", shape)}, {"sum": shape})
    with pytest.raises(ModelError, match=r"its inputs are a float32 .*, b float32 .*; expected one picture tensor"):
        await open_model(kind, path, name="two")


@both
async def test_an_output_without_a_row_a_picture_is_refused(tmp_path: Path, kind: Kind) -> None:
    path = save_constant(tmp_path / "m.onnx", (7, 6), batch="batch")
    with pytest.raises(ModelError, match=r"output output has shape \(7, 6\)"):
        await open_model(kind, path, name="m")


@both
async def test_a_model_for_one_picture_may_leave_the_row_out(tmp_path: Path, kind: Kind) -> None:
    engine = await open_model(kind, save_constant(tmp_path / "m.onnx", (7, 6)), name="m")
    assert engine.info.outputs[0].shape == (1, 7, 6)
    async with engine.lease() as slot:
        assert (await engine.infer(slot, 1))["output"].shape == (1, 7, 6)
    await engine.close()


@both
async def test_an_unknown_operator_is_the_models_fault(tmp_path: Path, kind: Kind) -> None:
    shape = (1, 3, 32, 32)
    node = helper.make_node("Sorcery", ["pictures"], ["output"], domain="nobody.knows")
    path = save(tmp_path / "m.onnx", [node], {"pictures": ("float32", shape)}, {"output": shape})
    with pytest.raises(ModelError, match="Sorcery") as caught:
        await open_model(kind, path, name="m")
    assert str(path) in str(caught.value)


def test_a_failing_device_is_not_the_models_fault() -> None:
    path = Path("m.onnx")
    pictures = TensorInfo(name="pictures", dtype="float32", shape=(1, 3, 32, 64))
    intake = plan_intake("m", [pictures], max_batch=1, auto_batch=1, size=None)
    assert isinstance(cannot_run("m", path, "OpenVINO", "CPU", intake, "no such operator"), ModelError)
    on_gpu = cannot_run("m", path, "OpenVINO", "GPU.1", intake, "out of memory.")
    assert isinstance(on_gpu, EngineError)
    assert str(on_gpu).startswith("model m (m.onnx): OpenVINO cannot run it on GPU.1 at 64x32: out of memory. Try")


@both
async def test_a_device_that_is_not_there(tmp_path: Path, kind: Kind) -> None:
    path = save_means(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"engine\.device: .*no TPU.*it has .*CPU"):
        await open_model(kind, path, name="m", device="TPU")


async def test_bf16_is_for_openvino(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"engine\.precision: bf16"):
        await open_model(OnnxRuntimeEngine, save_means(tmp_path / "m.onnx"), name="m", precision="bf16")


class _OldProcessor:
    """What is asked of ``openvino.Core`` about the device, answered for one without bf16."""

    available_devices = ("CPU",)

    def get_property(self, device: str, key: str) -> object:
        return {"OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"], "FULL_DEVICE_NAME": "old one"}[key]

    def read_model(self, path: Path) -> object:
        raise RuntimeError("not reached")


async def test_bf16_where_the_processor_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "Core", _OldProcessor)
    with pytest.raises(EngineError, match=r"bf16 asked for, but CPU \(old one\) does not compute in it"):
        await open_model(OpenVinoEngine, save_means(tmp_path / "m.onnx"), name="m", precision="bf16")


@pytest.mark.parametrize(("kind", "package"), [("openvino", "openvino"), ("onnxruntime", "onnx")])
async def test_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    rooms = (f"streamproc.engines.{kind}", "streamproc.graphs.")
    for loaded in [name for name in sys.modules if name.startswith(rooms)]:
        monkeypatch.delitem(sys.modules, loaded)
    engine, model = EngineConfig(kind=kind), ModelConfig(path=save_means(tmp_path / "m.onnx"))
    with pytest.raises(DependencyError, match=rf"package {package}.*pip install 'streamproc\[{kind}\]'"):
        await open_engine(engine, model)


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
async def test_the_factory_opens_what_is_configured(tmp_path: Path, kind: Any) -> None:
    path = save_means(tmp_path / "means.onnx", size=("w", "h"))
    engine = await open_engine(EngineConfig(kind=kind, max_batch=2), ModelConfig(path=path, name="mine", size=(64, 32)))
    try:
        assert engine.description["kind"] == kind
        assert (engine.info.name, engine.info.size, engine.max_batch) == ("mine", (64, 32), 2)
    finally:
        await engine.close()


async def test_loading_leaves_the_loop_free(tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    engine = await open_model(OpenVinoEngine, save_means(tmp_path / "m.onnx"), name="m")
    ticking.cancel()
    assert ticks > 10
    await engine.close()


@both
@pytest.mark.parametrize("told", [True, False])
async def test_yolox_is_known_by_its_outputs(tmp_path: Path, kind: Kind, told: bool) -> None:
    """Also where the file leaves their shapes open; it gets its values from 0 to 255."""
    path = save_detector(tmp_path / "m.onnx", layout="grid")
    if not told:
        model = onnx.load(path)
        for side, name in zip(model.graph.output[0].type.tensor_type.shape.dim, ("n", "cells", "columns"), strict=True):
            side.dim_param = name
        onnx.save_model(model, path)
    engine = await open_model(kind, path, name="m", precision="fp32")
    try:
        assert engine.info.fit == "top_left"
        async with engine.lease() as slot:
            outputs = []
            for value in (0, 200):
                slot.images[:] = value
                outputs.append((await engine.infer(slot, 1))["output0"][0, 0, 5].item())
    finally:
        await engine.close()
    assert outputs == pytest.approx([0, 200 * 1.2 / 255], rel=1e-3)
