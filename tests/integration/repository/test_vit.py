"""A vision transformer as Hugging Face exports it: one Python function in the server, two steps, and in this process.

The functions and the steps are those of configs/vit, with a small network of random weights in place of a real one.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput
from typer.testing import CliRunner

from streamproc.cli.models import models
from streamproc.config import EngineConfig, PixelsConfig, SecondaryConfig
from streamproc.engines.factory import open_engine
from streamproc.errors import ModelError
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.secondary import WantedHead, recognise_secondary
from streamproc.repository.build import build
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from streamproc.types import UInt8Array
from tests.triton import RunningServer, running_server
from tests.vit import CLASSES, SIZE, Weights, random_weights, save_vit, slow_logits

EXAMPLE = Path(__file__).resolve().parents[3] / "configs" / "vit"
PIXELS = PixelsConfig(mean=(127.5,) * 3, scale=(1 / 127.5,) * 3)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Path:
    """The example, with its network and the size of its pictures in place."""
    folder = tmp_path_factory.mktemp("example") / "vit"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    processor = folder / "vit_features" / "preprocessor_config.json"
    told = json.loads(processor.read_text()) | {"size": {"width": SIZE[0], "height": SIZE[1]}}
    processor.write_text(json.dumps(told))
    save_vit(folder / "vit_network" / "model.onnx", weights, all_open=True)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    """Everything that the example builds, and the network alone, taking pictures."""
    size, labels = f"{SIZE[0]}x{SIZE[1]}", ("--labels", ",".join(CLASSES))
    function = ("--inputs", "image:uint8:-1x-1x3", "--outputs")
    network = ("vit_network/model.onnx", "--backend", "python", "--head", "classifier", "--size", size, *labels)
    plain = ("--instances", "1", "--precision", "fp32", "--name")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for arguments in (
            ("--python", "vit_features:extract", *function, f"pixel_values:fp32:3x{SIZE[1]}x{SIZE[0]}"),
            (*network, *plain, "vit_network", "--no-fuse-intake", "--runtime", "onnxruntime"),
            ("--ensemble", "vit.yaml", *labels),
            ("--python", "vit_network:classify", *function, f"logits:fp32:{len(CLASSES)}", *labels),
            (*network, *plain, "pictures", "--mean", "127.5", "--scale", str(1 / 127.5)),
        ):
            done = CliRunner().invoke(models, ["build", *arguments])
            assert done.exit_code == 0, done.output
    with running_server(folder / "models") as running:
        yield running


def pictures(count: int, size: tuple[int, int] = SIZE) -> UInt8Array:
    """(count, height, width, 3) RGB: a patch of another colour on each, and noise."""
    random = np.random.default_rng(count)
    images = random.integers(0, 60, (count, size[1], size[0], 3), dtype=np.uint8)
    for image in images:
        left, top = random.integers(0, size[0] // 2), random.integers(0, size[1] // 2)
        image[top : top + size[1] // 2, left : left + size[0] // 2] += random.integers(0, 195, 3).astype(np.uint8)
    return images


def processed(images: UInt8Array) -> NDArray[np.float32]:
    """What ViTImageProcessor makes of pictures, which resizes them by Pillow."""
    resized = [np.asarray(Image.fromarray(image).resize(SIZE, Image.Resampling.BILINEAR)) for image in images]
    values = (np.stack(resized) * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)
    return values.transpose(0, 3, 1, 2)


def ask(server: RunningServer, model: str, images: UInt8Array) -> NDArray[np.float32]:
    tensor = InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    with InferenceServerClient(server.url.removeprefix("grpc://")) as client:
        logits: NDArray[np.float32] = client.infer(model, [tensor], client_timeout=30).as_numpy("logits")
    return logits


def test_the_network_computes_what_its_slow_double_does(folder: Path, weights: Weights) -> None:
    session = ort.InferenceSession(folder / "vit_network" / "model.onnx", providers=["CPUExecutionProvider"])
    values = processed(pictures(3))
    (logits,) = session.run(None, {"pixel_values": values})
    expected = slow_logits(weights, values)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.1, "pictures make a difference"


def load_features(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("features", folder / "vit_features" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", [SIZE, (128, 64), (333, 101), (20, 90), (7, 5)])
def test_pictures_are_resized_as_by_the_processor(folder: Path, size: tuple[int, int]) -> None:
    images = pictures(2, size)
    found, expected = load_features(folder).extract(images), processed(images)
    assert (found.dtype, found.shape) == (np.float32, (2, 3, SIZE[1], SIZE[0]))
    step = 2 / 255  # of one grey level: Pillow rounds twice, in an order that differs from version to version
    assert np.abs(found - expected).max() < 1.01 * step


def test_only_the_processors_own_resampling(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "vit_features", tmp_path / "vit_features")
    processor = tmp_path / "vit_features" / "preprocessor_config.json"
    processor.write_text(json.dumps(json.loads(processor.read_text()) | {"resample": 3}))
    with pytest.raises(ValueError, match="resample is 3; expected 2, bilinear"):
        load_features(tmp_path)


@pytest.mark.parametrize(("count", "size"), [(1, SIZE), (3, (333, 101)), (8, (40, 80))])
def test_one_function_and_two_steps_answer_alike(
    server: RunningServer, weights: Weights, count: int, size: tuple[int, int]
) -> None:
    images = pictures(count, size)
    function, steps = (ask(server, model, images) for model in ("classify", "vit"))
    np.testing.assert_allclose(function, steps, rtol=1e-4, atol=1e-5)
    expected = slow_logits(weights, processed(images))
    np.testing.assert_allclose(function, expected, atol=0.02)
    assert function.shape == (count, len(CLASSES))
    np.testing.assert_array_equal(function.argmax(axis=1), expected.argmax(axis=1))


async def classified(engine: EngineConfig, image: UInt8Array, **model: Any) -> list[tuple[str, float]]:
    """All labels of one picture, as a model of cameras.yaml tells them."""
    wanted = SecondaryConfig(head="classifier", size=SIZE, top=len(CLASSES), **model)
    opened = await open_engine(engine, wanted)
    labels = CLASSES if wanted.labels is not None else None
    reader = recognise_secondary(opened.info, WantedHead(kind="classifier", labels=labels, top=wanted.top))
    assert isinstance(reader, ClassifierReader)
    try:
        async with opened.lease() as slot:
            slot.images[0] = image
            return list(reader.read(await opened.infer(slot, 1), 0).labels)
    finally:
        await opened.close()


async def test_cameras_get_the_same_labels_every_way(folder: Path, server: RunningServer, weights: Weights) -> None:
    (image,) = pictures(1)
    logits = slow_logits(weights, processed(image[None]))[0]
    order = np.argsort(-logits)
    exponents = np.exp(logits - logits.max())
    path = folder / "vit_network" / "model.onnx"
    local = (EngineConfig(kind="onnxruntime"), EngineConfig(kind="openvino", precision="fp32"))
    ways: dict[str, list[tuple[str, float]]] = {
        one.kind: await classified(one, image, path=path, pixels=PIXELS, labels=CLASSES) for one in local
    }
    triton = EngineConfig(kind="triton", url=server.url)
    ways |= {name: await classified(triton, image, name=name) for name in ("vit", "classify", "pictures")}
    for way, labels in ways.items():
        assert [label for label, _ in labels] == [CLASSES[number] for number in order], way
        shares = [share for _, share in labels]
        np.testing.assert_allclose(shares, (exponents / exponents.sum())[order], atol=1e-3, err_msg=way)


async def test_a_model_that_takes_tensors_says_so(
    folder: Path, server: RunningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = inspect(folder / "models" / "vit_network")
    assert (found.head, found.inputs[0].name, found.inputs[0].dtype) == ("classifier", "pixel_values", "float32")
    assert "it takes float32 tensors, not uint8 pictures: streamproc fills them with red" in str(found)
    assert "tensors" not in str(inspect(folder / "models" / "pictures"))
    with caplog.at_level("INFO"):
        await classified(EngineConfig(kind="triton", url=server.url), pictures(1)[0], name="vit_network")
    assert "model vit_network takes float32 tensors, not pictures" in caplog.text
    source = folder / "vit_network" / "model.onnx"
    options: dict[str, Any] = {"repository": tmp_path / "models", "head": "embedding"}
    built = build(source, BuildOptions(**options, size=SIZE, fuse_intake=False))
    assert "note: it takes float32 tensors, pixel_values: what sends them, or a model in front" in str(built)
    with pytest.raises(ModelError, match=r"cannot run it on float32 \(1, 3, 640, 640\).*Leave the size out or correct"):
        build(source, BuildOptions(**options, name="other"))
