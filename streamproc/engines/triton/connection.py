"""One server's gRPC service: typed calls, each with a deadline, and its failures sorted by what to do about them."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from streamproc.config import GrpcTlsConfig
from streamproc.errors import EngineError

__all__ = ["CALL_TIMEOUT_S", "CallError", "Connection", "Trouble", "explain"]

CALL_TIMEOUT_S = 5.0
"""For calls about a model rather than through it; these take milliseconds where the server is well."""

_CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", -1),  # inline batches are larger than gRPC's 4 MB
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is to be noticed at once: by default gRPC waits up to two minutes between attempts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Despite its name how long one attempt may take, TLS included: seven round trips of 300 ms.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # Finds a peer that vanished without a word. Triton takes one ping in 5 minutes while calls are under way, and
    # answers more with GOAWAY; --grpc-http2-min-recv-ping-interval-without-data.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),  # we know better which batches are still worth it
    # Every connection has a peer of its own: channels that share one would fail together.
    ("grpc.use_local_subchannel_pool", 1),
]


_TLS_WORDS = re.compile(r"(?i)\bssl|\btls\b|handshake|certificate|hostname verification")


class Trouble(Enum):
    """What a failed call means."""

    UNREACHABLE = "unreachable"
    """No connection, or it broke: the request may or may not have arrived."""
    SLOW = "slow"
    """No answer within the deadline: the server may still be at work on it."""
    BUSY = "busy"
    """Turned away for now: by the queue policy, or because a region is still in use."""
    NOT_READY = "not ready"
    """The model is not there (any more, or yet)."""
    NO_REGION = "no region"
    """The server does not know a shared memory region that the request names."""
    TOO_SMALL = "too small"
    """An output does not fit in the memory set aside for it."""
    DENIED = "denied"
    """Wrong or missing credentials."""
    REFUSED = "refused"
    """The server understood and said no; asking again would not help."""


class CallError(Exception):
    """A call that failed. ``said`` is the server's or gRPC's own text, in one line."""

    def __init__(self, trouble: Trouble, said: str) -> None:
        super().__init__(said)
        self.trouble = trouble
        self.said = said

    @property
    def nobody_there(self) -> bool:
        """Whether nothing listens on the server's port: its process has ended.

        gRPC tells of the address tried last, and of a name's two that may be the IPv6 one, where a server on 127.0.0.1
        never listened.
        """
        said = self.said
        return self.trouble is Trouble.UNREACHABLE and "onnection refused" in said and "ipv4:" in said

    @property
    def about_tls(self) -> bool:
        """Whether a connection failed because the two sides agreed on no encryption."""
        return self.trouble is Trouble.UNREACHABLE and bool(_TLS_WORDS.search(self.said))


class Connection:
    """A channel to one server; it connects by itself, whenever there is something to call.

    Args:
        url: ``grpc://host:port`` or ``grpcs://host:port``.
        headers: sent with every call.
        tls: certificates for ``grpcs://``.

    Raises:
        EngineError: a certificate file cannot be read.
    """

    def __init__(self, url: str, headers: Mapping[str, str], tls: GrpcTlsConfig | None) -> None:
        self.url = url
        parts = urlsplit(url)
        self._metadata = tuple(headers.items())
        if parts.scheme == "grpcs":
            options = list(_CHANNEL_OPTIONS)
            if tls is not None and tls.server_name is not None:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self._channel = grpc.aio.secure_channel(parts.netloc, _credentials(tls), options=options)
        else:
            self._channel = grpc.aio.insecure_channel(parts.netloc, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def server_version(self) -> str:
        """The server's version, such as ``2.51.0``."""
        version: str = (await self._call("ServerMetadata", service_pb2.ServerMetadataRequest())).version
        return version

    async def model_ready(self, model: str, version: str) -> bool:
        """Whether the model takes requests."""
        request = service_pb2.ModelReadyRequest(name=model, version=version)
        return bool((await self._call("ModelReady", request)).ready)

    async def model_config(self, model: str, version: str) -> model_config_pb2.ModelConfig:
        """The model's configuration, completed by the server."""
        request = service_pb2.ModelConfigRequest(name=model, version=version)
        return (await self._call("ModelConfig", request)).config

    async def model_metadata(self, model: str, version: str) -> service_pb2.ModelMetadataResponse:
        """The versions that are served, and the tensors with their batch dimension."""
        return await self._call("ModelMetadata", service_pb2.ModelMetadataRequest(name=model, version=version))

    async def repository(self) -> dict[str, list[tuple[str, str, str]]]:
        """(version, state, reason) of everything in the server's repository, by model."""
        index = await self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest())
        found: dict[str, list[tuple[str, str, str]]] = {}
        for entry in index.models:
            found.setdefault(entry.name, []).append((entry.version, entry.state, entry.reason))
        return found

    async def register_system_region(self, name: str, key: str, nbytes: int) -> None:
        """Let the server map a POSIX segment under a name that it does not know yet."""
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=0, byte_size=nbytes)
        await self._call("SystemSharedMemoryRegister", request)

    async def unregister_system_region(self, name: str) -> None:
        """Let the server forget one region, known or not. Without a name it would forget those of other clients."""
        if not name:
            raise ValueError("name of a shared memory region: expected one, got nothing")
        await self._call("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=name))

    async def system_regions(self) -> set[str]:
        """The names of the regions that the server has mapped, everybody's."""
        status = await self._call("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest())
        return set(status.regions)

    async def register_cuda_region(self, name: str, handle: bytes, device: int, nbytes: int) -> None:
        """Let the server open GPU memory by its interprocess handle, in base64."""
        request = service_pb2.CudaSharedMemoryRegisterRequest(
            name=name, raw_handle=base64.b64decode(handle), device_id=device, byte_size=nbytes
        )
        await self._call("CudaSharedMemoryRegister", request)

    async def cuda_regions(self) -> set[str]:
        """The names of the GPU memory that the server has open, everybody's."""
        status = await self._call("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest())
        return set(status.regions)

    async def unregister_cuda_region(self, name: str) -> None:
        """Let the server forget one region, known or not."""
        if not name:
            raise ValueError("name of a shared memory region: expected one, got nothing")
        await self._call("CudaSharedMemoryUnregister", service_pb2.CudaSharedMemoryUnregisterRequest(name=name))

    async def infer(self, request: service_pb2.ModelInferRequest, timeout_s: float) -> service_pb2.ModelInferResponse:
        """Run the model."""
        return await self._call("ModelInfer", request, timeout_s)

    async def close(self) -> None:
        """End the connection; calls under way fail."""
        await self._channel.close()

    async def _call(self, method: str, request: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise _sorted(exc) from exc
        except asyncio.CancelledError:
            # The channel was closed under the call: gRPC cancels the call, which is not to cancel the caller.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise CallError(Trouble.UNREACHABLE, "the connection was closed") from None


def explain(url: str, error: CallError) -> str:
    """A failed call in words for the user, with what to do about it."""
    said = error.said.rstrip(". ")
    match error.trouble:
        case Trouble.UNREACHABLE if error.about_tls:
            return (
                f"triton {url}: no encrypted connection: {said}. Check engine.tls (ca, certificate, key, server_name), "
                "and that the server uses TLS"
            )
        case Trouble.UNREACHABLE:
            tls = "ask for our certificate (engine.tls)" if url.startswith("grpcs:") else "want TLS (grpcs://)"
            return (
                f"triton {url}: cannot be reached: {said}. Is the server running, is this its gRPC port, and does it "
                f"{tls}?"
            )
        case Trouble.SLOW:
            return f"triton {url}: no answer in time: {said}"
        case Trouble.DENIED:
            return f"triton {url}: access denied: {said}. Check engine.headers"
        case Trouble.NOT_READY:
            return f"triton {url}: not ready: {said}"
        case _:
            return f"triton {url}: {said}"


def _sorted(exc: grpc.aio.AioRpcError) -> CallError:
    said = " ".join((exc.details() or exc.code().name).removeprefix("[request id: <id_unknown>]").split())
    return CallError(_trouble(exc.code(), said), said)


def _trouble(code: grpc.StatusCode, said: str) -> Trouble:
    """Triton tells most causes by text alone; the texts are those of its source."""
    if "shared memory region" in said and "nable to find" in said:
        return Trouble.NO_REGION
    if "to hold the results" in said:
        return Trouble.TOO_SMALL
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Trouble.SLOW
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or "protocol is restricted" in said:
        return Trouble.DENIED
    if any(text in said for text in ("equest timeout expired", "xceeds maximum queue size", "currently in use")):
        return Trouble.BUSY
    if code == grpc.StatusCode.NOT_FOUND or "unknown model" in said or "not ready" in said or "is not healthy" in said:
        return Trouble.NOT_READY
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Trouble.UNREACHABLE
    return Trouble.REFUSED


def _credentials(tls: GrpcTlsConfig | None) -> grpc.ChannelCredentials:
    ca, certificate, key = (tls.ca, tls.certificate, tls.key) if tls is not None else (None, None, None)
    return grpc.ssl_channel_credentials(
        root_certificates=_read(ca, "engine.tls.ca"),
        private_key=_read(key, "engine.tls.key"),
        certificate_chain=_read(certificate, "engine.tls.certificate"),
    )


def _read(path: Path | None, key: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise EngineError(
            f"{key}: {path} cannot be read: {exc.strerror}. Correct the path, or its permissions"
        ) from exc
    if b"-----BEGIN " not in content:
        raise EngineError(f"{key}: {path} holds no PEM text (-----BEGIN ...). Name a PEM file, or convert it to PEM")
    return content
