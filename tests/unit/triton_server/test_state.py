"""What is remembered of started servers, and what of dead ones is cleaned up."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamproc.triton_server.folders import cache_folder, state_folder
from streamproc.triton_server.state import ServerRecord, servers_folder, started_at, started_servers

WAITS = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that wait until they are ended."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WAITS, *arguments]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        out = started[-1].stdout
        assert out is not None
        out.read(1)  # a process that has only just begun has no arguments in /proc yet
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def record(pid: int, port: int = 9001, address: str = "127.0.0.1") -> ServerRecord:
    return ServerRecord(
        kind="wheel",
        pid=pid,
        started=started_at(pid),
        name=f"streamproc_triton_{port}_{secrets.token_hex(4)}",
        address=address,
        grpc_port=port,
        http_port=port + 1,
        metrics_port=port + 2,
        tls=False,
        repository="/models",
        log="/state/9001.log",
        exit_timeout_s=5,
        owner_pid=None,
    )


def test_running_servers_are_found_by_port(tmp_path: Path) -> None:
    ours = [record(os.getpid(), port) for port in (9101, 9001)]
    for each in ours:
        each.save(tmp_path)
    assert started_servers(tmp_path) == tuple(reversed(ours))
    assert ours[0].alive


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "grpc://127.0.0.1:9001"),
        ("0.0.0.0", "grpc://127.0.0.1:9001"),
        ("::", "grpc://[::1]:9001"),
        ("10.0.0.5", "grpc://10.0.0.5:9001"),
    ],
)
def test_where_a_client_finds_it(address: str, url: str) -> None:
    assert record(os.getpid(), address=address).url == url
    assert replace(record(os.getpid(), address=address), tls=True).url == url.replace("grpc:", "grpcs:")


def test_a_dead_server_leaves_nothing_behind(tmp_path: Path, process: Callable[..., subprocess.Popen[bytes]]) -> None:
    server = process()
    dead = record(server.pid)
    dead.save(tmp_path)
    stub, other = process(f"{dead.name}_1234"), process("streamproc_triton_9001_another_1234")
    regions = [Path("/dev/shm", f"{name}_1234") for name in (dead.name, "streamproc_test_of_another")]
    for region in regions:
        region.touch()
    try:
        server.kill()
        server.wait()
        assert started_servers(tmp_path) == ()
        assert [region.exists() for region in regions] == [False, True]
    finally:
        regions[1].unlink()
    assert stub.wait() != 0
    assert other.poll() is None
    assert list(tmp_path.iterdir()) == []


def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    stranger = replace(record(os.getpid()), started=started_at(os.getpid()) - 1)
    stranger.save(tmp_path)
    assert not stranger.alive
    assert started_servers(tmp_path) == ()


def test_a_zombie_is_dead(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    server = process()
    found = record(server.pid)
    assert found.alive
    server.kill()
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert not found.alive


def test_files_of_other_releases_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text("{}")
    (tmp_path / "2.json").write_text("no json")
    assert started_servers(tmp_path) == ()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_newer_server_of_the_port_keeps_its_record(tmp_path: Path) -> None:
    old, new = record(os.getpid()), record(os.getpid())
    new.save(tmp_path)
    old.clean_up(tmp_path)
    assert started_servers(tmp_path) == (new,)


def test_folders_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAMPROC_CACHE", "XDG_CACHE_HOME", "STREAMPROC_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (cache_folder(), state_folder()) == (
        tmp_path / ".cache/streamproc",
        tmp_path / ".local/state/streamproc",
    )
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert (cache_folder(), state_folder()) == (Path("/xdg/streamproc"), tmp_path / ".local/state/streamproc")
    monkeypatch.setenv("STREAMPROC_CACHE", "/own")
    monkeypatch.setenv("STREAMPROC_STATE", str(tmp_path / "state"))
    assert cache_folder() == Path("/own")
    assert servers_folder() == tmp_path / "state/triton"
    assert servers_folder().stat().st_mode & 0o777 == 0o700
