"""A real server: how it starts, what it says when it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import shared_memory

from streamproc.config import GrpcTlsConfig
from streamproc.errors import EngineError
from streamproc.triton_server.command import ServerOptions, ServerTls
from streamproc.triton_server.managed import managed_server
from streamproc.triton_server.process import start_server, stop_server
from streamproc.triton_server.state import ServerRecord, started_servers
from streamproc.triton_server.status import SharedRegion, server_status
from tests.brokers import free_port, make_certificates
from tests.triton import add_model, running_server, server_installation, tiny_repository

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the engines' contract."""
    return tiny_repository(tmp_path_factory.mktemp("models"))


def regions_of(record: ServerRecord) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{record.name}_*"))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def family(record: ServerRecord) -> list[psutil.Process]:
    """The server's process and those of its Python models."""
    server = psutil.Process(record.pid)
    return [server, *server.children(recursive=True)]


def listening(record: ServerRecord) -> set[int]:
    """The ports it listens on; all of them for this machine alone."""
    found = [each.laddr for each in psutil.Process(record.pid).net_connections("tcp") if each.status == "LISTEN"]
    assert {address.ip.removeprefix("::ffff:") for address in found} == {"127.0.0.1"}
    return {address.port for address in found}


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that rings no bell."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def none_runs(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


async def test_a_server_from_start_to_stop(repository: Path, tmp_path: Path) -> None:
    told: list[str] = []
    options = ServerOptions(repository=repository, models=("fragile",))
    record = await start_server(server_installation(), options, on_progress=told.append, folder=tmp_path)
    try:
        assert told == ["loading fragile version 1", "loaded fragile"]
        assert started_servers(tmp_path) == (record,)
        assert os.getsid(record.pid) == record.pid, "Ctrl-C in the terminal must not reach it"
        status = await server_status(record.url)
        assert (status.version, status.live, status.ready, status.refused) == ("2.51.0", True, True, ())
        assert [(model.name, model.version, model.state) for model in status.models] == [
            ("fragile", "1", "READY"),
            ("means", "", ""),
        ]
        await eventually(lambda: listening(record) == {record.grpc_port, record.http_port, record.metrics_port})
        assert regions_of(record)
        processes = family(record)
    finally:
        await stop_server(record, folder=tmp_path)
    assert none_runs(processes)
    assert not regions_of(record)
    assert started_servers(tmp_path) == ()
    assert names_in(tmp_path) == {f"{record.grpc_port}.log", "lock"}
    await stop_server(record, folder=tmp_path)  # once more changes nothing


async def test_what_a_killed_server_leaves_goes_with_the_next_start(repository: Path) -> None:
    with running_server(repository, models=("fragile",)) as server:
        first, processes = server.record, family(server.record)
        server.kill()
        server.start()
        assert (server.record.grpc_port, server.url) == (first.grpc_port, first.url)
        assert server.pid != first.pid
        assert none_runs(processes)
        assert not regions_of(first)
        processes = family(server.record)
        server.discard()
        assert none_runs(processes)
        assert not regions_of(server.record)


async def test_a_taken_port(repository: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EngineError, match=rf"grpc port {port} of 127\.0\.0\.1: it cannot be had: Address already"):
            await start_server(
                server_installation(), ServerOptions(repository=repository, grpc_port=port), folder=tmp_path
            )


async def test_a_port_of_a_server_that_we_started(repository: Path, tmp_path: Path) -> None:
    options = ServerOptions(repository=repository, models=("fragile",))
    record = await start_server(server_installation(), options, folder=tmp_path)
    try:
        again = ServerOptions(repository=repository, grpc_port=record.grpc_port)
        with pytest.raises(
            EngineError, match=rf"\(pid {record.pid}, .*streamproc triton stop --port {record.grpc_port}"
        ):
            await start_server(server_installation(), again, folder=tmp_path)
        assert record.alive
    finally:
        await stop_server(record, grace_s=0, folder=tmp_path)


async def test_two_starts_at_once_on_one_port(repository: Path, tmp_path: Path) -> None:
    options = ServerOptions(repository=repository, models=("fragile",), grpc_port=free_port())
    starts = (start_server(server_installation(), options, folder=tmp_path) for _ in range(2))
    first, second = await asyncio.gather(*starts, return_exceptions=True)
    assert isinstance(first, ServerRecord)
    try:
        assert isinstance(second, EngineError)
        assert started_servers(tmp_path) == (first,)
    finally:
        await stop_server(first, grace_s=0, folder=tmp_path)


async def test_statistics_and_regions(repository: Path) -> None:
    with (
        running_server(repository, models=("means",)) as server,
        InferenceServerClient(server.url.removeprefix("grpc://")) as client,
    ):
        tensor = InferInput("images", [2, 32, 64, 3], "UINT8")
        tensor.set_data_from_numpy(np.zeros((2, 32, 64, 3), dtype=np.uint8))
        for _ in range(3):
            client.infer("means", [tensor])
        region = shared_memory.create_shared_memory_region("of_a_test", f"/of_a_test_{os.getpid()}", 8192)
        try:
            client.register_system_shared_memory("of_a_test", f"/of_a_test_{os.getpid()}", 8192)
            status = await server_status(server.url)
            client.unregister_system_shared_memory("of_a_test")
        finally:
            shared_memory.destroy_shared_memory_region(region)
    assert status.regions == (
        SharedRegion(kind="system", name="of_a_test", key=f"/of_a_test_{os.getpid()}", nbytes=8192),
    )
    _, means = status.models
    assert (means.name, means.state, means.inferences, means.executions, means.failures) == ("means", "READY", 6, 3, 0)
    for mean_ms in (means.queue_ms, means.input_ms, means.infer_ms, means.output_ms):
        assert mean_ms is not None
        assert mean_ms > 0


async def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"there is no such folder.*streamproc models build"):
        await start_server(server_installation(), ServerOptions(repository=tmp_path / "none"), folder=tmp_path)


async def test_a_broken_model(tmp_path: Path) -> None:
    config = """
    max_batch_size: 1
    input [{ name: "images" data_type: TYPE_UINT8 dims: [32, 32, 3] }]
    output [{ name: "mean" data_type: TYPE_FP32 dims: [1] }]
    """
    add_model(tmp_path / "models", "broken", config, runtime="openvino").write_bytes(b"no model")
    options = ServerOptions(repository=tmp_path / "models", exit_timeout_s=1)
    with pytest.raises(EngineError) as caught:
        await start_server(server_installation(), options, folder=tmp_path)
    said = str(caught.value)
    assert "model broken version 1: UNAVAILABLE" in said
    assert "OpenVINO cannot" in said
    assert "failed to load all models" in said
    assert f"Its log: {tmp_path}" in said
    assert {name.rpartition(".")[2] for name in names_in(tmp_path)} == {"models", "lock", "log"}


async def test_an_unknown_model(repository: Path, tmp_path: Path) -> None:
    options = ServerOptions(repository=repository, models=("nosuch",))
    with pytest.raises(EngineError, match="failed to poll model 'nosuch': model not found"):
        await start_server(server_installation(), options, folder=tmp_path)


async def test_too_little_time(repository: Path, tmp_path: Path) -> None:
    options = ServerOptions(repository=repository)
    with pytest.raises(EngineError, match=r"not ready within 0\.1 s \(last: "):
        await start_server(server_installation(), options, ready_timeout_s=0.1, folder=tmp_path)
    assert started_servers(tmp_path) == ()


async def test_a_cancelled_start_leaves_no_server(repository: Path, tmp_path: Path) -> None:
    begun = asyncio.Event()
    options = ServerOptions(repository=repository)
    start = start_server(server_installation(), options, on_progress=lambda _: begun.set(), folder=tmp_path)
    task = asyncio.create_task(start)
    await begun.wait()
    (record,) = started_servers(tmp_path)
    processes = family(record)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: none_runs(processes))
    assert not regions_of(record)
    assert not any(name.endswith(".json") for name in names_in(tmp_path))


async def test_tls_with_client_certificates_and_a_token(repository: Path, tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "certificates")
    tls = ServerTls(certificate=made.server, key=made.server_key, client_ca=made.ca)
    rule = "model-repository,statistics:token=secret"
    with running_server(repository, models=("fragile",), tls=tls, restricted=(rule,)) as server:
        assert server.url.startswith("grpcs://")
        ours = GrpcTlsConfig(ca=made.ca, certificate=made.client, key=made.client_key)
        status = await server_status(server.url, tls=ours)
        assert (status.ready, status.models) == (True, ())
        assert [said.partition(":")[0] for said in status.refused] == ["models", "statistics"]
        status = await server_status(server.url, tls=ours, headers={"triton-grpc-protocol-token": "secret"})
        assert (len(status.models), status.refused) == (2, ())
        for url, wrong in ((server.url, GrpcTlsConfig(ca=made.ca)), (server.url.replace("grpcs", "grpc"), None)):
            with pytest.raises(EngineError, match=r"use grpcs:// and its certificate authority"):
                await server_status(url, tls=wrong)
        unreadable = GrpcTlsConfig(ca=tmp_path / "none.pem")
        with pytest.raises(EngineError, match=r"none\.pem cannot be read: No such file"):
            await server_status(server.url, tls=unreadable)
    with pytest.raises(EngineError, match=r"Start it \(streamproc triton start\)"):
        await server_status(server.url.replace("grpcs", "grpc"))


async def test_what_no_address_is() -> None:
    with pytest.raises(EngineError, match=r"found http://h:8001; expected grpc://HOST:PORT"):
        await server_status("http://h:8001")


async def test_a_managed_server_comes_back_and_ends_with_the_block(repository: Path, tmp_path: Path) -> None:
    server_installation()
    async with managed_server(repository, models=("fragile",), choice="wheel", folder=tmp_path) as url:
        (first,) = started_servers(tmp_path)
        assert (url, first.owner_pid) == (first.url, os.getpid())
        os.kill(first.pid, signal.SIGKILL)
        await eventually(lambda: not first.alive)

        def is_back() -> bool:
            return any(record.pid != first.pid for record in started_servers(tmp_path))

        await eventually(is_back)
        (second,) = started_servers(tmp_path)
        assert second.url == url
    assert not second.alive
    assert not [*regions_of(first), *regions_of(second)]
    assert started_servers(tmp_path) == ()


_RUN = """
import asyncio, sys
from pathlib import Path
from streamproc.triton_server.managed import managed_server

async def main():
    async with managed_server(Path(sys.argv[1]), models=("fragile",), choice="wheel", folder=Path(sys.argv[2])):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_managed_server_dies_with_us_when_we_are_killed(repository: Path, tmp_path: Path) -> None:
    server_installation()
    command = [sys.executable, "-c", _RUN, str(repository), str(tmp_path)]
    ours = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert ours.stdout is not None
    assert ours.stdout.readline() == b"ready\n"
    (record,) = started_servers(tmp_path)
    processes = family(record)
    ours.kill()
    ours.wait()
    ours.stdout.close()
    asyncio.run(eventually(lambda: none_runs(processes)))
    assert started_servers(tmp_path) == ()
    assert not regions_of(record)
