"""A CUDA driver library without a GPU: the same C functions, which enforce the driver's rules.

Functions are real C function pointers with the prototypes of cuda.h, so that a call through ctypes converts its
arguments as it does for libcuda. What the driver answers with an error code gets that code; what it would answer with a
crash, with stale bytes or not at all is a violation besides. Copies to the device happen only when a thread waits for
them. :meth:`FakeCuda.check` names every violation and everything not given back.
"""

# ruff: noqa: N802 - methods are named as the functions that they stand for
from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FakeCuda"]

INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE = 1, 2, 3, 100
INVALID_DEVICE, INVALID_CONTEXT, INVALID_HANDLE, HOST_MEMORY_NOT_REGISTERED = 101, 201, 400, 713
_NAMES = {
    INVALID_VALUE: (b"CUDA_ERROR_INVALID_VALUE", b"invalid argument"),
    OUT_OF_MEMORY: (b"CUDA_ERROR_OUT_OF_MEMORY", b"out of memory"),
    NOT_INITIALIZED: (b"CUDA_ERROR_NOT_INITIALIZED", b"initialization error"),
    NO_DEVICE: (b"CUDA_ERROR_NO_DEVICE", b"no CUDA-capable device is detected"),
    INVALID_DEVICE: (b"CUDA_ERROR_INVALID_DEVICE", b"invalid device ordinal"),
    INVALID_CONTEXT: (b"CUDA_ERROR_INVALID_CONTEXT", b"invalid device context"),
    INVALID_HANDLE: (b"CUDA_ERROR_INVALID_HANDLE", b"invalid resource handle"),
    HOST_MEMORY_NOT_REGISTERED: (
        b"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
        b"pointer does not correspond to a registered memory region",
    ),
}
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
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
_NO_CONTEXT_NEEDED = {
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
}


@dataclass
class _Copy:
    """One copy that was asked for and has not happened."""

    target: int
    source: int
    nbytes: int


@dataclass
class _Stream:
    pending: list[_Copy] = field(default_factory=list)


@dataclass
class _Event:
    awaited: list[_Copy] = field(default_factory=list)
    stream: _Stream | None = None


class FakeCuda:
    """Hand it to ``CudaDriver`` as its library.

    ``gpus`` GPUs of ``memory`` bytes each; ``integrated`` as on Jetson. ``calls`` are the functions called, in order.
    """

    def __init__(self, *, gpus: int = 1, memory: int = 1 << 30, integrated: bool = False) -> None:
        self.violations: list[str] = []
        self.calls: list[str] = []
        self._gpus = gpus
        self._memory = memory
        self._integrated = integrated
        self._initialised = False
        self._failures: dict[str, int] = {}
        self._contexts: dict[int, int] = {}  # context: how often it was retained
        self._allocations: dict[int, bytearray] = {}
        self._pinned: dict[int, int] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: dict[int, _Event] = {}
        self._numbers = itertools.count(1)
        self._threads = threading.local()
        self._lock = threading.RLock()
        for name, prototype in _PROTOTYPES.items():
            setattr(self, name, CFUNCTYPE(c_int, *prototype)(self._entry(name)))

    def fail_next(self, name: str, code: int) -> None:
        """Let the next call of one function do nothing but return this code."""
        self._failures[name] = code

    def device_bytes(self, raw_handle: bytes, offset: int, nbytes: int) -> bytes:
        """What another process that opened this handle would read."""
        address = int.from_bytes(raw_handle[:8], "little")
        return bytes(self._allocations[address][offset : offset + nbytes])

    def current_contexts(self) -> list[int]:
        """The calling thread's stack of contexts."""
        stack: list[int] = self._threads.__dict__.setdefault("stack", [])
        return stack

    def check(self) -> None:
        """Every rule was kept and everything was given back."""
        left: dict[str, dict[int, Any]] = {
            "contexts": self._contexts,
            "allocations": self._allocations,
            "pinned": self._pinned,
            "streams": self._streams,
            "events": self._events,
        }
        problems = [*self.violations, *(f"{what} not given back: {list(held)}" for what, held in left.items() if held)]
        if self.current_contexts():
            problems.append("a context is still current on this thread")
        assert not problems, problems

    def _entry(self, name: str) -> Callable[..., int]:
        function: Callable[..., int] = getattr(self, f"_{name.removesuffix('_v2')}")

        def enter(*arguments: Any) -> int:
            if name.startswith("cuGetError"):
                return function(*arguments)
            with self._lock:
                self.calls.append(name)
                if name in self._failures:
                    return self._failures.pop(name)
                if name != "cuInit" and not self._initialised:
                    return self._violation(f"{name} before cuInit", NOT_INITIALIZED)
                if name not in _NO_CONTEXT_NEEDED | {"cuInit"}:
                    stack = self.current_contexts()
                    if not stack or stack[-1] not in self._contexts:
                        return self._violation(f"{name} without a live context on its thread", INVALID_CONTEXT)
                return function(*arguments)

        return enter

    def _violation(self, what: str, code: int) -> int:
        self.violations.append(what)
        return code

    def _cuInit(self, flags: int) -> int:
        if flags or not self._gpus:
            return INVALID_VALUE if flags else NO_DEVICE
        self._initialised = True
        return 0

    def _text(self, code: int, text: Any, which: int) -> int:
        if code not in _NAMES:
            text[0] = None
            return INVALID_VALUE
        text[0] = _NAMES[code][which]
        return 0

    def _cuGetErrorName(self, code: int, text: Any) -> int:
        return self._text(code, text, 0)

    def _cuGetErrorString(self, code: int, text: Any) -> int:
        return self._text(code, text, 1)

    def _cuDeviceGetCount(self, count: Any) -> int:
        count[0] = self._gpus
        return 0

    def _cuDeviceGet(self, device: Any, ordinal: int) -> int:
        if not 0 <= ordinal < self._gpus:
            return INVALID_DEVICE
        device[0] = ordinal
        return 0

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
        if attribute != 18:
            return self._violation(f"attribute {attribute} is not one that this fake knows", INVALID_VALUE)
        value[0] = int(self._integrated)
        return 0 if 0 <= device < self._gpus else INVALID_DEVICE

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> int:
        handle = 0xC000 + device
        self._contexts[handle] = self._contexts.get(handle, 0) + 1
        context[0] = handle
        return 0

    def _cuDevicePrimaryCtxRelease(self, device: int) -> int:
        handle = 0xC000 + device
        if handle not in self._contexts:
            return self._violation("release of a context that nobody holds", INVALID_CONTEXT)
        self._contexts[handle] -= 1
        if not self._contexts[handle]:
            del self._contexts[handle]
            if self._allocations or self._pinned or self._streams or self._events:
                self.violations.append("the context ended with something in it")
        return 0

    def _cuCtxPushCurrent(self, context: int) -> int:
        if context not in self._contexts:
            return self._violation("push of a context that is not alive", INVALID_CONTEXT)
        self.current_contexts().append(context)
        return 0

    def _cuCtxPopCurrent(self, context: Any) -> int:
        stack = self.current_contexts()
        if not stack:
            return self._violation("pop without a push on this thread", INVALID_CONTEXT)
        context[0] = stack.pop()
        return 0

    def _cuMemAlloc(self, address: Any, nbytes: int) -> int:
        if nbytes == 0:
            return INVALID_VALUE
        if sum(map(len, self._allocations.values())) + nbytes > self._memory:
            return OUT_OF_MEMORY
        base = next(self._numbers) << 40  # far apart: no copy from one reaches into the next
        self._allocations[base] = bytearray(b"\xaa" * nbytes)  # as dirty as the real thing
        address[0] = base
        return 0

    def _cuMemFree(self, address: int) -> int:
        if address not in self._allocations:
            return self._violation("free of an address that is not allocated", INVALID_VALUE)
        if any(self._base(copy.target, 1) == address for copy in self._pending()):
            self.violations.append("device memory freed while a copy into it is in flight")
        del self._allocations[address]
        return 0

    def _cuMemHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        if flags or not address or not nbytes or address in self._pinned:
            return self._violation("pinning with odd arguments, or twice", INVALID_VALUE)
        self._pinned[address] = nbytes
        return 0

    def _cuMemHostUnregister(self, address: int) -> int:
        if address not in self._pinned:
            return self._violation("unpinning what is not pinned", HOST_MEMORY_NOT_REGISTERED)
        end = address + self._pinned[address]
        if any(address <= copy.source < end for copy in self._pending()):
            self.violations.append("host memory unpinned while a copy from it is in flight")
        del self._pinned[address]
        return 0

    def _cuIpcGetMemHandle(self, handle: int, address: int) -> int:
        if address not in self._allocations:
            return self._violation("a handle of an address that is not allocated", INVALID_VALUE)
        ctypes.memmove(handle, address.to_bytes(8, "little") + bytes(56), 64)
        return 0

    def _cuMemcpyHtoDAsync(self, target: int, source: int, nbytes: int, stream: int) -> int:
        if stream not in self._streams:
            return self._violation("copy on a stream that does not exist", INVALID_HANDLE)
        if self._base(target, nbytes) is None:
            return self._violation("copy to outside of an allocation", INVALID_VALUE)
        if not any(start <= source and source + nbytes <= start + size for start, size in self._pinned.items()):
            return self._violation("asynchronous copy from memory that is not pinned", INVALID_VALUE)
        self._streams[stream].pending.append(_Copy(target, source, nbytes))
        return 0

    def _cuStreamCreate(self, stream: Any, flags: int) -> int:
        if flags not in (0, 1):
            return INVALID_VALUE
        stream[0] = number = next(self._numbers)
        self._streams[number] = _Stream()
        return 0

    def _cuStreamSynchronize(self, stream: int) -> int:
        if stream not in self._streams:
            return self._violation("wait for a stream that does not exist", INVALID_HANDLE)
        self._complete(self._streams[stream], list(self._streams[stream].pending))
        return 0

    def _cuStreamDestroy(self, stream: int) -> int:
        if stream not in self._streams:
            return self._violation("end of a stream that does not exist", INVALID_HANDLE)
        if self._streams.pop(stream).pending:
            self.violations.append("stream ended while a copy is in flight")
        return 0

    def _cuEventCreate(self, event: Any, flags: int) -> int:
        if flags & ~3:
            return INVALID_VALUE
        event[0] = number = next(self._numbers)
        self._events[number] = _Event()
        return 0

    def _cuEventRecord(self, event: int, stream: int) -> int:
        if event not in self._events or stream not in self._streams:
            return self._violation("mark with an event or stream that does not exist", INVALID_HANDLE)
        recorded = self._streams[stream]
        self._events[event] = _Event(list(recorded.pending), recorded)
        return 0

    def _cuEventSynchronize(self, event: int) -> int:
        if event not in self._events:
            return self._violation("wait for an event that does not exist", INVALID_HANDLE)
        recorded = self._events[event]
        if recorded.stream is not None:
            self._complete(recorded.stream, recorded.awaited)
        return 0

    def _cuEventDestroy(self, event: int) -> int:
        if self._events.pop(event, None) is None:
            return self._violation("end of an event that does not exist", INVALID_HANDLE)
        return 0

    def _pending(self) -> list[_Copy]:
        return [copy for stream in self._streams.values() for copy in stream.pending]

    def _base(self, address: int, nbytes: int) -> int | None:
        for base, memory in self._allocations.items():
            if base <= address and address + nbytes <= base + len(memory):
                return base
        return None

    def _complete(self, stream: _Stream, copies: list[_Copy]) -> None:
        for copy in copies:
            if not any(copy is pending for pending in stream.pending):
                continue
            base = self._base(copy.target, copy.nbytes)
            if base is not None:
                start = copy.target - base
                self._allocations[base][start : start + copy.nbytes] = ctypes.string_at(copy.source, copy.nbytes)
            stream.pending = [pending for pending in stream.pending if pending is not copy]
