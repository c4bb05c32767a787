"""What a process and its children use of the machine: processor time, memory, and GPUs where NVML tells."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

__all__ = ["GpuMeter", "GpuUse", "Usage", "end_tree", "usage_of"]

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Processor time so far, user + system, in seconds, as of ``at_s`` on the monotonic clock; resident memory then,
    where what processes share counts in each of them. ``busy_s``: for how long the cores that we may use were busy so
    far, whoever used them."""

    at_s: float
    cpu_s: float
    rss_bytes: int
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """All GPUs together: how many were ``busy`` over the last moments (0.5: one for half of the time), how many
    hardware ``decoding``, and ``memory_bytes`` in use, whoever uses it."""

    busy: float
    decoding: float
    memory_bytes: int


def usage_of(pid: int) -> Usage | None:
    """Of a process with all its descendants; None when it is gone."""
    try:
        root = psutil.Process(pid)
        ended = root.cpu_times()
        cpu_s = ended.children_user + ended.children_system
        rss_bytes = 0
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                rss_bytes += process.memory_info().rss
                cpu_s += times.user + times.system
    except psutil.NoSuchProcess:
        return None
    return Usage(at_s=time.monotonic(), cpu_s=cpu_s, rss_bytes=rss_bytes, busy_s=_busy_s())


def _busy_s() -> float:
    """Stolen time included, in which a hypervisor gave our cores to others."""
    ours = os.sched_getaffinity(0)
    every = psutil.cpu_times(percpu=True)
    return sum(sum(core[:8]) - core.idle - core.iowait for index, core in enumerate(every) if index in ours)


def end_tree(pid: int) -> None:
    """Kill a process and all its descendants."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        processes: Sequence[psutil.Process] = [*root.children(recursive=True), root]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()


class GpuMeter:
    """Reads NVIDIA GPUs; used in a ``with`` block. Without a GPU, or the package to read it, there is nothing to tell.

    Attributes:
        note: why GPUs that are there are left out; empty otherwise.
        names: of the GPUs.
    """

    def __init__(self) -> None:
        self.note = ""
        self.names: tuple[str, ...] = ()
        self._nvml: Any = None
        self._devices: list[Any] = []

    def __enter__(self) -> GpuMeter:
        if not _DRIVER.exists():
            return self
        try:
            import pynvml
        except ModuleNotFoundError:
            self.note = "GPU use is left out: pip install 'streamproc[nvml]'"
            return self
        try:
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            self.names = tuple(str(pynvml.nvmlDeviceGetName(device)) for device in self._devices)
        except pynvml.NVMLError as exc:
            self.note = f"GPU use is left out: NVML says: {exc}"
            self._devices = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def read(self) -> GpuUse | None:
        """Now; None where there is nothing to tell."""
        if not self._devices:
            return None
        nvml = self._nvml
        try:
            return GpuUse(
                busy=sum(nvml.nvmlDeviceGetUtilizationRates(device).gpu for device in self._devices) / 100,
                decoding=sum(nvml.nvmlDeviceGetDecoderUtilization(device)[0] for device in self._devices) / 100,
                memory_bytes=sum(int(nvml.nvmlDeviceGetMemoryInfo(device).used) for device in self._devices),
            )
        except nvml.NVMLError as exc:
            self.note = f"GPU use is left out: NVML says: {exc}"
            self._devices = []
            return None
