"""Bounded channels with a named overflow policy, and the one bridge from threads into the event loop.

A channel may be used from threads and from the loop at once. Nothing in it is unbounded, and everything it discards
goes to ``on_drop``, so that whoever counts can count.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

__all__ = ["Channel", "ChannelStats", "Closed", "LoopSignal", "Overflow"]

T = TypeVar("T")


class Overflow(Enum):
    """What a full channel does with one more item."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


class Closed(Exception):  # noqa: N818 - a state that callers handle, like StopIteration
    """The channel is closed: for a sender at once, for a receiver once it is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """``length`` items now of ``capacity``; ``accepted`` and ``dropped`` since it was made."""

    length: int
    capacity: int
    accepted: int
    dropped: int


class LoopSignal:
    """A wake-up for the event loop that any thread may ring; rings that come before it is heard merge into one.

    One self-pipe write wakes the loop however many threads ring: with 64 cameras the loop would otherwise be woken
    once per frame and stage.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None
        self._thread: int | None = None

    def ring(self) -> None:
        """Wake the waiter. Safe from every thread, and after the loop has closed."""
        with self._lock:
            if self._rung:
                return
            self._rung = True
            waiter = self._waiter
        if waiter is None:
            return  # whoever waits next will see it: the loop is left asleep
        try:
            if threading.get_ident() == self._thread:
                _wake(waiter)
            else:
                self._loop.call_soon_threadsafe(_wake, waiter)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a ring since the last wait; False when ``timeout_s`` passed without one. One waiter at a time."""
        waiter = self._loop.create_future()
        self._thread = threading.get_ident()
        with self._lock:
            if self._rung:
                self._rung = False
                return True
            self._waiter = waiter
        try:
            if timeout_s is None:
                await waiter
            else:
                async with asyncio.timeout(max(0.0, timeout_s)):
                    await waiter
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiter = None
        with self._lock:
            self._rung = False
        return True


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Channel(Generic[T]):
    """A bounded first-in-first-out channel between threads, tasks, or one and the other.

    Threads use :meth:`put` and :meth:`get`, tasks :meth:`send`, :meth:`receive` and ``async for``; :meth:`offer` and
    :meth:`poll` never wait and may be used by both. After :meth:`close` senders get :class:`Closed` at once and
    receivers once the channel is empty.

    Args:
        capacity: most items held at a time.
        overflow: what happens when it is full.
        on_drop: is given every item that the channel discards, on the thread that caused it.
        on_put: is called after every accepted item and after closing, e.g. ``LoopSignal.ring`` of a task that reads
            several channels.
    """

    def __init__(
        self,
        capacity: int,
        overflow: Overflow,
        *,
        on_drop: Callable[[T], None] | None = None,
        on_put: Callable[[], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"channel capacity: expected at least 1, got {capacity}")
        self.capacity = capacity
        self.overflow = overflow
        self._on_drop = on_drop
        self._on_put = on_put
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._waiters: list[LoopSignal] = []
        self._close_waiters: list[LoopSignal] = []
        self._closed = False
        self._accepted = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called; items may still be inside."""
        return self._closed

    def stats(self) -> ChannelStats:
        """A snapshot of the channel's counts."""
        with self._changed:
            return ChannelStats(
                length=len(self._items),
                capacity=self.capacity,
                accepted=self._accepted,
                dropped=self._dropped,
            )

    def offer(self, item: T) -> bool:
        """Add an item without waiting; False when it is full and blocks. Raises :class:`Closed`."""
        displaced: list[T] = []
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._items) >= self.capacity:
                if self.overflow is Overflow.BLOCK:
                    return False
                displaced.append(self._items.popleft())
                self._dropped += 1
            self._items.append(item)
            self._accepted += 1
            self._notify()
        if self._on_drop is not None:
            for dropped in displaced:
                self._on_drop(dropped)
        if self._on_put is not None:
            self._on_put()
        return True

    def put(self, item: T) -> None:
        """Add an item from a thread, waiting for room where the channel blocks. Raises :class:`Closed`."""
        while not self.offer(item):
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self.capacity)

    def poll(self) -> T | None:
        """Take the oldest item without waiting; None when there is none."""
        with self._changed:
            if not self._items:
                return None
            item = self._items.popleft()
            self._notify()
            return item

    def peek(self) -> T | None:
        """The oldest item, left where it is."""
        with self._changed:
            return self._items[0] if self._items else None

    def get(self) -> T:
        """Take the oldest item from a thread, waiting for one. Raises :class:`Closed`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items))
            if not self._items:
                raise Closed
            item = self._items.popleft()
            self._notify()
            return item

    async def send(self, item: T) -> None:
        """Add an item from a task, waiting for room where the channel blocks. Raises :class:`Closed`."""
        if self.offer(item):
            return
        with self._watch(self._waiters) as changed:
            while not self.offer(item):
                await changed.wait()

    async def receive(self) -> T:
        """Take the oldest item from a task, waiting for one. Raises :class:`Closed`."""
        if (item := self.poll()) is not None:
            return item
        with self._watch(self._waiters) as changed:
            while (item := self.poll()) is None:
                if self._closed:
                    raise Closed
                await changed.wait()
            return item

    async def bursts(self, most: int) -> AsyncIterator[list[T]]:
        """What is inside, up to ``most`` items at a time, oldest first, until the channel is closed and empty."""
        async for item in self:
            burst = [item]
            while len(burst) < most and (another := self.poll()) is not None:
                burst.append(another)
            yield burst

    async def wait_closed(self) -> None:
        """Wait until :meth:`close` is called, whatever is still inside."""
        with self._watch(self._close_waiters) as closing:
            while not self._closed:
                await closing.wait()

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            try:
                yield await self.receive()
            except Closed:
                return

    def close(self) -> None:
        """Take no more items; what is inside can still be received."""
        with self._changed:
            self._closed = True
            self._notify()
            for signal in self._close_waiters:
                signal.ring()
        if self._on_put is not None:
            self._on_put()

    def drain(self) -> list[T]:
        """Take everything that is inside, oldest first; nothing of it is counted as dropped."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            self._notify()
            return items

    def _notify(self) -> None:
        self._changed.notify_all()
        for signal in self._waiters:
            signal.ring()

    @contextmanager
    def _watch(self, waiters: list[LoopSignal]) -> Iterator[LoopSignal]:
        """A signal that is among ``waiters`` while the context is open."""
        signal = LoopSignal()
        with self._changed:
            waiters.append(signal)
        try:
            yield signal
        finally:
            with self._changed:
                waiters.remove(signal)
