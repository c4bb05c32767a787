"""Real Triton servers to test against, with tiny models, started and ended in every way."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tritonclient.grpc import InferenceServerClient

import streamproc
from streamproc.errors import DependencyError
from streamproc.triton_server.command import ServerOptions
from streamproc.triton_server.installation import Installation, find_server
from streamproc.triton_server.process import start_server, stop_server
from streamproc.triton_server.state import ServerRecord
from tests.tiny_models import save_fragile, save_means

__all__ = [
    "MEANS_BATCH",
    "MEANS_SIZE",
    "RunningServer",
    "add_model",
    "connected",
    "running_server",
    "server_installation",
    "tiny_repository",
]

MEANS_SIZE = (64, 32)
MEANS_BATCH = 4

_Result = TypeVar("_Result")
_SERVED = Path(streamproc.__file__).parent / "repository" / "served"

# One thread for as long as the tests last: servers die with the thread that started them.
_thread = ThreadPoolExecutor(1, thread_name_prefix="triton servers")


def _wait(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run it to its end, also from within a running event loop."""
    return _thread.submit(asyncio.run, work).result()


@functools.cache
def server_installation() -> Installation:
    """The wheel's server in the user's cache directory, set up at the first use on a machine."""
    try:
        return _wait(find_server("wheel"))
    except DependencyError as exc:
        pytest.fail(f"this test needs a Triton server: {exc}")


class RunningServer:
    """A server on ports that stay the same over its restarts."""

    def __init__(self, options: ServerOptions, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self.record: ServerRecord
        self.start()

    @property
    def url(self) -> str:
        return self.record.url

    @property
    def grpc_port(self) -> int:
        return self.record.grpc_port

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def log(self) -> str:
        """All that it has written since its last start."""
        return Path(self.record.log).read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until its models are ready."""
        self.record = _wait(start_server(server_installation(), self._options, dies_with_us=True, folder=self._folder))
        self._options = replace(
            self._options,
            grpc_port=self.record.grpc_port,
            http_port=self.record.http_port,
            metrics_port=self.record.metrics_port,
        )

    def kill(self) -> None:
        """End it by kill -9; its Python models and shared memory are left behind until the next start."""
        if self.record.alive:
            os.kill(self.pid, signal.SIGKILL)
        while self.record.alive:
            pass

    def stop(self) -> None:
        """End it as an operator would."""
        _wait(stop_server(self.record, folder=self._folder))

    def restart(self) -> None:
        """Kill it, if it runs, and start it again on the same ports."""
        self.kill()
        self.start()

    def discard(self) -> None:
        """End it at once, with all that belongs to it."""
        _wait(stop_server(self.record, grace_s=0, folder=self._folder))


@contextmanager
def running_server(repository: Path, **options: Any) -> Iterator[RunningServer]:
    """A ready server for the length of the block; ``options`` are those of :class:`ServerOptions`."""
    with tempfile.TemporaryDirectory(prefix="triton-") as folder:
        server = RunningServer(ServerOptions(repository=repository, **{"exit_timeout_s": 5} | options), Path(folder))
        try:
            yield server
        finally:
            server.discard()


@contextmanager
def connected(repository: Path) -> Iterator[InferenceServerClient]:
    """A client of a server of its own for the length of the block."""
    with (
        running_server(repository) as server,
        InferenceServerClient(server.url.removeprefix("grpc://")) as client,
    ):
        yield client


def add_model(repository: Path, name: str, config: str, *, runtime: str, version: int = 1) -> Path:
    """Make a model of the Python backend; the answer is the path that its model.onnx is to be written to."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(f'backend: "python"\n{config}')
    shutil.copy(_SERVED / f"{runtime}_model.py", folder / "model.py")
    return folder / "model.onnx"


_MEANS = """
max_batch_size: 4
input [{ name: "images" data_type: TYPE_UINT8 dims: [32, 64, 3] }]
output [{ name: "means" data_type: TYPE_FP32 dims: [3] }]
instance_group [{ kind: KIND_CPU count: 1 }]
parameters { key: "names" value { string_value: "{0: 'red', 1: 'green', 2: 'blue'}" } }
parameters { key: "precision" value { string_value: "fp32" } }
"""
_FRAGILE = """
max_batch_size: 1
input [{ name: "images" data_type: TYPE_UINT8 dims: [32, 32, 3] }]
output [{ name: "mean" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""


def tiny_repository(folder: Path) -> Path:
    """A repository with the models of the engines' contract.

    ``means`` (OpenVINO): the mean of each channel, 0..1, of up to four uint8 pictures of 64 x 32. ``fragile`` (ONNX
    Runtime): one uint8 picture of 32 x 32; fails where its first value is 7.
    """
    save_means(add_model(folder, "means", _MEANS, runtime="openvino"), size=MEANS_SIZE)
    save_fragile(add_model(folder, "fragile", _FRAGILE, runtime="onnxruntime"))
    return folder
