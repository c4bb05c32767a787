"""What an engine makes of a server and its model when it opens, and what it says of those that will not do."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines import shared_memory
from streamproc.engines.cuda import CudaDriver
from streamproc.engines.shared_memory import RegionError
from streamproc.engines.triton import TritonEngine
from streamproc.errors import EngineAwayError, EngineError, ModelError
from tests.fake_cuda import FakeCuda
from tests.integration.engines.scripted import HOLD, add_scripted, client, means_of, open_engine, our_regions, paint
from tests.tiny_models import InputType, save_means
from tests.triton import RunningServer, add_model, running_server

ROWS = 'name: "rows" data_type: TYPE_FP32 dims: [-1, 3]'
REJECT = """
dynamic_batching {
  max_queue_delay_microseconds: 100
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 200000 max_queue_size: 2 }
}
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file whose being there lets models answer."""
    return tmp_path_factory.mktemp("gates") / "open"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, gate: Path) -> Path:
    folder = tmp_path_factory.mktemp("models")
    add_scripted(folder)
    add_scripted(folder, "growing", output=ROWS)
    add_scripted(folder, "queued", extra=REJECT, gate=gate)
    for name, dtype, triton_type, dims, first in (
        ("own_fp32", "float32", "TYPE_FP32", "3, 32, 64", True),
        ("own_fp16", "float16", "TYPE_FP16", "3, 32, 64", True),
        ("own_uint8", "uint8", "TYPE_UINT8", "3, 32, 64", True),
        ("own_fp32_last", "float32", "TYPE_FP32", "32, 64, 3", False),
    ):
        config = f"""
            max_batch_size: 4
            input [{{ name: "images" data_type: {triton_type} dims: [{dims}] }}]
            output [{{ name: "means" data_type: TYPE_FP32 dims: [3] }}]
            instance_group [{{ kind: KIND_CPU count: 1 }}]
            """
        path = add_model(folder, name, config, runtime="onnxruntime")
        save_means(path, dtype=cast_type(dtype), channels_first=first, size=(64, 32))
    return folder


def cast_type(name: str) -> InputType:
    kinds: dict[str, InputType] = {"float32": "float32", "float16": "float16", "uint8": "uint8"}
    return kinds[name]


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[RunningServer]:
    with running_server(repository) as running:
        yield running


def refused(server: RunningServer | None, *, url: str = "", model: str = "scripted", **settings: Any) -> str:
    """What an engine that cannot be opened says."""
    config = EngineConfig(
        kind="triton", url=url or (server.url if server else ""), **{"ready_timeout_s": 0.5} | settings
    )
    with pytest.raises((EngineError, ModelError)) as refusal:
        asyncio.run(
            TritonEngine.open(
                config, ModelConfig(name=model.partition(":")[0], version=int(model.partition(":")[2] or 0) or None)
            )
        )
    return str(refusal.value)


@pytest.mark.parametrize(
    ("model", "kind", "scale"),
    [
        ("own_fp32", np.float32, 255),
        ("own_fp32_last", np.float32, 255),
        ("own_fp16", np.float16, 255),
        ("own_uint8", np.uint8, 1),
    ],
)
@pytest.mark.parametrize("transport", ["system", "none"])
async def test_a_model_with_its_own_input_answers_as_a_fused_one(
    server: RunningServer, model: str, kind: type, scale: int, transport: str
) -> None:
    fused = await open_engine(server, shared_memory=transport)
    own = await open_engine(server, model=model, shared_memory=transport)
    try:
        assert own.info.inputs[0].dtype == np.dtype(kind).name
        async with fused.lease() as one, own.lease() as other:
            one.images[:] = np.random.default_rng(1).integers(8, 256, one.images.shape)
            other.images[:] = one.images
            for count in (1, 4):
                expected = (await fused.infer(one, count))["means"]
                found = (await own.infer(other, count))["means"] * scale
                np.testing.assert_allclose(found, expected, atol=0.1)
    finally:
        await fused.close()
        await own.close()


@pytest.mark.parametrize("transport", ["system", "none"])
async def test_an_output_that_outgrows_its_slot_comes_within_the_answer(server: RunningServer, transport: str) -> None:
    engine = await open_engine(server, model="growing", shared_memory=transport)
    try:
        assert engine.info.outputs[0].shape == (1, 1, 3)
        for rows in (1, 250, 2):  # a page of memory holds 4096 bytes, four pictures of 85 rows
            async with engine.lease() as slot:
                for number, image in enumerate(slot.images):
                    paint(image, 50 * number)
                slot.images[0, 0, 0, 1] = rows - 1
                answer = (await engine.infer(slot, 4))["rows"]
                assert answer.shape == (4, rows, 3)
                np.testing.assert_allclose(answer[:, -1], means_of(slot.images), atol=1e-3)
    finally:
        await engine.close()


async def test_the_server_turns_away_what_waits_too_long_or_finds_the_queue_full(
    server: RunningServer, gate: Path
) -> None:
    engine = await open_engine(server, model="queued", in_flight=6)
    said: list[str] = []

    async def infer(first: int) -> None:
        async with engine.lease() as slot:
            slot.images[:] = first
            try:
                await engine.infer(slot, 4)
            except EngineAwayError as error:
                said.append(str(error))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(infer(HOLD))  # at work until the gate opens
            await asyncio.sleep(0.2)
            for _ in range(5):
                group.create_task(infer(0))
            await asyncio.sleep(0.5)
            open(gate, "x").close()  # noqa: ASYNC230 - a moment
        assert len([text for text in said if "Exceeds maximum queue size" in text]) == 3, said
        assert len([text for text in said if "Request timeout expired" in text]) == 2, said
        assert engine.available, "that is no illness"
        async with engine.lease() as slot:
            await engine.infer(slot, 1, patient=True)
    finally:
        await engine.close()


def test_a_batch_larger_than_the_model_takes(server: RunningServer) -> None:
    said = refused(server, max_batch=5)
    assert "model scripted: the server takes batches of up to 4 (max_batch_size); engine.max_batch asks for 5" in said


def test_a_model_that_the_server_does_not_have(server: RunningServer) -> None:
    said = refused(server, model="yolo")
    assert "model yolo: the server at grpc://" in said
    assert "has no such model; it has growing, own_fp16, " in said
    assert "model.name" in said


def test_a_version_that_the_server_does_not_have(server: RunningServer) -> None:
    said = refused(server, model="scripted:3")
    assert "has no version 3; it has 1. Correct model.version, or widen version_policy" in said


def test_a_model_that_failed_to_load(server: RunningServer, repository: Path) -> None:
    add_scripted(repository, "failing", refuse="the weights are missing")
    with client(server) as operator, pytest.raises(InferenceServerException, match="the weights are missing"):
        operator.load_model("failing")
    said = refused(server, model="failing")
    assert "model failing: version 1 could not be loaded by the server at grpc://" in said
    assert "the weights are missing" in said


def test_a_model_that_is_there_but_not_loaded(server: RunningServer, repository: Path) -> None:
    add_scripted(repository, "idle")
    said = refused(server, model="idle")
    assert "no Triton server was ready within 0.5 s" in said
    assert "not ready: model idle is not loaded" in said


async def test_a_model_in_loading_is_waited_for(server: RunningServer, repository: Path, tmp_path: Path) -> None:
    add_scripted(repository, "slow", load_gate=tmp_path / "load")
    with client(server) as operator:
        loading = asyncio.create_task(asyncio.to_thread(operator.load_model, "slow"))
        config = EngineConfig(kind="triton", url=server.url, ready_timeout_s=1)
        with pytest.raises(EngineError, match=r"no Triton server was ready .* model slow is LOADING"):
            await TritonEngine.open(config, ModelConfig(name="slow"))
        opening = asyncio.create_task(open_engine(server, model="slow"))
        (tmp_path / "load").touch()
        await loading
        await (await opening).close()


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        said = refused(None, url=f"grpc://127.0.0.1:{taken.getsockname()[1]}")
    assert "no Triton server was ready within 0.5 s: triton grpc://127.0.0.1:" in said
    assert "Connection refused" in said
    assert "Is the server running, is this its gRPC port, and does it want TLS (grpcs://)?" in said


def test_the_port_for_http(server: RunningServer) -> None:
    said = refused(server, url=f"grpc://127.0.0.1:{server.record.http_port}")
    assert "cannot be reached" in said
    assert "is this its gRPC port, " in said


async def test_a_server_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    with running_server(add_scripted(tmp_path)) as late:
        await asyncio.to_thread(late.kill)
        opening = asyncio.create_task(open_engine(late))
        await asyncio.to_thread(late.start)
        await (await opening).close()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("auto", "system shared memory"),
        ("system", "system shared memory"),
        ("none", "gRPC, within the requests"),
    ],
)
async def test_says_how_tensors_travel(server: RunningServer, wanted: str, words: str) -> None:
    engine = await open_engine(server, shared_memory=wanted)
    try:
        assert engine.description["transport"] == words
        assert len(our_regions(server)) == (words == "system shared memory")
    finally:
        await engine.close()
    assert our_regions(server) == []


async def test_a_segment_that_the_server_cannot_open(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where another mount namespace would have put it: somewhere the server's shm_open does not look.
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    said = await asyncio.to_thread(refused, server, shared_memory="system")
    assert "engine.shared_memory: system does not work with the server at grpc://" in said
    assert "the server cannot open our segment" in said
    assert "--ipc=host" in said
    assert "set engine.shared_memory: auto" in said
    engine = await open_engine(server)
    try:
        assert engine.description["transport"] == "gRPC, within the requests"
        assert "no system shared memory: the server cannot open our segment" in str(engine.description["because"])
        async with engine.lease() as slot:
            paint(slot.images[0], 9)
            answer = (await engine.infer(slot, 1))["means"]
            np.testing.assert_allclose(answer, means_of(slot.images[:1]), atol=1e-3)
    finally:
        await engine.close()
    assert os.listdir(tmp_path) == []


async def test_a_machine_whose_shared_memory_is_too_small(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_size: int) -> None:
        raise RegionError("system shared memory: /dev/shm is too small")

    monkeypatch.setattr("streamproc.engines.triton.buffers.SystemRegion.create", full)
    assert (
        await asyncio.to_thread(refused, server, shared_memory="system")
        == "system shared memory: /dev/shm is too small"
    )
    engine = await open_engine(server)
    await engine.close()
    assert engine.description["transport"] == "gRPC, within the requests"
    assert "no system shared memory: system shared memory: /dev/shm is too small" in str(engine.description["because"])


def test_cuda_shared_memory_without_a_gpu(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamproc.engines.cuda._LIBRARY", "libcuda-that-is-not-there.so")
    said = refused(server, shared_memory="cuda")
    assert "there is no NVIDIA driver" in said


async def test_gpu_memory_that_the_server_cannot_open(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeCuda()
    monkeypatch.setattr(CudaDriver, "load", lambda: CudaDriver(gpu))
    said = await asyncio.to_thread(refused, server, shared_memory="cuda")
    assert "engine.shared_memory: cuda does not work with the server at grpc://" in said
    assert "the server cannot open our GPU memory" in said
    assert our_regions(server) == []
    engine = await open_engine(server)
    try:
        assert engine.description["transport"] == "system shared memory"
        assert str(engine.description["because"]).startswith("no CUDA shared memory: the server cannot open our GPU")
        assert len(our_regions(server)) == 1
    finally:
        await engine.close()
    gpu.check()


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [(FakeCuda(gpus=0), "CUDA_ERROR_NO_DEVICE"), (FakeCuda(integrated=True), r"integrated \(as on Jetson\)")],
)
async def test_a_gpu_that_cannot_share(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, gpu: FakeCuda, reason: str
) -> None:
    monkeypatch.setattr(CudaDriver, "load", lambda: CudaDriver(gpu))
    engine = await open_engine(server)
    await engine.close()
    assert engine.description["transport"] == "system shared memory"
    assert re.match(f"no CUDA shared memory: .*{reason}", str(engine.description["because"]))
