"""A Triton of our own, for as long as a run lasts."""

from __future__ import annotations

import asyncio
import logging
from asyncio import TaskGroup
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from streamproc.backoff import Backoff
from streamproc.errors import EngineError
from streamproc.telemetry import RateLimitedLog
from streamproc.triton_server.command import ServerOptions
from streamproc.triton_server.installation import Installation, ServerChoice, find_server
from streamproc.triton_server.process import start_server, stop_server
from streamproc.triton_server.programs import Progress, ignore
from streamproc.triton_server.state import ServerRecord

__all__ = ["managed_server"]

_log = logging.getLogger(__name__)

_CHECK_S = 0.25
_HEALTHY_S = 60.0


@asynccontextmanager
async def managed_server(
    repository: Path,
    *,
    models: tuple[str, ...] = (),
    choice: ServerChoice = "auto",
    on_progress: Progress = ignore,
    folder: Path | None = None,
) -> AsyncIterator[str]:
    """A ready server over ``repository`` while the block lasts; gives its URL, ``grpc://127.0.0.1:PORT``.

    ``models`` are loaded, all if empty. When the server ends by itself it is started again, on the same port. It ends
    with us however we end: when we are killed, the kernel sends it SIGTERM, and it takes at most its exit timeout
    (docker's client hands the signal on to the container). Enter it in the main thread.

    Raises:
        DependencyError: there is no Triton here, and none can be set up.
        EngineError: it cannot be started; the message has the telling lines of its log.
    """
    installation = await find_server(choice, on_progress=on_progress)
    _log.info("managed Triton server: %s", installation.why)
    options = ServerOptions(repository=repository, models=models)
    record = await start_server(installation, options, on_progress=on_progress, dies_with_us=True, folder=folder)
    ports = {"grpc_port": record.grpc_port, "http_port": record.http_port, "metrics_port": record.metrics_port}
    keeper = _Keeper(installation, replace(options, **ports), record, folder)  # type: ignore[arg-type]
    group = TaskGroup()
    await group.__aenter__()
    keeping = group.create_task(keeper.keep_running(), name="managed Triton server")
    try:
        yield record.url
    finally:
        keeping.cancel()
        try:
            await group.__aexit__(None, None, None)  # the block's own error goes on as it is, in no group
        finally:
            await stop_server(keeper.record, folder=folder)


class _Keeper:
    """Starts the server again whenever it has ended."""

    def __init__(
        self, installation: Installation, options: ServerOptions, record: ServerRecord, folder: Path | None
    ) -> None:
        self.record = record
        self._installation = installation
        self._options = options
        self._folder = folder
        self._warnings = RateLimitedLog(_log)

    async def keep_running(self) -> None:
        backoff = Backoff(0.5, 10.0)
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            while self.record.alive:  # noqa: ASYNC110  # of a process that is not asyncio's, there is no event
                await asyncio.sleep(_CHECK_S)
            if loop.time() - began_s > _HEALTHY_S:
                backoff.reset()
            _log.warning("the managed Triton server ended; starting it again. Its log: %s", self.record.log)
            await self._restart(backoff)

    async def _restart(self, backoff: Backoff) -> None:
        while True:
            await asyncio.sleep(backoff.next_s())
            try:
                self.record = await start_server(
                    self._installation, self._options, dies_with_us=True, folder=self._folder
                )
            except EngineError as exc:
                self._warnings.warning("restart", "%s", exc)
            else:
                return
