"""A local Triton server: started, watched until it is ready, and stopped with all that belongs to it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from math import ceil
from pathlib import Path

from streamproc.errors import EngineError
from streamproc.triton_server.command import ServerOptions, server_command
from streamproc.triton_server.installation import Installation
from streamproc.triton_server.log import LogReader, explain_failure, progress_of
from streamproc.triton_server.programs import Progress, ignore, run
from streamproc.triton_server.state import ServerRecord, servers_folder, started_at, started_servers

__all__ = ["start_server", "stop_server"]

_CHECK_S = 0.05
_HEALTH_TIMEOUT_S = 2.0
_ATTEMPTS = 3
_CANCEL_GRACE_S = 2.0
_KILL_TIMEOUT_S = 10.0
_KEPT_LOGS = 20
# SIGTERM to the server when the thread that started it ends, however it ends (prctl(2), PR_SET_PDEATHSIG = 1). Set in
# the child, before it becomes the server, as nothing may run between fork and exec of a process with threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]): sys.exit("streamproc ended before its server began")
os.execvp(sys.argv[2], sys.argv[2:])
"""


async def start_server(
    installation: Installation,
    options: ServerOptions,
    *,
    on_progress: Progress = ignore,
    ready_timeout_s: float = 300.0,
    dies_with_us: bool = False,
    folder: Path | None = None,
) -> ServerRecord:
    """Start a server and wait until its models are ready; it goes on when we end, unless it ``dies_with_us``.

    ``folder`` is for its record and log, the user's own by default. When the wait is cancelled, the server is stopped.
    With ``dies_with_us`` call it from a thread that lasts, such as the main one.

    Raises:
        EngineError: the repository is not there, a port is taken, or the server ended or was not ready in time; the
            message has the telling lines of its log.
    """
    folder = servers_folder() if folder is None else folder
    if not options.repository.is_dir():
        raise EngineError(
            f"model repository {options.repository}: there is no such folder. Make one with: streamproc models build"
        )
    options = replace(options, repository=options.repository.resolve())
    for _ in range(_ATTEMPTS - 1):
        # A picked port may be taken by another program before the server has it: then others are picked.
        with suppress(_PortLostError):
            return await _start_once(installation, options, folder, on_progress, ready_timeout_s, dies_with_us)
    return await _start_once(installation, options, folder, on_progress, ready_timeout_s, dies_with_us)


async def _start_once(
    installation: Installation,
    options: ServerOptions,
    folder: Path,
    on_progress: Progress,
    ready_timeout_s: float,
    dies_with_us: bool,
) -> ServerRecord:
    with _alone(folder):
        record = _launch(installation, _settle_ports(options, folder), folder, dies_with_us)
    try:
        await _wait_ready(record, on_progress, ready_timeout_s)
    except BaseException:
        await stop_server(record, grace_s=_CANCEL_GRACE_S, folder=folder)
        raise
    return record


async def stop_server(record: ServerRecord, *, grace_s: float | None = None, folder: Path | None = None) -> None:
    """End a server: politely, then by force when ``grace_s`` (by default a little over its own exit timeout) is over.

    Its Python models end with it, and its shared memory and its record are removed; the log stays.
    """
    folder = servers_folder() if folder is None else folder
    grace_s = record.exit_timeout_s + 5.0 if grace_s is None else grace_s
    try:
        if record.alive:
            with suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGTERM)
            if not await _ended(record, grace_s):
                await _kill(record)
    finally:
        if not record.alive:
            record.clean_up(folder)


class _PortLostError(EngineError):
    """A port that was free was taken before the server had it."""


async def _kill(record: ServerRecord) -> None:
    if record.kind == "docker":  # killing its client would leave the container running
        await run("docker", "kill", record.name, timeout_s=_KILL_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(record.pid, signal.SIGKILL)
    if not await _ended(record, _KILL_TIMEOUT_S):
        raise EngineError(f"the Triton server with pid {record.pid} cannot be killed. See its log: {record.log}")


async def _ended(record: ServerRecord, timeout_s: float) -> bool:
    for _ in range(ceil(timeout_s / _CHECK_S)):
        if not record.alive:
            return True
        await asyncio.sleep(_CHECK_S)
    return not record.alive


def _launch(installation: Installation, options: ServerOptions, folder: Path, dies_with_us: bool) -> ServerRecord:
    name = f"streamproc_triton_{options.grpc_port}_{secrets.token_hex(4)}"
    command = server_command(installation, options, name=name)
    if dies_with_us:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    log = _fresh_log(folder, options.grpc_port)
    opened = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    try:
        # Of the ways to start a process, the one that leaves no object to answer for: the server may outlive us.
        pid = os.posix_spawnp(
            command[0],
            command,
            {**os.environ, **installation.environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), opened, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsigdef=[signal.SIGPIPE],  # which Python ignores
            setsid=True,  # Ctrl-C in our terminal is not for it, and all its processes are one group
        )
    except OSError as exc:
        raise EngineError(f"{command[0]} cannot be started (log {log}): {exc.strerror}. Install it again.") from exc
    record = ServerRecord(
        kind=installation.kind,
        pid=pid,
        started=started_at(pid),
        name=name,
        address=options.address,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        metrics_port=options.metrics_port,
        tls=options.tls is not None,
        repository=str(options.repository),
        log=str(log),
        exit_timeout_s=options.exit_timeout_s,
        owner_pid=os.getpid() if dies_with_us else None,
    )
    record.save(folder)
    return record


def _fresh_log(folder: Path, port: int) -> Path:
    """The log's path; the last one of this port is kept beside it, and the oldest of all ports go."""
    log = folder / f"{port}.log"
    with suppress(FileNotFoundError):
        log.replace(folder / f"{port}.previous.log")
    in_use = {Path(record.log) for record in started_servers(folder)}
    others = sorted(set(folder.glob("*.log")) - in_use, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[_KEPT_LOGS:]:
        path.unlink(missing_ok=True)
    return log


async def _wait_ready(record: ServerRecord, on_progress: Progress, timeout_s: float) -> None:
    log = LogReader(Path(record.log))
    doing = "starting"
    try:
        async with asyncio.timeout(timeout_s):
            while not await _is_ready(record.http_port):
                alive = record.alive  # asked before the log is read: what a dead one wrote is all there
                for line in log.lines():
                    if told := progress_of(line):
                        doing = told
                        on_progress(told)
                if not alive:
                    raise _failure(record)
                await asyncio.sleep(_CHECK_S)
        for line in log.lines():
            if told := progress_of(line):
                on_progress(told)
    except TimeoutError as exc:
        raise EngineError(
            f"the Triton server was not ready within {timeout_s:g} s (last: {doing}). "
            f"Allow it more time, or see its log: {record.log}"
        ) from exc


def _failure(record: ServerRecord) -> EngineError:
    cause = explain_failure(Path(record.log).read_text(errors="replace"))
    kind = _PortLostError if "already in use" in cause else EngineError
    return kind(f"the Triton server ended before it was ready:\n{cause}\nIts log: {record.log}")


async def _is_ready(http_port: int) -> bool:
    """Ask as plainly as can be: no proxy and no session comes between."""
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
            try:
                writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of several starts at once, one at a time: they would find the same port free."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _settle_ports(options: ServerOptions, folder: Path) -> ServerOptions:
    """Pick free ports for those left open, and see that the others are free."""
    wanted = {
        "grpc_port": (options.address, options.grpc_port),
        "http_port": ("127.0.0.1", options.http_port),
        "metrics_port": (options.address, options.metrics_port),
    }
    _refuse_ours({port for _, port in wanted.values()}, folder)
    settled: dict[str, int] = {}
    with ExitStack() as held:  # until all are found, so that none is found twice
        for key, (address, port) in wanted.items():
            probe = held.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT is no obstacle
            try:
                probe.bind((address, port))
            except OSError as exc:
                raise EngineError(
                    f"{key.removesuffix('_port')} port {port} of {address}: it cannot be had: {exc.strerror}. "
                    "Choose another port, or end what listens there."
                ) from exc
            settled[key] = probe.getsockname()[1]
    return replace(options, **settled)  # type: ignore[arg-type]  # ports, by their fields' names


def _refuse_ours(ports: set[int], folder: Path) -> None:
    """Name the server of ours that has one of the ports, or is about to."""
    for record in started_servers(folder):
        if taken := ports & {record.grpc_port, record.http_port, record.metrics_port}:
            raise EngineError(
                f"port {taken.pop()}: a Triton server started by streamproc has it (pid {record.pid}, "
                f"{record.repository}). Use that one ({record.url}), choose another port, or stop it: "
                f"streamproc triton stop --port {record.grpc_port}"
            )
