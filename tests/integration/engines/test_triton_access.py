"""Encrypted servers, and servers that want to know who asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from streamproc.config import EngineConfig, GrpcTlsConfig, ModelConfig
from streamproc.engines.triton import TritonEngine
from streamproc.errors import EngineError
from streamproc.triton_server.command import ServerTls
from tests.brokers import Certificates, make_certificates
from tests.integration.engines.scripted import Load, add_scripted
from tests.triton import RunningServer, running_server

SECRET = "a-secret-token"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of another authority."""
    return make_certificates(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_scripted(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def encrypted(repository: Path, ours: Certificates) -> Iterator[RunningServer]:
    with running_server(repository, tls=ServerTls(certificate=ours.server, key=ours.server_key)) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(repository: Path, ours: Certificates) -> Iterator[RunningServer]:
    tls = ServerTls(certificate=ours.server, key=ours.server_key, client_ca=ours.ca)
    with running_server(repository, tls=tls) as server:
        yield server


@pytest.fixture(scope="module")
def restricted(repository: Path) -> Iterator[RunningServer]:
    with running_server(repository, restricted=(f"inference,model-config:authorization={SECRET}",)) as server:
        yield server


@pytest.fixture(scope="module")
def reserved(repository: Path) -> Iterator[RunningServer]:
    """A server that shares memory with its administrators only."""
    with running_server(repository, restricted=(f"shared-memory:admin-key={SECRET}",)) as server:
        yield server


async def opened(server: RunningServer, scheme: str, *, port: int | None = None, **settings: Any) -> TritonEngine:
    host = "localhost" if scheme == "grpcs" else "127.0.0.1"
    url = f"{scheme}://{host}:{port or server.grpc_port}"
    config = EngineConfig(kind="triton", url=url, **{"ready_timeout_s": 5, "max_batch": 4} | settings)
    return await TritonEngine.open(config, ModelConfig(name="scripted"))


async def works(server: RunningServer, scheme: str, **settings: Any) -> TritonEngine:
    """An engine that was opened, used, and closed."""
    engine = await opened(server, scheme, **settings)
    try:
        async with Load(engine) as load:
            await load.more_answers(5)
    finally:
        await engine.close()
    return engine


async def refusal(server: RunningServer, scheme: str, **settings: Any) -> str:
    with pytest.raises(EngineError) as refused:
        await opened(server, scheme, **settings)
    assert SECRET not in str(refused.value)
    return str(refused.value)


async def test_an_authority_of_our_own(encrypted: RunningServer, ours: Certificates) -> None:
    engine = await works(encrypted, "grpcs", tls=GrpcTlsConfig(ca=ours.ca))
    assert engine.description["transport"] == "system shared memory"


@asynccontextmanager
async def far_away(port: int, delay_s: float) -> AsyncIterator[int]:
    """A port that leads to another by a long line: everything takes so long, one way."""
    loop = asyncio.get_running_loop()
    lines: list[asyncio.Task[None]] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            loop.call_later(delay_s, writer.write, chunk)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        lines.extend(asyncio.create_task(line) for line in (carry(reader, back), carry(there, writer)))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as ours:
        yield ours.sockets[0].getsockname()[1]
    with suppress(ConnectionError):
        await asyncio.gather(*lines)


async def test_a_handshake_over_a_long_line(encrypted: RunningServer, ours: Certificates) -> None:
    async with far_away(encrypted.grpc_port, delay_s=0.15) as port:
        await works(encrypted, "grpcs", tls=GrpcTlsConfig(ca=ours.ca), port=port, ready_timeout_s=20)


async def test_a_server_of_another_name(encrypted: RunningServer, ours: Certificates, tmp_path: Path) -> None:
    other = make_certificates(tmp_path / "other", names="DNS:triton.internal")
    tls = ServerTls(certificate=other.server, key=other.server_key)
    with running_server(add_scripted(tmp_path / "models"), tls=tls) as server:
        said = await refusal(server, "grpcs", tls=GrpcTlsConfig(ca=other.ca))
        assert "no encrypted connection" in said
        assert "server_name" in said
        await works(server, "grpcs", tls=GrpcTlsConfig(ca=other.ca, server_name="triton.internal"))


async def test_an_authority_that_the_server_is_not_of(encrypted: RunningServer, theirs: Certificates) -> None:
    said = await refusal(encrypted, "grpcs", tls=GrpcTlsConfig(ca=theirs.ca))
    assert f"triton grpcs://localhost:{encrypted.grpc_port}: no encrypted connection: " in said
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "Check engine.tls (ca, certificate, key, server_name)" in said


async def test_the_systems_authorities_do_not_know_it(encrypted: RunningServer) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(encrypted, "grpcs")


async def test_both_sides_show_a_certificate(mutual: RunningServer, ours: Certificates) -> None:
    await works(mutual, "grpcs", tls=GrpcTlsConfig(ca=ours.ca, certificate=ours.client, key=ours.client_key))


@pytest.mark.parametrize("shown", ["none", "theirs"])
async def test_a_client_without_a_certificate_that_counts(
    mutual: RunningServer, ours: Certificates, theirs: Certificates, shown: str
) -> None:
    tls = GrpcTlsConfig(ca=ours.ca)
    if shown == "theirs":
        tls = GrpcTlsConfig(ca=ours.ca, certificate=theirs.client, key=theirs.client_key)
    said = await refusal(mutual, "grpcs", tls=tls, ready_timeout_s=0.5)
    assert "engine.tls" in said


async def test_a_plain_client_of_an_encrypted_server(encrypted: RunningServer) -> None:
    said = await refusal(encrypted, "grpc", ready_timeout_s=0.5)
    assert "cannot be reached" in said
    assert "grpcs://" in said


async def test_an_encrypted_client_of_a_plain_server(restricted: RunningServer) -> None:
    assert "that the server uses TLS" in await refusal(restricted, "grpcs", ready_timeout_s=0.5)


async def test_a_certificate_that_is_none(encrypted: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    said = await refusal(encrypted, "grpcs", tls=GrpcTlsConfig(ca=tmp_path / "ca.pem"))
    assert f"engine.tls.ca: {tmp_path / 'ca.pem'} holds no PEM text" in said


async def test_the_right_token(restricted: RunningServer) -> None:
    await works(restricted, "grpc", headers={"triton-grpc-protocol-authorization": SECRET})


@pytest.mark.parametrize("headers", [{}, {"triton-grpc-protocol-authorization": "wrong"}, {"authorization": SECRET}])
async def test_no_token_or_a_wrong_one(restricted: RunningServer, headers: dict[str, str]) -> None:
    said = await refusal(restricted, "grpc", headers=headers)
    assert "access denied: This protocol is restricted, expecting header 'triton-grpc-protocol-authorization'" in said
    assert "engine.headers" in said


async def test_shared_memory_for_others_only(reserved: RunningServer) -> None:
    engine = await works(reserved, "grpc")
    assert engine.description["transport"] == "gRPC, within the requests"
    assert "expecting header 'triton-grpc-protocol-admin-key'" in str(engine.description["because"])
    said = await refusal(reserved, "grpc", shared_memory="system")
    assert "engine.shared_memory: system does not work with the server at grpc://" in said
    assert "expecting header 'triton-grpc-protocol-admin-key'" in said
    engine = await works(reserved, "grpc", headers={"triton-grpc-protocol-admin-key": SECRET})
    assert engine.description["transport"] == "system shared memory"
