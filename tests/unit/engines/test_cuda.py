"""A CUDA region keeps the driver's rules, and gives back all that it took, in order, whatever fails."""

from __future__ import annotations

import base64
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamproc.engines import cuda
from streamproc.engines.cuda import CudaDriver, CudaRegion, why_not_cuda
from streamproc.engines.shared_memory import RegionError
from tests.fake_cuda import INVALID_CONTEXT, INVALID_VALUE, NOT_INITIALIZED, OUT_OF_MEMORY, FakeCuda

MIB = 1 << 20
# What creating a region calls, in which anything may fail.
CREATION = (
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2",
    "cuMemHostRegister_v2",
    "cuMemAlloc_v2",
    "cuStreamCreate",
    "cuEventCreate",
    "cuIpcGetMemHandle",
)


@pytest.fixture
def fake() -> Iterator[FakeCuda]:
    library = FakeCuda()
    yield library
    library.check()


@pytest.fixture
def region(fake: FakeCuda) -> Iterator[CudaRegion]:
    created = CudaRegion.create(3 * MIB, driver=CudaDriver(fake))
    yield created
    created.close()


def on_device(fake: FakeCuda, region: CudaRegion, offset: int, nbytes: int) -> bytes:
    return fake.device_bytes(base64.b64decode(region.raw_handle), offset, nbytes)


def test_an_upload_is_on_the_device_when_it_returns(fake: FakeCuda, region: CudaRegion) -> None:
    staging = region.staging(4096, (2, 8), np.float32)
    staging[:] = np.arange(16).reshape(2, 8)
    assert on_device(fake, region, 4096, 64) == b"\xaa" * 64  # staging is not the device
    region.upload(4096, 64)
    assert on_device(fake, region, 4096, 64) == staging.tobytes()
    assert on_device(fake, region, 0, 4096) == b"\xaa" * 4096
    assert on_device(fake, region, 4160, 64) == b"\xaa" * 64


def test_size_and_handle_are_what_a_server_registers(region: CudaRegion) -> None:
    assert region.size == 4 * MIB  # whole blocks of 2 MiB: nothing else of this process lies in what is shared
    assert len(base64.b64decode(region.raw_handle, validate=True)) == 64
    assert region.device == 0


def test_threads_upload_side_by_side(fake: FakeCuda, region: CudaRegion) -> None:
    def send(number: int) -> None:
        for turn in range(20):
            region.staging(number * 4096, (4096,), np.uint8)[:] = number * 20 + turn
            region.upload(number * 4096, 4096)
            assert on_device(fake, region, number * 4096, 4096) == bytes([number * 20 + turn]) * 4096

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(8)))


def test_the_threads_own_context_is_left_current(fake: FakeCuda) -> None:
    driver = CudaDriver(fake)
    other = driver.retain_context(0)
    with driver.current(other):
        created = CudaRegion.create(1, driver=driver)
        created.upload(0, 1)
        created.close()
        assert fake.current_contexts() == [other]
    driver.release_context(0)


def test_a_range_must_lie_within_an_open_region(region: CudaRegion) -> None:
    for offset, nbytes in ((region.size - 1, 2), (-1, 1)):
        with pytest.raises(ValueError, match=f"{nbytes} bytes at offset {offset} do not lie within"):
            region.upload(offset, nbytes)
        with pytest.raises(ValueError, match="do not lie within"):
            region.staging(offset, (nbytes,), np.uint8)
    region.close()
    with pytest.raises(ValueError, match="closed"):
        region.upload(0, 1)
    with pytest.raises(ValueError, match="closed"):
        region.staging(0, (1,), np.uint8)


def test_views_outlive_the_region(region: CudaRegion) -> None:
    view = region.staging(0, (4,), np.uint8)
    region.close()
    region.close()
    view[:] = 9
    assert view.tolist() == [9, 9, 9, 9]


def test_everything_ends_before_what_it_rests_on(fake: FakeCuda, region: CudaRegion) -> None:
    fake.calls.clear()
    region.close()
    assert [name for name in fake.calls if "CtxP" not in name] == [
        "cuStreamSynchronize",
        "cuEventDestroy_v2",
        "cuStreamDestroy_v2",
        "cuMemFree_v2",
        "cuMemHostUnregister",
        "cuDevicePrimaryCtxRelease_v2",
    ]


@pytest.mark.parametrize("name", CREATION)
def test_what_fails_in_creation_undoes_what_went_before(fake: FakeCuda, name: str) -> None:
    driver = CudaDriver(fake)
    fake.fail_next(name, OUT_OF_MEMORY)
    with pytest.raises(RegionError, match=rf"2 MiB on GPU 0: .* {name} failed: CUDA_ERROR_OUT_OF_MEMORY \(out of mem"):
        CudaRegion.create(1, driver=driver)


def test_creation_calls_nothing_that_the_list_above_lacks(fake: FakeCuda, region: CudaRegion) -> None:
    assert set(fake.calls) == {"cuInit", *CREATION, "cuCtxPopCurrent_v2"}


@pytest.mark.parametrize("name", ["cuMemcpyHtoDAsync_v2", "cuEventRecord", "cuEventSynchronize"])
def test_a_failed_upload_says_so_and_the_region_still_closes(fake: FakeCuda, region: CudaRegion, name: str) -> None:
    fake.fail_next(name, 719)
    with pytest.raises(RegionError, match=rf"{name} failed: 719 \(no description\)"):
        region.upload(0, 4096)
    region.close()  # a copy may still be in flight: the fake objects to memory freed under it


def test_a_failing_step_of_close_is_logged_and_the_rest_freed(fake: FakeCuda, caplog: pytest.LogCaptureFixture) -> None:
    created = CudaRegion.create(1, driver=CudaDriver(fake))
    fake.fail_next("cuStreamSynchronize", INVALID_VALUE)
    created.close()
    assert "GPU 0 was not freed in full: the NVIDIA driver's cuStreamSynchronize failed" in caplog.text


def test_a_forked_child_frees_nothing(fake: FakeCuda, region: CudaRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.calls.clear()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        region.close()
    assert fake.calls == []
    region.upload(0, 1)


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_must_be_positive(fake: FakeCuda, size: int) -> None:
    with pytest.raises(ValueError, match=f"more than 0 bytes, got {size}"):
        CudaRegion.create(size, driver=CudaDriver(fake))


def test_too_little_device_memory_is_an_error() -> None:
    fake = FakeCuda(memory=MIB)
    with pytest.raises(RegionError, match=r"cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY.*shared_memory: system"):
        CudaRegion.create(1, driver=CudaDriver(fake))
    fake.check()


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_cuda(0, CudaDriver(FakeCuda())) is None
    assert "number 2: the NVIDIA driver shows 2" in (why_not_cuda(2, CudaDriver(FakeCuda(gpus=2))) or "")
    assert "Jetson" in (why_not_cuda(0, CudaDriver(FakeCuda(integrated=True))) or "")
    monkeypatch.setattr(cuda, "_LIBRARY", "libno-such-cuda.so.1")
    assert "no NVIDIA driver (libno-such-cuda.so.1: cannot open" in (why_not_cuda() or "")


def test_a_driver_that_cannot_be_used() -> None:
    with pytest.raises(RegionError, match=r"cuInit failed: CUDA_ERROR_NO_DEVICE \(no CUDA-capable"):
        CudaDriver(FakeCuda(gpus=0))
    old = FakeCuda()
    delattr(old, "cuDevicePrimaryCtxRelease_v2")
    with pytest.raises(RegionError, match="no cuDevicePrimaryCtxRelease_v2: it is older than CUDA 11"):
        CudaDriver(old)


class TestTheFakeObjects:
    """What the fake says to each broken rule: it would be no evidence otherwise."""

    def test_use_before_init(self) -> None:
        fake = FakeCuda()
        assert fake.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == NOT_INITIALIZED  # type: ignore[attr-defined]
        assert fake.violations == ["cuDeviceGetCount before cuInit"]

    def test_no_context_on_the_calling_thread(self) -> None:
        fake = FakeCuda()
        driver = CudaDriver(fake)
        with driver.current(driver.retain_context(0)), ThreadPoolExecutor(1) as pool:
            failure = pool.submit(driver.allocate, 1).exception()
        assert isinstance(failure, RegionError)
        assert "CUDA_ERROR_INVALID_CONTEXT" in str(failure)
        assert fake.violations == ["cuMemAlloc_v2 without a live context on its thread"]

    def test_copies_from_and_to_the_wrong_places(self) -> None:
        fake = FakeCuda()
        driver = CudaDriver(fake)
        host = np.zeros(64, np.uint8)
        with driver.current(driver.retain_context(0)):
            address, stream, event = driver.allocate(32), driver.create_stream(), driver.create_event()
            with pytest.raises(RegionError):
                driver.copy_to_device(address, host.ctypes.data, 8, stream, event)
            driver.pin(host.ctypes.data, 64)
            with pytest.raises(RegionError):
                driver.copy_to_device(address, host.ctypes.data, 33, stream, event)
            with pytest.raises(RegionError):
                driver.copy_to_device(address, host.ctypes.data, 8, 99, event)
        assert fake.violations == [
            "asynchronous copy from memory that is not pinned",
            "copy to outside of an allocation",
            "copy on a stream that does not exist",
        ]

    def test_memory_freed_under_a_copy_and_twice(self) -> None:
        fake = FakeCuda()
        driver = CudaDriver(fake)
        host = np.zeros(64, np.uint8)
        with driver.current(driver.retain_context(0)):
            address, stream, event = driver.allocate(64), driver.create_stream(), driver.create_event()
            driver.pin(host.ctypes.data, 64)
            fake.fail_next("cuEventRecord", INVALID_CONTEXT)
            with pytest.raises(RegionError):
                driver.copy_to_device(address, host.ctypes.data, 8, stream, event)
            driver.unpin(host.ctypes.data)
            driver.free(address)
            driver.destroy_stream(stream)
            with pytest.raises(RegionError):
                driver.free(address)
            with pytest.raises(RegionError):
                driver.ipc_handle(address)
        assert fake.violations == [
            "host memory unpinned while a copy from it is in flight",
            "device memory freed while a copy into it is in flight",
            "stream ended while a copy is in flight",
            "free of an address that is not allocated",
            "a handle of an address that is not allocated",
        ]

    def test_leaks(self) -> None:
        fake = FakeCuda()
        CudaRegion.create(1, driver=CudaDriver(fake))
        with pytest.raises(AssertionError, match="allocations not given back"):
            fake.check()


# What a server does with a handle: open it and read, here from a process of its own.
PEER = """
import ctypes, sys
class Handle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * 64)]
cuda = ctypes.CDLL("libcuda.so.1")
cuda.cuIpcOpenMemHandle_v2.argtypes = (ctypes.POINTER(ctypes.c_uint64), Handle, ctypes.c_uint)
cuda.cuMemcpyDtoH_v2.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t)
def call(name, *arguments):
    result = getattr(cuda, name)(*arguments)
    assert result == 0, (name, result)
device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
values = ctypes.create_string_buffer(4096)
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
call("cuCtxPushCurrent_v2", context)
handle = Handle.from_buffer_copy(bytes.fromhex(sys.argv[1]))
call("cuIpcOpenMemHandle_v2", ctypes.byref(address), handle, 1)
call("cuMemcpyDtoH_v2", values, address.value + 8192, 4096)
print(values.raw.hex())
"""


@pytest.mark.gpu
def test_another_process_reads_what_was_uploaded_to_a_real_gpu() -> None:
    assert why_not_cuda() is None
    region = CudaRegion.create(3 * MIB)
    try:
        staging = region.staging(8192, (4096,), np.uint8)
        staging[:] = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)
        region.upload(8192, 4096)
        handle = base64.b64decode(region.raw_handle)
        assert len(handle) == 64
        peer = subprocess.run([sys.executable, "-c", PEER, handle.hex()], capture_output=True, text=True, check=False)
        assert peer.returncode == 0, peer.stderr
        assert bytes.fromhex(peer.stdout) == staging.tobytes()
    finally:
        region.close()
