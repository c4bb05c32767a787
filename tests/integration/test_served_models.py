"""The models that Triton's Python backend runs, in a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from streamproc.errors import EngineError
from tests.tiny_models import save, save_means
from tests.triton import RunningServer, add_model, running_server, tiny_repository


def config(
    *, image: str, dims: str, batch: int = 4, output: str = "means", given: str = "3", parameters: str = ""
) -> str:
    return f"""
    max_batch_size: {batch}
    input [{{ name: "images" data_type: {image} dims: [{dims}] }}]
    output [{{ name: "{output}" data_type: TYPE_FP32 dims: [{given}] }}]
    instance_group [{{ kind: KIND_CPU count: 1 }}]
    {parameters}
    """


FP32 = 'parameters { key: "precision" value { string_value: "fp32" } }'
RUNTIMES = ("openvino", "onnxruntime")


def save_flexible(path: Path) -> None:
    """(batch, 3) of uint8 pictures by way of a dimension that is open for every reader of the graph: NonZero's."""
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["flat"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["flat", "one"], ["positive"]),
        helper.make_node("NonZero", ["positive"], ["places"]),
        helper.make_node("Transpose", ["places"], ["rows"]),
        helper.make_node("GatherND", ["flat", "rows"], ["values"]),
        helper.make_node("Reshape", ["values", "shape"], ["means"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "one": np.ones(1, dtype=np.float32),
        "shape": np.array([-1, 3], dtype=np.int64),
    }
    save(path, nodes, {"pictures": ("uint8", (1, 32, 64, 3))}, {"means": ("batch", 3)}, constants)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The models of the contract, and others named by what they take."""
    folder = tiny_repository(tmp_path_factory.mktemp("models"))
    size = (64, 32)
    for runtime in RUNTIMES:

        def add(name: str, text: str, runtime: str = runtime) -> Path:
            return add_model(folder, f"{runtime}-{name}", text, runtime=runtime)

        save_means(add("own-fp32", config(image="TYPE_FP32", dims="3,32,64", parameters=FP32)), size=size)
        save_means(
            add("own-fp16", config(image="TYPE_FP16", dims="3,32,64", parameters=FP32)), dtype="float16", size=size
        )
        save_means(
            add("own-uint8", config(image="TYPE_UINT8", dims="32,64,3", parameters=FP32)),
            dtype="uint8",
            channels_first=False,
            size=size,
        )
        save_means(
            add("batch-of-2", config(image="TYPE_UINT8", dims="32,64,3", batch=3, parameters=FP32)),
            dtype="uint8",
            channels_first=False,
            batch=2,
            size=size,
        )
        save_means(
            add("no-batching", config(image="TYPE_FP32", dims="2,3,32,64", batch=0, given="2,3", parameters=FP32)),
            batch=2,
            size=size,
        )
        save_flexible(add("flexible", config(image="TYPE_UINT8", dims="32,64,3", batch=2, parameters=FP32)))
    save_means(
        add_model(
            folder,
            "any-size",
            config(image="TYPE_UINT8", dims="32,64,3", parameters=FP32),
            runtime="openvino",
        ),
        dtype="float16",
        size=("width", "height"),
    )
    with running_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url.removeprefix("grpc://")) as connected:
        yield connected


def ask(client: InferenceServerClient, model: str, images: NDArray[Any], output: str = "means") -> NDArray[Any]:
    tensor = InferInput("images", list(images.shape), np_to_triton_dtype(images.dtype))
    tensor.set_data_from_numpy(images)
    values: NDArray[Any] = client.infer(model, [tensor]).as_numpy(output)
    return values


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 32, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_uint8_pictures_for_a_model_of_floats(client: InferenceServerClient, count: int) -> None:
    images = pictures(count)
    expected = images.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(ask(client, "means", images), expected, rtol=1e-5)
    np.testing.assert_allclose(ask(client, "any-size", images), expected, rtol=2e-3)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [1, 3])
def test_a_model_with_its_own_input(client: InferenceServerClient, runtime: str, count: int) -> None:
    images = pictures(count)
    floats = images.transpose(0, 3, 1, 2) / np.float32(255)
    expected = images.mean(axis=(1, 2))
    np.testing.assert_allclose(ask(client, f"{runtime}-own-uint8", images), expected, rtol=1e-5)
    np.testing.assert_allclose(ask(client, f"{runtime}-own-fp32", floats), expected / 255, rtol=1e-5)
    halves = ask(client, f"{runtime}-own-fp16", floats.astype(np.float16))
    np.testing.assert_allclose(halves, expected / 255, rtol=2e-3)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_fixed_batch_is_filled_up(client: InferenceServerClient, runtime: str, count: int) -> None:
    images = pictures(count)
    expected = images.mean(axis=(1, 2))
    np.testing.assert_allclose(ask(client, f"{runtime}-batch-of-2", images), expected, rtol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_whose_dims_hold_the_batch(client: InferenceServerClient, runtime: str) -> None:
    images = pictures(2)
    floats = images.transpose(0, 3, 1, 2) / np.float32(255)
    expected = images.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(ask(client, f"{runtime}-no-batching", floats), expected, rtol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [1, 2])
def test_an_output_that_the_graph_leaves_open(client: InferenceServerClient, runtime: str, count: int) -> None:
    images = pictures(count)
    np.testing.assert_allclose(ask(client, f"{runtime}-flexible", images), images.mean(axis=(1, 2)), rtol=1e-5)


def test_a_failed_request_is_answered_and_the_model_goes_on(client: InferenceServerClient) -> None:
    black = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    for _ in range(3):
        with pytest.raises(InferenceServerException, match="ONNX Runtime failed: "):
            ask(client, "fragile", black + np.uint8(7), "mean")
        assert ask(client, "fragile", black, "mean") == 0


@pytest.mark.parametrize(
    ("runtime", "text", "said"),
    [
        (
            "onnxruntime",
            config(image="TYPE_UINT8", dims="32,64,3"),
            r"the model takes tensor\(float\), config.pbtxt de",
        ),
        (
            "onnxruntime",
            config(image="TYPE_FP32", dims="3,32,64", parameters=FP32.replace("fp32", "bf16")),
            "ONNX Runtime computes in the model's own types",
        ),
        (
            "openvino",
            config(image="TYPE_FP32", dims="3,32,64", parameters=FP32.replace("fp32", "int3")),
            "parameter precision: found int3; expected auto, fp32 or bf16",
        ),
    ],
)
def test_a_configuration_that_cannot_be_served(tmp_path: Path, runtime: str, text: str, said: str) -> None:
    save_means(add_model(tmp_path, "wrong", text, runtime=runtime), size=(64, 32))
    with pytest.raises(EngineError, match=said), running_server(tmp_path):
        pass


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_file_that_is_not_there(tmp_path: Path, runtime: str) -> None:
    add_model(tmp_path, "empty", config(image="TYPE_FP32", dims="3,32,64"), runtime=runtime)
    with pytest.raises(EngineError, match=r"model\.onnx"), running_server(tmp_path):
        pass
