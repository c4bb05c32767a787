"""A model file, served for the length of a benchmark, with more or less fused into it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from streamproc.repository.build import build
from streamproc.repository.dependencies import needing_onnx
from streamproc.repository.options import Backend, BuildOptions
from streamproc.triton_server.installation import ServerChoice, find_server
from streamproc.triton_server.managed import managed_server
from streamproc.triton_server.programs import Progress

__all__ = ["Fused", "ServedFile", "serve_file"]

# A benchmark's own queue is as long as it asks for; no request is to be turned away. (python's has no limit anyway.)
_QUEUE_TIMEOUT_MS = 60_000


Fused: TypeAlias = Literal["none", "input", "all"]
"""What is put into the graph: nothing, uint8 pictures and their scaling in front, or suppression behind it as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFile:
    """The server's address, and the names of the same network with more or less fused into it."""

    url: str
    names: Mapping[Fused, str]


@asynccontextmanager
async def serve_file(
    path: Path, variants: Iterable[Fused], *, max_batch: int, choice: ServerChoice, on_progress: Progress
) -> AsyncIterator[ServedFile]:
    """Build a repository in a temporary folder, and run a server over it while the block lasts.

    ``max_batch`` holds where the model leaves its batch open or the server takes batches apart.

    Raises:
        DependencyError: there is no server here, or ONNX is not installed.
        EngineError: the server cannot be started.
        ModelError: the file cannot be served.
    """
    installation = await find_server(choice, on_progress=on_progress)
    backend: Backend = "python" if installation.kind == "wheel" else "onnxruntime"
    batch = max_batch if backend == "python" or await asyncio.to_thread(_has_open_batch, path) else None
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as folder:
        repository = Path(folder)
        names: dict[Fused, str] = {fused: f"{path.stem}_fused_{fused}" for fused in variants}
        for fused, name in names.items():
            on_progress(f"building {name}")
            options = BuildOptions(
                repository=repository,
                name=name,
                backend=backend,
                max_batch=batch,
                fuse_intake=fused != "none",
                fuse_suppression=fused == "all",
                queue_timeout_ms=None if backend == "python" else _QUEUE_TIMEOUT_MS,
            )
            await asyncio.to_thread(build, path, options)
        async with managed_server(repository, choice=installation.kind, on_progress=on_progress) as url:
            yield ServedFile(url=url, names=names)


def _has_open_batch(path: Path) -> bool:
    with needing_onnx("bench transport"):
        from streamproc.graphs.reading import inputs_of, read_onnx
    return any(tensor.shape[:1] == (-1,) for tensor in inputs_of(read_onnx(path)))
