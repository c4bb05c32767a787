"""Where a request's tensors lie, on a GPU that is none as well, and what is read out of an answer."""

from __future__ import annotations

import base64
import mmap
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from streamproc.engines.base import Pixels, TensorInfo
from streamproc.engines.cuda import CudaDriver
from streamproc.engines.intake import Intake
from streamproc.engines.shared_memory import RegionError
from streamproc.engines.triton.buffers import Buffers, Transport, cuda_name
from streamproc.engines.triton.served import Served
from tests.fake_cuda import FakeCuda

SLOTS = 3
OUTPUTS = (
    TensorInfo(name="boxes", dtype="float32", shape=(1, 5, 4)),
    TensorInfo(name="counts", dtype="int64", shape=(1,)),
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A GPU's driver in place of this machine's, which notices everything that is not as it should be."""
    fake = FakeCuda()
    monkeypatch.setattr(CudaDriver, "load", lambda: CudaDriver(fake))
    yield fake
    fake.check()


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"streamproc-{os.getpid()}-")]


def served(
    dtype: Literal["float32", "float16", "uint8"] = "uint8", *, first: bool = False, open_batch: bool = True
) -> Served:
    intake = Intake(
        tensor="images", dtype=dtype, channels_first=first, size=(64, 32), max_batch=4, open_batch=open_batch
    )
    shape = (-1, 3, 32, 64) if first else (-1, 32, 64, 3)
    return Served(
        intake=intake,
        inputs=(TensorInfo(name="images", dtype=dtype, shape=shape),),
        outputs=OUTPUTS,
        instances=1,
        on_gpu=False,
        backend="python",
        metadata={},
    )


def make(transport: Transport, model: Served | None = None) -> Buffers:
    return Buffers(
        model or served(),
        OUTPUTS,
        slots=SLOTS,
        transport=transport,
        model="yolo",
        version="2",
        priority=3,
        timeout_s=1.5,
    )


def place(parameters: object) -> tuple[str, int, int]:
    """(region, offset, bytes)"""
    given = {key: value for key, value in parameters.items()}  # type: ignore[attr-defined]  # noqa: C416 - no mapping
    offset = given["shared_memory_offset"].int64_param if "shared_memory_offset" in given else 0
    return given["shared_memory_region"].string_param, offset, given["shared_memory_byte_size"].int64_param


def answer(rows: int = 2, **changes: object) -> service_pb2.ModelInferResponse:
    told = {"names": ("boxes", "counts"), "boxes": [rows, 5, 4], "type": "FP32"} | changes
    response = service_pb2.ModelInferResponse()
    for name in told["names"]:  # type: ignore[attr-defined]
        shape = told["boxes"] if name == "boxes" else [rows]
        datatype = told["type"] if name == "boxes" else "INT64"
        response.outputs.add(name=name, datatype=datatype, shape=shape)
    return response


@pytest.mark.parametrize("transport", ["system", "none", "cuda"])
def test_a_request_says_what_is_asked(transport: Transport, gpu: FakeCuda) -> None:
    buffers = make(transport)
    for sent in (transport, "none"):
        request = buffers.request(buffers.slots[1], 3, sent)
        assert (request.model_name, request.model_version) == ("yolo", "2")
        assert request.parameters["priority"].uint64_param == 3
        assert request.parameters["timeout"].int64_param == 1_500_000
        (tensor,) = request.inputs
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("images", "UINT8", [3, 32, 64, 3])
    buffers.close()


def test_every_tensor_has_pages_of_its_own(gpu: FakeCuda) -> None:
    for transport in ("system", "cuda"):
        buffers = make(transport)
        taken: list[tuple[str, int, int]] = []
        for slot in buffers.slots:
            request = buffers.request(slot, 4, transport)
            places = [place(part.parameters) for part in (*request.inputs, *request.outputs)]
            assert [size for _, _, size in places] == [4 * 32 * 64 * 3, 4 * 80, 4 * 8]
            taken += places
        assert buffers.system is not None
        sizes = {buffers.system.name: buffers.system.size}
        if buffers.cuda is not None:
            sizes[cuda_name(buffers.system.name)] = buffers.cuda.size
            assert [region for region, *_ in taken][::3] == [cuda_name(buffers.system.name)] * SLOTS
        for region in sizes:
            mine = sorted((offset, size) for name, offset, size in taken if name == region)
            assert all(offset % mmap.PAGESIZE == 0 for offset, _ in mine)
            ends = [offset + size for offset, size in mine]
            starts = [offset for offset, _ in mine[1:]] + [sizes[region]]
            assert all(end <= start for end, start in zip(ends, starts, strict=True))
        buffers.close()


def test_a_prepared_request_is_used_again() -> None:
    buffers = make("system")
    one, other = buffers.slots[:2]
    assert buffers.request(one, 2, "system") is buffers.request(one, 2, "system")
    assert buffers.request(one, 2, "system") is not buffers.request(one, 3, "system")
    assert buffers.request(one, 2, "system") is not buffers.request(other, 2, "system")
    buffers.close()


def test_an_inline_request_carries_its_rows(gpu: FakeCuda) -> None:
    for transport in ("system", "none", "cuda"):
        buffers = make(transport)
        slot = buffers.slots[2]
        slot.images[:] = np.arange(slot.images.size).reshape(slot.images.shape) % 251
        request = buffers.request(slot, 2, "none")
        assert list(request.raw_input_contents) == [slot.images[:2].tobytes()]
        assert not request.outputs
        assert not request.inputs[0].parameters
        buffers.close()


def test_what_is_filled_is_on_the_gpu_before_the_request(gpu: FakeCuda) -> None:
    buffers = make("cuda")
    assert buffers.must_fill
    assert buffers.cuda is not None
    handle = base64.b64decode(buffers.cuda.raw_handle)
    for number, slot in enumerate(buffers.slots):
        slot.images[:] = np.random.default_rng(number).integers(0, 256, slot.images.shape)
        buffers.fill(slot, 3)
    for slot in buffers.slots:
        _, offset, size = place(buffers.request(slot, 3, "cuda").inputs[0].parameters)
        assert size == 3 * 32 * 64 * 3
        assert gpu.device_bytes(handle, offset, size) == slot.images[:3].tobytes()
        assert gpu.device_bytes(handle, offset + size, size // 3) != slot.images[3].tobytes(), "no more than asked"
    buffers.close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("transport", ["system", "none", "cuda"])
def test_the_tensor_that_the_model_wants(
    dtype: Literal["float32", "float16", "uint8"], first: bool, transport: Transport, gpu: FakeCuda
) -> None:
    buffers = make(transport, served(dtype, first=first))
    slot = buffers.slots[0]
    slot.images[:] = np.random.default_rng(3).integers(0, 256, slot.images.shape)
    assert buffers.must_fill == (transport == "cuda" or first or dtype != "uint8")
    if buffers.must_fill:
        buffers.fill(slot, 4)
    wanted = slot.images.transpose(0, 3, 1, 2) if first else slot.images
    if dtype == "uint8":
        np.testing.assert_array_equal(slot.tensor, wanted)
    else:
        exact = wanted.astype(np.float64) / 255
        np.testing.assert_allclose(slot.tensor, exact, atol=float(np.finfo(dtype).eps))
    assert slot.tensor.dtype == np.dtype(dtype)
    request = buffers.request(slot, 1, transport)
    assert list(request.inputs[0].shape) == ([1, 3, 32, 64] if first else [1, 32, 64, 3])
    buffers.close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "pixels",
    [
        Pixels(color="bgr", scale=(1, 1, 1)),
        Pixels(mean=(127.5,) * 3, scale=(1 / 128,) * 3),
        Pixels(color="bgr", mean=(104, 117, 123), scale=(0.5, 0.25, -0.125)),
    ],
)
def test_the_pixels_that_the_model_wants(
    dtype: Literal["float32", "float16", "uint8"], first: bool, pixels: Pixels
) -> None:
    plain = served(dtype, first=first)
    buffers = make("none", replace(plain, intake=replace(plain.intake, pixels=pixels)))
    slot = buffers.slots[0]
    slot.images[:] = np.random.default_rng(3).integers(0, 256, slot.images.shape)
    assert buffers.must_fill == (first or dtype != "uint8" or pixels.color == "bgr")
    if buffers.must_fill:
        buffers.fill(slot, 4)
    wanted = (slot.images[..., ::-1] if pixels.color == "bgr" else slot.images).astype(np.float64)
    if dtype != "uint8":
        wanted = (wanted - pixels.mean) * pixels.scale
    tolerance = 1e-3 if dtype == "float16" else 1e-5
    expected = wanted.transpose(0, 3, 1, 2) if first else wanted
    np.testing.assert_allclose(slot.tensor, expected, rtol=tolerance, atol=tolerance)
    buffers.close()


def test_a_model_of_a_fixed_batch_gets_all_of_it() -> None:
    buffers = make("system", served(open_batch=False))
    request = buffers.request(buffers.slots[0], 1, "system")
    assert list(request.inputs[0].shape) == [4, 32, 64, 3]
    outputs = buffers.read(buffers.slots[0], 1, request, answer(4))
    assert outputs["boxes"].shape == (1, 5, 4)
    buffers.close()


def test_outputs_are_read_where_the_server_wrote_them(gpu: FakeCuda) -> None:
    for transport in ("system", "cuda"):
        buffers = make(transport)
        slot = buffers.slots[1]
        request = buffers.request(slot, 2, transport)
        assert buffers.system is not None
        values = np.arange(40, dtype=np.float32).reshape(2, 5, 4)
        _, offset, _ = place(request.outputs[0].parameters)
        buffers.system.array(offset, values.shape, np.float32)[:] = values  # the server's part
        outputs = buffers.read(slot, 2, request, answer())
        np.testing.assert_array_equal(outputs["boxes"], values)
        assert outputs["counts"].shape == (2,)
        del outputs
        buffers.close()


def test_outputs_that_outgrew_their_place_are_read_from_the_answer() -> None:
    buffers = make("system")
    slot = buffers.slots[0]
    before = [buffers.request(one, 2, "system") for one in buffers.slots[:2]]
    assert all(buffers.outgrown(request) for request in before), "both were under way"
    request = buffers.request(slot, 2, "system")
    assert [output.name for output in request.outputs] == ["boxes", "counts"]
    assert not [output for output in request.outputs if output.parameters]
    given = answer(boxes=[2, 9, 4])
    values = np.arange(72, dtype=np.float32).reshape(2, 9, 4)
    given.raw_output_contents.extend([values.tobytes(), np.array([7, 8]).tobytes()])
    outputs = buffers.read(slot, 2, request, given)
    np.testing.assert_array_equal(outputs["boxes"], values)
    np.testing.assert_array_equal(outputs["counts"], [7, 8])
    assert not buffers.outgrown(request), "that is how they come already"
    buffers.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (answer(names=("boxes",)), r"its answer lacks the output counts"),
        (answer(type="FP16"), r"its output boxes is FP16 \(2, 5, 4\); expected FP32 \(2, 5, 4\)"),
        (answer(1), r"its output boxes is FP32 \(1, 5, 4\); expected FP32 \(2, 5, 4\)"),
        (answer(boxes=[]), r"its output boxes is FP32 \(\); expected FP32 \(2, 5, 4\)"),
        (answer(boxes=[2, 1 << 20, 4]), r"do not lie within a shared memory region"),
    ],
)
def test_an_answer_that_cannot_be_read(given: service_pb2.ModelInferResponse, said: str) -> None:
    buffers = make("system")
    request = buffers.request(buffers.slots[0], 2, "system")
    with pytest.raises(ValueError, match=said):
        buffers.read(buffers.slots[0], 2, request, given)
    buffers.close()


def test_a_gpu_without_room_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda(memory=1 << 20)
    monkeypatch.setattr(CudaDriver, "load", lambda: CudaDriver(fake))
    with pytest.raises(RegionError, match=r"CUDA shared memory, 2 MiB on GPU 0: .*CUDA_ERROR_OUT_OF_MEMORY"):
        make("cuda")
    fake.check()


def test_a_full_shared_memory_gives_the_gpus_back(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_size: int) -> None:
        raise RegionError("no room")

    monkeypatch.setattr("streamproc.engines.triton.buffers.SystemRegion.create", full)
    with pytest.raises(RegionError, match="no room"):
        make("cuda")
