"""Where the work on pixels and outputs is done: on the event loop's thread, or on threads of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeVar

__all__ = ["PixelThreads"]

T = TypeVar("T")

_WINDOW_NS: Final = 100_000_000
_MOST_BUSY: Final = 0.5


class PixelThreads:
    """Does a batch's work at once where it stands, on the event loop, while that has time to spare.

    With another thread it takes two switches, and each finds the caches full of something else: beside an engine that
    keeps both of two cores busy, letterboxing and decoding on other threads cost 2 ms a frame more than the 1.5 ms
    that the work itself takes. So that the loop stays quick and many cores are put to use, work goes to the threads
    as soon as the loop's own has been running for half of the last 100 ms, and batches of several pictures always do.

    Args:
        threads: most work done at a time beside the loop's.
        thread_ns: processor time of the calling thread.
        monotonic_ns: the monotonic clock.
    """

    def __init__(
        self,
        threads: int,
        *,
        thread_ns: Callable[[], int] = time.thread_time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pixels")
        self._thread_ns = thread_ns
        self._monotonic_ns = monotonic_ns
        self._since_ns = monotonic_ns()
        self._used_ns = thread_ns()
        self._busy = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown()

    async def do(self, pictures: int, work: Callable[[], T]) -> T:
        """What ``work`` on so many pictures gives."""
        if pictures == 1 and self._loop_has_time():
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _loop_has_time(self) -> bool:
        now_ns = self._monotonic_ns()
        elapsed_ns = now_ns - self._since_ns
        if elapsed_ns >= _WINDOW_NS:
            used_ns = self._thread_ns()
            self._busy = (used_ns - self._used_ns) / elapsed_ns
            self._since_ns, self._used_ns = now_ns, used_ns
        return self._busy < _MOST_BUSY
