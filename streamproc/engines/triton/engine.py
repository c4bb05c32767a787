"""A model behind one or several Triton servers: batches go out by gRPC, tensors by shared memory where that works.

What a user sees of a server that dies, restarts, unloads its model or forgets our memory is a pause: batches under way
are lost with an :class:`EngineAwayError`, or tried again where they must not be lost, and the server gets work again as
soon as it is ready.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager

from tritonclient.grpc import service_pb2

from streamproc.backoff import Backoff
from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import Outputs, Slot
from streamproc.engines.pool import SlotPool
from streamproc.engines.triton.buffers import TritonSlot
from streamproc.engines.triton.connection import CallError, Trouble, explain
from streamproc.engines.triton.opening import Opened, open_servers
from streamproc.engines.triton.server import ABANDONED_S, Server
from streamproc.errors import EngineAwayError, EngineError

__all__ = ["TritonEngine"]

_CLOSE_S = 3.0


class TritonEngine:
    """A model served by Triton. Made by :meth:`open`."""

    def __init__(self, opened: Opened, engine: EngineConfig, model: ModelConfig) -> None:
        self.info = opened.info
        self.max_batch = opened.served.intake.max_batch
        self.concurrency = opened.in_flight * len(opened.servers)
        self.description = opened.description
        self._servers = opened.servers
        self._buffers = opened.buffers
        self._timeout_s = engine.timeout_s
        self._pool = SlotPool(opened.buffers.slots)
        self._threads = ThreadPoolExecutor(self.concurrency, thread_name_prefix="triton")
        self._changed = opened.changed
        self._closed = False
        self._keepers = [asyncio.create_task(server.keep(), name=f"triton {server.url}") for server in self._servers]

    @classmethod
    async def open(cls, engine: EngineConfig, model: ModelConfig) -> TritonEngine:
        """Connect, wait until a server and its model are ready, and share memory with it.

        Raises:
            ModelError: the model is unknown to the server, could not be loaded by it, or does not suit.
            EngineError: no server was ready in time, or it denied us; or the shared memory asked for is not to be had.
        """
        return cls(await open_servers(engine, model), engine, model)

    @property
    def slots(self) -> int:
        """Slots in the pool."""
        return len(self._pool)

    @property
    def available(self) -> bool:
        """Whether a server is ready, or none will ever be, which :meth:`infer` then says."""
        return any(server.ready for server in self._servers) or self._broken()

    def lease(self) -> AbstractAsyncContextManager[Slot]:
        """Wait for a free slot; leaving the context releases it, as soon as no server can touch it any more."""
        return self._pool.lease()

    async def infer(self, slot: Slot, count: int, *, patient: bool = False) -> Outputs:
        """Run the first ``count`` pictures of a leased slot; the outputs are views into it."""
        own = self._pool.claim(slot, count)
        backoff = Backoff(0.02, 0.5)
        while True:
            try:
                return await self._attempt(own, count)
            except EngineAwayError:
                if not patient or self._closed:
                    raise
            await self._pool.idle(own)
            await asyncio.sleep(backoff.next_s())
            await self._ready()

    async def close(self) -> None:
        """Wait for what is in flight, though not for long; then let the servers forget our memory, and free it."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        for server in self._servers:
            if not server.ready:
                server.release()  # what was sent to it will hardly be answered, and its slot is not used again
        await self._pool.settle(_CLOSE_S)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(server.detach() for server in self._servers))
        for server in self._servers:
            server.release()
        await asyncio.gather(*(server.connection.close() for server in self._servers))
        await self._pool.settle()
        self._buffers.close()
        self._threads.shutdown()

    async def _ready(self) -> None:
        """Wait until a server is ready, or none will ever be."""
        while not (self.available or self._closed):
            self._changed.clear()
            await self._changed.wait()

    def _broken(self) -> bool:
        return all(server.broken is not None for server in self._servers)

    def _choose(self) -> Server:
        """The ready server with the fewest batches under way."""
        ready = [server for server in self._servers if server.ready]
        if ready:
            return min(ready, key=lambda server: server.in_flight)
        broken = next((server.broken for server in self._servers if self._broken()), None)
        if broken is not None:
            raise EngineError(broken)
        raise EngineAwayError(f"model {self.info.name}: no Triton server is ready")

    async def _attempt(self, slot: TritonSlot, count: int) -> Outputs:
        server = self._choose()
        server.in_flight += 1
        answer: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        slot.running = asyncio.create_task(self._carry(server, slot, count, answer), name="triton batch")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            slow = CallError(Trouble.SLOW, f"a batch was not answered within engine.timeout_s, {self._timeout_s:g} s")
            server.fell_ill(slow)
            raise EngineAwayError(explain(server.url, slow)) from None

    async def _carry(self, server: Server, slot: TritonSlot, count: int, answer: asyncio.Future[Outputs]) -> None:
        """Get an answer, and return only when the server cannot touch the slot any more."""
        let_go = server.let_go
        try:
            outputs = await self._run(server, slot, count)
        except CallError as error:
            _settle(answer, self._failure(server, error))
            if server.transport != "none" and error.trouble in (Trouble.UNREACHABLE, Trouble.SLOW):
                await server.untouched(let_go)
        except (EngineError, ValueError) as error:
            said = f"model {self.info.name}: Triton failed in an inference: {error}"
            _settle(answer, error if isinstance(error, EngineError) else EngineError(said))
        except BaseException as bug:
            _settle(answer, bug)  # whoever waits is to see it rather than a timeout
            raise
        else:
            if not answer.done():
                answer.set_result(outputs)
        finally:
            server.in_flight -= 1

    async def _run(self, server: Server, slot: TritonSlot, count: int) -> Outputs:
        if self._buffers.must_fill:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._buffers.fill, slot, count)
        healed = False
        while True:
            request = self._buffers.request(slot, count, server.transport)
            try:
                answer = await server.connection.infer(request, max(ABANDONED_S, self._timeout_s))
            except CallError as error:
                if healed or not await self._heal(server, error, request):
                    raise
                healed = True
            else:
                return self._buffers.read(slot, count, request, answer)

    async def _heal(self, server: Server, error: CallError, request: service_pb2.ModelInferRequest) -> bool:
        """Whether it is worth sending again at once, put differently."""
        if error.trouble is Trouble.NO_REGION:
            return await server.map_again()
        return error.trouble is Trouble.TOO_SMALL and self._buffers.outgrown(request)

    def _failure(self, server: Server, error: CallError) -> EngineAwayError | EngineError:
        if error.trouble in (Trouble.REFUSED, Trouble.TOO_SMALL):
            return EngineError(f"model {self.info.name}: Triton ({server.url}) failed in an inference: {error.said}")
        if error.trouble is not Trouble.BUSY:
            server.fell_ill(error)
        return EngineAwayError(explain(server.url, error))


def _settle(answer: asyncio.Future[Outputs], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever still waits gets it; if nobody does, that is no news
