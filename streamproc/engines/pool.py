"""The slots of an engine: who holds them, and when they may be held again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeAlias, TypeVar

from numpy.typing import NDArray

from streamproc.engines.base import Slot
from streamproc.types import UInt8Array

__all__ = ["PooledSlot", "Running", "SlotPool"]

Running: TypeAlias = "asyncio.Future[dict[str, NDArray[Any]]]"
"""An inference under way, which gives the outputs."""


class PooledSlot:
    """One input buffer, and the inference that may still touch it.

    ``images``: (max_batch, height, width, 3) uint8, C-contiguous, owned by the slot.
    """

    def __init__(self, images: UInt8Array) -> None:
        self.images = images
        self.running: asyncio.Future[Any] | None = None


S = TypeVar("S", bound=PooledSlot)


class SlotPool(Generic[S]):
    """A fixed set of slots, leased to one holder each. Used on the event loop only."""

    def __init__(self, slots: Sequence[S]) -> None:
        self._slots = tuple(slots)
        self._leased: list[S] = []
        # Last in, first out: the slot used last is the one most likely still in the processor's caches.
        self._free: asyncio.LifoQueue[S] = asyncio.LifoQueue()
        for slot in self._slots:
            self._free.put_nowait(slot)

    def __len__(self) -> int:
        return len(self._slots)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[S]:
        """Wait for a free slot; on leaving it returns to the pool, at once or when its inference has ended."""
        slot = await self._free.get()
        self._leased.append(slot)
        try:
            yield slot
        finally:
            self._leased.remove(slot)
            if slot.running is None:
                self._free.put_nowait(slot)
            else:
                slot.running.add_done_callback(lambda running: self._put_back(slot, running))

    def claim(self, slot: Slot, count: int) -> S:
        """The engine's own slot behind a leased one that is about to run ``count`` pictures.

        Raises:
            ValueError: it is not leased from this pool, it is running already, or ``count`` is out of range.
        """
        own = next((leased for leased in self._leased if leased is slot), None)
        if own is None:
            raise ValueError("slot: expected one that is leased from this engine, got another")
        if not 1 <= count <= len(own.images):
            raise ValueError(f"count: expected 1..{len(own.images)}, got {count}")
        if own.running is not None and not own.running.done():
            raise ValueError("slot: its last inference was abandoned and still runs; lease another")
        return own

    async def outcome(self, slot: S, running: Running) -> dict[str, NDArray[Any]]:
        """Wait for an inference that was started on a slot; one who is cancelled meanwhile leaves it running."""
        slot.running = running
        return await asyncio.shield(running)

    async def idle(self, slot: S) -> None:
        """Wait until nothing can touch a slot any more that its holder has leased."""
        if slot.running is not None:
            await asyncio.wait((slot.running,))

    async def settle(self, timeout_s: float | None = None) -> None:
        """Wait until no inference runs any more, or for so long."""
        running = [slot.running for slot in self._slots if slot.running is not None]
        if running:
            await asyncio.wait(running, timeout=timeout_s)

    def _put_back(self, slot: S, running: asyncio.Future[Any]) -> None:
        if not running.cancelled():
            running.exception()  # whoever still waited has had it; nobody else will ask
        slot.running = None
        self._free.put_nowait(slot)
