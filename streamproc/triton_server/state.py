"""The servers that were started here: one small file each, by gRPC port, so that a later command finds them."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from streamproc.triton_server.folders import state_folder

__all__ = ["ServerRecord", "servers_folder", "started_at", "started_servers"]

_REGIONS = Path("/dev/shm")
_KILL_TIMEOUT_MS = 1000


class _Process(NamedTuple):
    """What the kernel tells of a process: whether it has ended and only waits to be reaped, and when it began, in
    ticks since the boot."""

    ended: bool
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """A started server. ``started`` tells its process from a later one with the same ``pid``; ``name`` begins the names
    of its shared memory regions and is the container's name where ``kind`` is docker. ``owner_pid`` is the process that
    it was started to serve and dies with, None for one that stays."""

    kind: str
    pid: int
    started: int
    name: str
    address: str
    grpc_port: int
    http_port: int
    metrics_port: int
    tls: bool
    repository: str
    log: str
    exit_timeout_s: int
    owner_pid: int | None

    @property
    def url(self) -> str:
        """Where a client on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)
        return f"grpc{'s' if self.tls else ''}://{f'[{host}]' if ':' in host else host}:{self.grpc_port}"

    @property
    def alive(self) -> bool:
        """Whether the process still runs. Reaps it if it is a child of ours."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        found = _process(self.pid)
        return found is not None and found.started == self.started and not found.ended

    def save(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        path = folder / f"{self.grpc_port}.json"
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(dataclasses.asdict(self), indent=1))
        draft.replace(path)

    def clean_up(self, folder: Path) -> None:
        """After the server's end: no process, no shared memory and no file of its stays."""
        _kill_all(_stubs(self.name))
        for region in _REGIONS.glob(f"{self.name}_*"):
            region.unlink(missing_ok=True)
        path = folder / f"{self.grpc_port}.json"
        if (kept := _read(path)) is not None and kept.name == self.name:
            path.unlink(missing_ok=True)


def servers_folder() -> Path:
    """The user's folder for records and logs of servers; made if need be."""
    folder = state_folder() / "triton"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def started_servers(folder: Path | None = None) -> tuple[ServerRecord, ...]:
    """The servers that run, by port; what dead ones left behind is cleaned up."""
    folder = servers_folder() if folder is None else folder
    alive = []
    for path in folder.glob("*.json"):
        record = _read(path)
        if record is None:
            continue
        if record.alive:
            alive.append(record)
        else:
            record.clean_up(folder)
    return tuple(sorted(alive, key=lambda record: record.grpc_port))


def started_at(pid: int) -> int:
    """When a process began, in ticks since the boot; 0 if it has ended."""
    found = _process(pid)
    return 0 if found is None else found.started


def _kill_all(pids: Iterable[int]) -> None:
    """Kill processes and see them end, with all that they hold open: a matter of milliseconds."""
    ends = []
    ended = select.poll()
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                ends.append(os.pidfd_open(pid))
                ended.register(ends[-1], select.POLLIN)
                signal.pidfd_send_signal(ends[-1], signal.SIGKILL)
        for _ in ends:
            for end, _event in ended.poll(_KILL_TIMEOUT_MS):
                ended.unregister(end)
    finally:
        for end in ends:
            os.close(end)


def _read(path: Path) -> ServerRecord | None:
    try:
        return ServerRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # gone meanwhile, or written by another release
        return None


def _process(pid: int) -> _Process | None:
    try:
        # The second field, the program's name in brackets, may itself hold brackets and spaces. See proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A zombie with threads is still being taken apart: its files, and so its ports, are open.
    return _Process(ended=fields[0] == "Z" and int(fields[17]) <= 1, started=int(fields[19]))


def _stubs(name: str) -> Iterator[int]:
    """The processes of a server's Python models: each is given the name of its shared memory region."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if any(argument.startswith(f"{name}_".encode()) for argument in arguments):
            yield int(path.parent.name)
