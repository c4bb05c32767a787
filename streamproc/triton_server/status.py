"""What a Triton server says of itself: models, their statistics, and the shared memory that clients registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tritonclient.grpc import aio, service_pb2
from tritonclient.utils import InferenceServerException

from streamproc.config import GrpcTlsConfig
from streamproc.errors import EngineError

__all__ = ["ModelStatus", "ServerStatus", "SharedRegion", "server_status"]

_CALL_TIMEOUT_S = 5.0
_UNREACHABLE = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """A version of a model. ``state`` is Triton's word (READY, LOADING, UNAVAILABLE, ...; empty when never loaded),
    ``reason`` why it is so. ``inferences`` counts pictures, ``executions`` batches as they ran. The times are means,
    in ms: of a request in the queue, of an execution taking its input, computing, and giving its output; None before
    the first, and where statistics are not to be had.
    """

    name: str
    version: str
    state: str
    reason: str
    inferences: int = 0
    executions: int = 0
    failures: int = 0
    queue_ms: float | None = None
    input_ms: float | None = None
    infer_ms: float | None = None
    output_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRegion:
    """Memory of a client's that the server has mapped: ``kind`` is system or cuda, ``key`` its name in /dev/shm or the
    number of its GPU."""

    kind: str
    name: str
    key: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One look at a server; ``refused`` says what it would not tell, and why."""

    url: str
    version: str
    live: bool
    ready: bool
    models: tuple[ModelStatus, ...]
    regions: tuple[SharedRegion, ...]
    refused: tuple[str, ...]


async def server_status(
    url: str, *, headers: Mapping[str, str] | None = None, tls: GrpcTlsConfig | None = None
) -> ServerStatus:
    """Ask the server at ``grpc://host:port`` or ``grpcs://host:port``; every call has a deadline.

    Raises:
        EngineError: no server answers there, or not to these credentials.
    """
    async with _client(url, tls) as client:
        asking = _Asking(url, headers)
        live = await asking.must(client.is_server_live)
        version = (await asking.must(client.get_server_metadata)).version
        ready = await asking.must(client.is_server_ready)
        index = await asking.may(client.get_model_repository_index, "models", service_pb2.RepositoryIndexResponse())
        statistics = await asking.may(
            client.get_inference_statistics, "statistics", service_pb2.ModelStatisticsResponse()
        )
        system = await asking.may(
            client.get_system_shared_memory_status,
            "system shared memory",
            service_pb2.SystemSharedMemoryStatusResponse(),
        )
        cuda = await asking.may(
            client.get_cuda_shared_memory_status, "CUDA shared memory", service_pb2.CudaSharedMemoryStatusResponse()
        )
    return ServerStatus(
        url=url,
        version=version,
        live=live,
        ready=ready,
        models=_models(index, statistics),
        regions=(
            *(_region("system", region, region.key) for _, region in sorted(system.regions.items())),
            *(_region("cuda", region, str(region.device_id)) for _, region in sorted(cuda.regions.items())),
        ),
        refused=tuple(asking.refused),
    )


@asynccontextmanager
async def _client(url: str, tls: GrpcTlsConfig | None) -> AsyncIterator[Any]:
    parts = urlsplit(url)
    if parts.scheme not in ("grpc", "grpcs") or not parts.netloc:
        raise EngineError(f"Triton's address: found {url}; expected grpc://HOST:PORT or grpcs://HOST:PORT.")
    options: dict[str, Any] = {}
    if parts.scheme == "grpcs":
        options["ssl"] = True
        if tls is not None:
            options |= {
                "root_certificates": _path(tls.ca),
                "certificate_chain": _path(tls.certificate),
                "private_key": _path(tls.key),
            }
            if tls.server_name is not None:
                options["channel_args"] = [("grpc.ssl_target_name_override", tls.server_name)]
    try:
        client = aio.InferenceServerClient(parts.netloc, **options)
    except OSError as exc:
        raise EngineError(f"Triton at {url}: {exc.filename} cannot be read: {exc.strerror}. Correct the path.") from exc
    try:
        yield client
    finally:
        await client.close()


def _path(path: object) -> str | None:
    return None if path is None else str(path)


class _Asking:
    """Calls that must succeed, and calls that a server may refuse."""

    def __init__(self, url: str, headers: Mapping[str, str] | None) -> None:
        self.refused: list[str] = []
        self._url = url
        self._headers = dict(headers or {})

    async def must(self, call: Callable[..., Awaitable[Any]]) -> Any:
        try:
            return await call(headers=self._headers, client_timeout=_CALL_TIMEOUT_S)
        except InferenceServerException as exc:
            raise self._error(exc) from exc

    async def may(self, call: Callable[..., Awaitable[Any]], what: str, otherwise: Any) -> Any:
        try:
            return await call(headers=self._headers, client_timeout=_CALL_TIMEOUT_S)
        except InferenceServerException as exc:
            self.refused.append(f"{what}: {exc.message()}")
            return otherwise

    def _error(self, exc: InferenceServerException) -> EngineError:
        said = f"Triton at {self._url}: {' '.join(str(exc.message()).split())[:300]}. "
        if "protocol is restricted" in said or exc.status() not in _UNREACHABLE:
            return EngineError(said + "Give the header that it asks for.")
        if exc.status() == "StatusCode.DEADLINE_EXCEEDED":
            return EngineError(said + f"It did not answer within {_CALL_TIMEOUT_S:g} s: see the server's log.")
        return EngineError(
            said + "Start it (streamproc triton start), correct the address, or, where it speaks TLS, use grpcs:// "
            "and its certificate authority."
        )


def _models(
    index: service_pb2.RepositoryIndexResponse, statistics: service_pb2.ModelStatisticsResponse
) -> tuple[ModelStatus, ...]:
    counted = {(entry.name, entry.version): entry for entry in statistics.model_stats}
    states = {(entry.name, entry.version): (entry.state, entry.reason) for entry in index.models}
    for key in counted:
        states.setdefault(key, ("READY", ""))  # statistics are of loaded models
    return tuple(
        ModelStatus(name=name, version=version, state=state, reason=reason, **_figures(counted.get((name, version))))
        for (name, version), (state, reason) in sorted(states.items())
    )


def _figures(entry: Any) -> dict[str, Any]:
    if entry is None:
        return {}
    stats = entry.inference_stats
    return {
        "inferences": entry.inference_count,
        "executions": entry.execution_count,
        "failures": stats.fail.count,
        "queue_ms": _mean_ms(stats.queue),
        "input_ms": _mean_ms(stats.compute_input),
        "infer_ms": _mean_ms(stats.compute_infer),
        "output_ms": _mean_ms(stats.compute_output),
    }


def _mean_ms(duration: Any) -> float | None:
    return duration.ns / duration.count / 1e6 if duration.count else None


def _region(kind: str, region: Any, key: str) -> SharedRegion:
    return SharedRegion(kind=kind, name=region.name, key=key, nbytes=region.byte_size)
