"""One Triton server as the engine sees it: ready or away, what it has mapped, and how it comes back.

A server is ready when the model takes requests and, where we share memory with it, has our regions mapped. What makes
it away is a request that failed for a reason that lies with the server; a task then tries, with back-off, until all
of that is true again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from streamproc.backoff import Backoff
from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.cuda import CudaRegion
from streamproc.engines.shared_memory import SystemRegion, orphans
from streamproc.engines.triton.buffers import Buffers, Transport, cuda_name
from streamproc.engines.triton.connection import CallError, Connection, Trouble, explain
from streamproc.engines.triton.served import Served, read_served
from streamproc.errors import EngineError, FatalError, ModelError

__all__ = ["ABANDONED_S", "Server", "version_of"]

_log = logging.getLogger(__name__)

# The pipeline is to run again within 2 s of the server's readiness: no attempt waits longer than half a second.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.1, 0.5
_NO_WORD = (Trouble.UNREACHABLE, Trouble.SLOW)
_WELL_S = 5.0  # what fails again sooner than this is tried again with more and more delay
_STILL_AWAY_S = 30.0  # between two lines in the log about the same trouble
_DETACH_S = 2.0
_DETACH_POLL_S = 0.1

ABANDONED_S = 30.0
"""A server that is heard of has finished a request, or has given it up, after so long."""


class Server:
    """A connection, its state, and the batches under way on it.

    ``transport`` is how tensors reach it, ``why_not`` why by none of the faster ways. ``broken`` says why it will not
    come back by itself. ``let_go`` is set, and replaced, when the server is found not to map our regions any more:
    nothing that was sent before can touch them then.

    Args:
        on_change: called whenever the server becomes ready, away or broken.
    """

    def __init__(
        self, connection: Connection, engine: EngineConfig, model: ModelConfig, on_change: Callable[[], None]
    ) -> None:
        self.connection = connection
        self.url = connection.url
        self.in_flight = 0
        self.ready = False
        self.transport: Transport = "none"
        self.why_not: dict[Transport, str] = {}
        self.broken: str | None = None
        self._engine = engine
        self._model = model
        self._version = version_of(model)
        self._on_change = on_change
        self._served: Served | None = None
        self._buffers: Buffers | None = None
        self._ill = asyncio.Event()
        self._complained_s: dict[Trouble | str, float] = {}
        self._told = False
        self._silent_s = 0.0  # when it last left us without an answer
        self._mapping = asyncio.Lock()
        self.let_go = asyncio.Event()

    async def examine(self) -> Served:
        """Ask for readiness and for the model's configuration.

        Raises:
            CallError: not reachable, or not ready; the message says what it is waiting for.
            ModelError: the model cannot be served to us: unknown, failed to load, or of the wrong kind.
            EngineError: wrong or missing credentials, or no common TLS.
        """
        try:
            # Not the server's own readiness, which another model that failed to load can deny for good.
            if not await self._model_ready():
                await self._why_not_ready()
            config = await self.connection.model_config(self._model.name, self._version)
        except CallError as error:
            if error.trouble in (Trouble.DENIED, Trouble.REFUSED) or error.about_tls:
                raise EngineError(explain(self.url, error)) from error
            raise
        return read_served(config, self._engine, self._model)

    async def _model_ready(self) -> bool:
        try:
            return await self.connection.model_ready(self._model.name, self._version)
        except CallError as error:
            if error.trouble is not Trouble.NOT_READY:
                raise
            return False  # unknown, or without an available version: the index says more

    async def _why_not_ready(self) -> None:
        """Raise what the server's repository says about the model."""
        repository = await self.connection.repository()
        versions = repository.get(self._model.name)
        if versions is None:
            others = ", ".join(sorted(repository)) or "no models at all"
            raise ModelError(
                f"model {self._model.name}: the server at {self.url} has no such model; it has {others}. Correct "
                "model.name, or add the model to the server's repository."
            )
        wanted = [entry for entry in versions if self._version in ("", entry[0])]
        if not wanted:
            have = ", ".join(version for version, _, _ in versions)
            raise ModelError(
                f"model {self._model.name}: the server at {self.url} has no version {self._version}; it has {have}. "
                "Correct model.version, or widen version_policy in the model's config.pbtxt."
            )
        for version, state, reason in wanted:
            if state == "UNAVAILABLE" and reason not in ("", "unloaded"):
                raise ModelError(
                    f"model {self._model.name}: version {version} could not be loaded by the server at {self.url}: "
                    f"{reason}. Put the model right and load it again."
                )
        states = {state or "not loaded" for _, state, _ in wanted}
        raise CallError(Trouble.NOT_READY, f"model {self._model.name} is {' and '.join(sorted(states))}")

    def prepare(self, served: Served, buffers: Buffers) -> None:
        """Say what is served and shared."""
        self._served, self._buffers = served, buffers

    async def attach(self) -> None:
        """Let the server map our regions, and be ready.

        Raises:
            CallError: the server went away meanwhile.
            EngineError: the transport that was asked for by name does not work with this server.
        """
        assert self._buffers is not None
        self.transport = await self._map(self._buffers)
        self._become_ready()

    async def _map(self, buffers: Buffers) -> Transport:
        if buffers.system is None:
            return "none"
        try:
            await self._register(buffers.system, buffers.cuda)
        except CallError as error:
            if error.trouble in _NO_WORD:
                raise
            await self._withdraw(buffers.system.name)  # it may have one of two
            self.why_not[buffers.transport] = _why_not_shared(buffers.transport, error.said)
            if self._engine.shared_memory != "auto":
                raise EngineError(
                    f"engine.shared_memory: {buffers.transport} does not work with the server at {self.url}: "
                    f"{self.why_not[buffers.transport]}. Put that right, or set engine.shared_memory: auto."
                ) from error
            return "none"
        return buffers.transport

    async def _register(self, system: SystemRegion, cuda: CudaRegion | None) -> None:
        """Register what the server does not know: a region that it works on must not be taken away from under it."""
        async with self._mapping:
            known = await self.connection.system_regions()
            if system.name not in known:
                await self.connection.register_system_region(system.name, system.key, system.size)
            name = cuda_name(system.name)
            if cuda is not None and name not in await self.connection.cuda_regions():
                await self.connection.register_cuda_region(name, cuda.raw_handle, cuda.device, cuda.size)
            # It opened ours, so what is gone from our folder is gone for it as well.
            for orphan in orphans(known):
                _log.info("triton %s: still mapped %s of a killed streamproc; freed", self.url, orphan)
                await self._withdraw(orphan)

    async def detach(self) -> None:
        """Get no more batches, and let the server forget our regions; it may be gone."""
        self.ready = False
        if self._buffers is not None and self._buffers.system is not None:
            await self._withdraw(self._buffers.system.name)

    async def _withdraw(self, name: str) -> None:
        try:
            async with asyncio.timeout(_DETACH_S):
                await self._unregister(name)
        except (CallError, TimeoutError) as error:
            _log.debug("triton %s: could not be told to forget the shared memory %s: %s", self.url, name, error)

    async def _unregister(self, name: str) -> None:
        while True:
            try:
                await self.connection.unregister_system_region(name)
                await self.connection.unregister_cuda_region(cuda_name(name))
            except CallError as error:
                if error.trouble is not Trouble.BUSY:
                    raise
                await asyncio.sleep(_DETACH_POLL_S)  # a request that was abandoned still uses it
            else:
                return

    async def map_again(self) -> bool:
        """Whether the regions could be mapped again, after the server forgot them."""
        assert self._buffers is not None
        try:
            self.transport = await self._map(self._buffers)
        except (CallError, EngineError):
            return False
        _log.info("triton %s: had forgotten our shared memory; tensors travel by %s again", self.url, self.transport)
        return True

    def fell_ill(self, error: CallError) -> None:
        """Get no more batches until :meth:`keep` finds it well."""
        self._note(error)
        if self.ready:
            self.ready = False
            self._complain(error)
            self._ill.set()
            self._on_change()

    def _note(self, error: CallError) -> None:
        if error.trouble is Trouble.SLOW:
            self._silent_s = time.monotonic()
        if error.nobody_there:
            self.release()

    def release(self) -> None:
        """Nothing that was sent before can touch our memory any more."""
        self.let_go.set()
        self.let_go = asyncio.Event()

    async def untouched(self, let_go: asyncio.Event) -> None:
        """Wait until a request without an answer cannot touch our memory any more; ``let_go`` is that of when it was
        sent.

        The server's process has ended, or it has been well, or at least not silent, for a while: one that was stopped
        goes on where it was.
        """
        sent_s = time.monotonic()
        while (left_s := max(sent_s, self._silent_s) + ABANDONED_S - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await let_go.wait()
                    return

    def _become_ready(self) -> None:
        self.ready = True
        self._ill.clear()
        self._on_change()

    async def keep(self) -> None:
        """Bring the server back whenever it is away, for ever."""
        backoff = Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S)
        while True:
            if self.ready:
                ready_s = time.monotonic()
                await self._ill.wait()
                if time.monotonic() - ready_s > _WELL_S:
                    backoff.reset()
                else:
                    await asyncio.sleep(backoff.next_s())
            await self._recover(backoff)

    async def _recover(self, backoff: Backoff) -> None:
        away_since_s = time.monotonic()
        while True:
            try:
                await self._try_again()
            except (CallError, FatalError) as error:
                if isinstance(error, CallError):
                    self._note(error)
                self._complain(error)
                await asyncio.sleep(backoff.next_s())
            else:
                if self._told:
                    _log.info("triton %s: ready again after %.1f s", self.url, time.monotonic() - away_since_s)
                self._told = False
                return

    def _complain(self, error: CallError | FatalError) -> None:
        """Log what is wrong: each kind of trouble once, and again after a while."""
        now_s = time.monotonic()
        kind: Trouble | str = error.trouble if isinstance(error, CallError) else str(error)
        if now_s - self._complained_s.get(kind, -_STILL_AWAY_S) >= _STILL_AWAY_S:
            self._complained_s[kind] = now_s
            self._told = True
            _log.warning("%s; trying again", explain(self.url, error) if isinstance(error, CallError) else error)

    async def _try_again(self) -> None:
        assert self._served is not None
        assert self._buffers is not None
        served = await self.examine()
        if not served.fits(self._served):
            self.broken = (
                f"model {self._model.name}: the server at {self.url} now serves it with other tensors than when we "
                "started. Start streamproc again, or serve the changed model under another name."
            )
            self._on_change()
            raise ModelError(self.broken)
        self.broken = None
        if not await self._still_maps(self._buffers.system):
            self.release()  # it is another process now, or was told to forget us
        await self.attach()

    async def _still_maps(self, system: SystemRegion | None) -> bool:
        try:
            return system is not None and system.name in await self.connection.system_regions()
        except CallError as error:
            if error.trouble in _NO_WORD:
                raise
            return False  # it shares no memory with us at all


def version_of(model: ModelConfig) -> str:
    """The version as the protocol wants it; empty for the server's choice."""
    return "" if model.version is None else str(model.version)


def _why_not_shared(transport: Transport, said: str) -> str:
    if "nable to open" in said or "nable to initialize" in said or "o such file" in said:
        return (
            f"the server cannot open our segment ({said}): it runs on another machine, in a container without "
            "--ipc=host (or ipc: service:... of ours), or as another user"
        )
    if "client-shm" in said or "disabled" in said or "not allowed" in said or "not supported" in said:
        return f"the server refuses it ({said}): start it with --allow-client-shm=true"
    if transport == "cuda":
        return (
            f"the server cannot open our GPU memory ({said}): it runs without this GPU, on another machine, or in a "
            "container without --ipc=host --pid=host"
        )
    return said
