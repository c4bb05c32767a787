"""Processor time and memory of a tree of processes, and GPUs where there are any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from streamproc.bench import usage
from streamproc.bench.usage import GpuMeter, GpuUse, end_tree, usage_of

CHILD = "import sys, subprocess; {work}; print(flush=True); sys.stdin.read()"


def a_process(work: str = "pass") -> subprocess.Popen[str]:
    """One that has done some work and waits for its input to end."""
    command = [sys.executable, "-c", CHILD.format(work=work)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_tree_with_all_that_hangs_on_it() -> None:
    sleeper = [sys.executable, "-c", "x = bytearray(80 << 20); print(flush=True); import sys; sys.stdin.read()"]
    with a_process(f"p = subprocess.Popen({sleeper!r}, stdout=-1); p.stdout.readline()") as parent:
        children = psutil.Process(parent.pid).children()
        used = usage_of(parent.pid)
        end_tree(parent.pid)
        parent.wait()
    assert used is not None
    assert used.rss_bytes > 80 << 20
    assert 0 < used.cpu_s < used.busy_s
    _, alive = psutil.wait_procs(children, timeout=10)
    assert len(children) == 1
    assert not alive


def test_work_of_children_that_have_ended_counts() -> None:
    busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.4: pass"]
    with a_process(f"subprocess.run({busy!r})") as parent:
        used = usage_of(parent.pid)
        end_tree(parent.pid)
    assert used is not None
    assert used.cpu_s > 0.3


def test_a_process_that_is_gone() -> None:
    with a_process() as parent:
        parent.kill()
    assert usage_of(parent.pid) is None
    end_tree(parent.pid)


class FakeNvml(SimpleNamespace):
    """The part of ``pynvml`` that is used, with two GPUs."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__(broken=broken, closed=False)

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.closed = True

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, device: int) -> str:  # noqa: N802
        return f"GPU {device}"

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:  # noqa: N802
        if self.broken:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(gpu=40 + device)

    def nvmlDeviceGetDecoderUtilization(self, device: int) -> tuple[int, int]:  # noqa: N802
        return 10, 1000

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=1000)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "version").touch()
    monkeypatch.setattr(usage, "_DRIVER", tmp_path / "version")
    return tmp_path / "version"


def test_gpus(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with GpuMeter() as meter:
        assert meter.read() == GpuUse(busy=0.81, decoding=0.2, memory_bytes=2000)
        assert meter.names == ("GPU 0", "GPU 1")
        nvml.broken = True
        assert meter.read() is None
    assert "GPU is lost" in meter.note
    assert nvml.closed


def test_gpus_that_cannot_be_read(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(broken=True))
    with GpuMeter() as meter:
        assert meter.read() is None
    assert meter.note == "GPU use is left out: NVML says: Driver Not Loaded"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with GpuMeter() as meter:
        assert meter.read() is None
    assert meter.note == "GPU use is left out: pip install 'streamproc[nvml]'"


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_DRIVER", tmp_path / "none")
    with GpuMeter() as meter:
        assert (meter.read(), meter.note, meter.names) == (None, "", ())
    assert usage_of(os.getpid()) is not None
