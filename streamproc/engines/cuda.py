"""GPU memory shared with a server on the same machine, through CUDA's interprocess handles.

Bound to the driver library itself (libcuda.so.1, part of every NVIDIA driver) by ctypes, so nothing has to be
installed. Names and signatures: CUDA Driver API reference; the suffix _v2 is the ABI that the headers of CUDA 11 and
later give those names.
"""

from __future__ import annotations

import base64
import ctypes
import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamproc.engines.shared_memory import RegionError, typed_view
from streamproc.types import UInt8Array

__all__ = ["CudaDriver", "CudaRegion", "why_not_cuda"]

_logger = logging.getLogger(__name__)

_LIBRARY = "libcuda.so.1"
_HANDLE_BYTES = 64  # CU_IPC_HANDLE_SIZE
_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED
_STREAM_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no implicit waits for other work in this process
_EVENT_BLOCKING_NO_TIMING = 3  # CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING: waiting sleeps instead of spinning
# The driver hands out smaller allocations from shared blocks of this size, and a handle opens the whole block.
_BLOCK = 2 << 20

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostRegister_v2": (c_void_p, c_size_t, c_uint),
    "cuMemHostUnregister": (c_void_p,),
    "cuIpcGetMemHandle": (c_void_p, c_uint64),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventDestroy_v2": (c_void_p,),
}


class CudaDriver:
    """The calls of the CUDA driver that a region needs, each checked.

    ``library`` has the driver's functions as attributes that ctypes can call. Every call releases the interpreter.

    Raises:
        RegionError: of any call that fails, with the driver's own name and words for the failure.
    """

    def __init__(self, library: object) -> None:
        self._functions: dict[str, Callable[..., int]] = {}
        for name, signature in _SIGNATURES.items():
            function = getattr(library, name, None)
            if function is None:
                raise RegionError(f"the NVIDIA driver has no {name}: it is older than CUDA 11, update it")
            function.argtypes, function.restype = signature, c_int
            self._functions[name] = function
        self._call("cuInit", 0)

    @classmethod
    def load(cls) -> CudaDriver:
        """The driver of this machine, initialised.

        Raises:
            RegionError: there is none, it is too old, or it finds no GPU.
        """
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as exc:
            raise RegionError(
                f"there is no NVIDIA driver ({exc}): install it, or start the container with --gpus all"
            ) from exc
        return cls(library)

    def device(self, ordinal: int) -> int:
        """The handle of the ``ordinal``-th GPU that this process sees."""
        count, device = c_int(), c_int()
        self._call("cuDeviceGetCount", byref(count))
        if not 0 <= ordinal < count.value:
            raise RegionError(f"there is no GPU number {ordinal}: the NVIDIA driver shows {count.value}, from 0")
        self._call("cuDeviceGet", byref(device), ordinal)
        return device.value

    def is_integrated(self, device: int) -> bool:
        """Whether the GPU shares the processor's memory, as on Jetson."""
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), _INTEGRATED, device)
        return bool(value.value)

    def retain_context(self, device: int) -> int:
        """The GPU's primary context, the one that other libraries in this process use too."""
        context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        return context.value or 0

    def release_context(self, device: int) -> None:
        """Give the primary context back once; the last one to do so ends it."""
        self._call("cuDevicePrimaryCtxRelease_v2", device)

    @contextmanager
    def current(self, context: int) -> Iterator[None]:
        """Make the context the calling thread's, and afterwards the one it had before."""
        self._call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def allocate(self, nbytes: int) -> int:
        """Device memory; its address."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), nbytes)
        return address.value

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", address)

    def ipc_handle(self, address: int) -> bytes:
        """The 64 bytes by which another process opens an allocation."""
        handle = ctypes.create_string_buffer(_HANDLE_BYTES)
        self._call("cuIpcGetMemHandle", handle, address)
        return handle.raw

    def pin(self, address: int, nbytes: int) -> None:
        """Keep host memory in place so that the GPU reads it directly."""
        self._call("cuMemHostRegister_v2", address, nbytes, 0)

    def unpin(self, address: int) -> None:
        """Undo :meth:`pin`."""
        self._call("cuMemHostUnregister", address)

    def create_stream(self) -> int:
        """A queue of work on the GPU."""
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), _STREAM_NON_BLOCKING)
        return stream.value or 0

    def synchronize_stream(self, stream: int) -> None:
        """Wait until the stream has nothing left to do."""
        self._call("cuStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """End a stream."""
        self._call("cuStreamDestroy_v2", stream)

    def create_event(self) -> int:
        """A mark in a stream that a thread can sleep on."""
        event = c_void_p()
        self._call("cuEventCreate", byref(event), _EVENT_BLOCKING_NO_TIMING)
        return event.value or 0

    def destroy_event(self, event: int) -> None:
        """End an event."""
        self._call("cuEventDestroy_v2", event)

    def copy_to_device(self, device_address: int, host_address: int, nbytes: int, stream: int, event: int) -> None:
        """Copy from pinned memory on ``stream``, and sleep until that copy is complete."""
        self._call("cuMemcpyHtoDAsync_v2", device_address, host_address, nbytes, stream)
        self._call("cuEventRecord", event, stream)
        self._call("cuEventSynchronize", event)

    def _call(self, name: str, *arguments: object) -> None:
        result = self._functions[name](*arguments)
        if result:
            code, words = self._text("cuGetErrorName", result), self._text("cuGetErrorString", result)
            raise RegionError(f"the NVIDIA driver's {name} failed: {code or result} ({words or 'no description'})")

    def _text(self, function: str, result: int) -> str:
        text = c_char_p()
        self._functions[function](result, byref(text))
        return (text.value or b"").decode()


class CudaRegion:
    """Device memory that a server on this machine may map, and pinned host memory that mirrors it.

    Made by :meth:`create`. Write a batch into :meth:`staging`, then :meth:`upload` the same range. Nothing of it
    outlives the process but what a server has registered, which it holds until told to unregister: give it a name
    that follows from a :class:`SystemRegion`'s, so that whoever sweeps that one knows this one too.

    ``raw_handle`` is the interprocess handle in base64, as tritonclient's ``register_cuda_shared_memory`` takes it;
    ``device`` the GPU's number as this process sees it (the server's is the same unless CUDA_VISIBLE_DEVICES differs);
    ``size`` in bytes, at least what was asked for.
    """

    def __init__(self, driver: CudaDriver, device: int, size: int) -> None:
        self.device = device
        self.size = size
        self._driver = driver
        self._creator = os.getpid()
        self._lock = threading.Lock()
        # Shared pages of our own, then pinned: a fork must not copy them on write behind the GPU's back, and a view
        # that somebody still holds after close() must not point to nowhere, as memory of the driver's would.
        self._memory: UInt8Array | None = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
        self._host_address = self._memory.ctypes.data
        handle = _discrete_gpu(driver, device)
        with ExitStack() as undo:  # in reverse order, each step in the context that it needs
            self._context = driver.retain_context(handle)
            undo.callback(driver.release_context, handle)
            with driver.current(self._context):
                driver.pin(self._host_address, size)
                undo.callback(self._in_context, driver.unpin, self._host_address)
                self._device_address = driver.allocate(size)
                undo.callback(self._in_context, driver.free, self._device_address)
                self._stream = driver.create_stream()
                undo.callback(self._in_context, driver.destroy_stream, self._stream)
                self._event = driver.create_event()
                undo.callback(self._in_context, driver.destroy_event, self._event)
                undo.callback(self._in_context, driver.synchronize_stream, self._stream)
                self.raw_handle = base64.b64encode(driver.ipc_handle(self._device_address))
            self._release = undo.pop_all()

    @classmethod
    def create(cls, size: int, *, device: int = 0, driver: CudaDriver | None = None) -> CudaRegion:
        """Allocate at least ``size`` bytes (whole blocks of 2 MiB) on a discrete GPU, and as much pinned host memory.

        Raises:
            RegionError: no driver, no such GPU, an integrated one, or too little memory.
            ValueError: ``size`` is not positive.
        """
        if size <= 0:
            raise ValueError(f"size of a shared memory region: expected more than 0 bytes, got {size}")
        size = -(-size // _BLOCK) * _BLOCK
        try:
            return cls(driver or CudaDriver.load(), device, size)
        except RegionError as exc:
            raise RegionError(
                f"CUDA shared memory, {size >> 20} MiB on GPU {device}: {exc}. Or set engine.shared_memory: system."
            ) from exc

    def staging(self, offset: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """A writable view, C-contiguous, of the pinned memory ``offset`` bytes in; :meth:`upload` carries it over.

        It stays valid memory after :meth:`close`.

        Raises:
            ValueError: it would reach beyond the region, or the region is closed.
        """
        return typed_view(self._memory, offset, shape, dtype)

    def upload(self, offset: int, nbytes: int) -> None:
        """Copy a range of the staging memory to the same range of the device; complete when it returns.

        Blocks without spinning and without holding the interpreter: call it on a worker thread. Calls from several
        threads take turns, as their copies would on the bus.

        Raises:
            RegionError: the driver failed.
            ValueError: the range reaches beyond the region, or the region is closed.
        """
        with self._lock:
            typed_view(self._memory, offset, (nbytes,), np.uint8)  # checks the range
            with self._driver.current(self._context):
                self._driver.copy_to_device(
                    self._device_address + offset, self._host_address + offset, nbytes, self._stream, self._event
                )

    def close(self) -> None:
        """Wait for an upload under way, then free everything; may be called again. A forked child frees nothing."""
        if os.getpid() != self._creator:  # CUDA does not survive a fork
            return
        with self._lock:
            try:
                self._release.close()
            except RegionError as exc:  # every step was tried; the rest goes with the process
                _logger.warning("CUDA shared memory on GPU %d was not freed in full: %s", self.device, exc)
            self._memory = None

    def _in_context(self, function: Callable[[int], None], argument: int) -> None:
        with self._driver.current(self._context):
            function(argument)


def why_not_cuda(device: int = 0, driver: CudaDriver | None = None) -> str | None:
    """Why CUDA shared memory is out of the question on this machine, or None if it may work."""
    try:
        _discrete_gpu(driver or CudaDriver.load(), device)
    except RegionError as exc:
        return str(exc)
    return None


def _discrete_gpu(driver: CudaDriver, ordinal: int) -> int:
    device = driver.device(ordinal)
    if driver.is_integrated(device):
        raise RegionError(f"GPU {ordinal} is integrated (as on Jetson): CUDA cannot share its memory between processes")
    return device
