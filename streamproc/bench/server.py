"""What a server counts, and how to reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from streamproc.config import EngineConfig
from streamproc.errors import EngineError

__all__ = ["Access", "Counters", "Examiner", "ServerTimes", "examiner"]

_CALL_TIMEOUT_S = 10.0
_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


class Access:
    """How a client reaches the server that an engine's configuration names.

    ``address`` is host:port, ``headers`` are sent with every call.
    """

    def __init__(self, engine: EngineConfig) -> None:
        parts = urlsplit(engine.servers[0])
        self.address = parts.netloc
        self.headers = {name: value.get_secret_value() for name, value in engine.headers.items()}
        self._encrypted = parts.scheme == "grpcs"
        self._tls = engine.tls

    def tls_options(self) -> dict[str, Any]:
        """The arguments of tritonclient's clients that encrypt."""
        if not self._encrypted:
            return {}
        options: dict[str, Any] = {"ssl": True}
        if self._tls is not None:
            files = {
                "root_certificates": self._tls.ca,
                "certificate_chain": self._tls.certificate,
                "private_key": self._tls.key,
            }
            options |= {name: str(path) for name, path in files.items() if path is not None}
        return options


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTimes:
    """Where a request's time went in the server: means in ms. Of several requests run as one batch, each counts."""

    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float


@dataclass(frozen=True, slots=True)
class Counters:
    """(ns, requests) of each part of a model's work, since the server started."""

    parts: tuple[tuple[int, int], ...]

    def since(self, before: Counters) -> ServerTimes | None:
        """The means of what came after ``before``; None where the server has counted nothing."""
        means = []
        for (ns, count), (ns_before, count_before) in zip(self.parts, before.parts, strict=True):
            if count <= count_before:
                return None
            means.append((ns - ns_before) / (count - count_before) / 1e6)
        queue, taken, infer, given = means
        return ServerTimes(queue_ms=queue, input_ms=taken, infer_ms=infer, output_ms=given)


class Examiner:
    """Questions about models; made by :func:`examiner`. Each raises :class:`EngineError` where there is no answer."""

    def __init__(self, client: Any, headers: dict[str, str]) -> None:
        self._client = client
        self._options = {"headers": headers, "client_timeout": _CALL_TIMEOUT_S}

    async def takes_batch(self, model: str, count: int) -> bool:
        """Whether a model can be sent that many pictures in one request."""
        config = (await _told(self._client.get_model_config(model, **self._options))).config
        if config.max_batch_size > 0:
            return count <= int(config.max_batch_size)
        return bool(config.input and config.input[0].dims[0] in (-1, count))

    async def counters(self, model: str) -> Counters:
        """What the server has counted for all versions of a model."""
        versions = (await _told(self._client.get_inference_statistics(model, **self._options))).model_stats
        durations = [[getattr(version.inference_stats, part) for version in versions] for part in _PARTS]
        return Counters(tuple((sum(one.ns for one in part), sum(one.count for one in part)) for part in durations))


@asynccontextmanager
async def examiner(access: Access) -> AsyncIterator[Examiner]:
    """A connection of its own, so that questions do not wait behind tensors."""
    client = aio.InferenceServerClient(access.address, **access.tls_options())
    try:
        yield Examiner(client, access.headers)
    finally:
        await client.close()


async def _told(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except InferenceServerException as exc:
        raise EngineError(f"the server does not tell what a benchmark asks: {exc.message()}") from exc
