"""Which threads go first where the processor is short: the event loop, then everything else.

What the loop does takes a tenth of what decoding and inference do, and everybody waits for it. Readers and engines that
get less of the processor do less, which is accounted for; a loop that stands still makes every frame late.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

__all__ = ["give_way", "yielding"]

T = TypeVar("T")

_NICENESS: Final = 5
"""A third of the weight of a thread that does not give way (Linux, sched(7))."""
_MOST: Final = 19


def give_way() -> None:
    """Let the calling thread, and all that it starts from now on, go behind those that did not call this."""
    here = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, here, min(_MOST, os.getpriority(os.PRIO_PROCESS, here) + _NICENESS))


async def yielding(work: Callable[[], T]) -> T:
    """What ``work`` gives, which runs on a thread of its own that gives way, as do the threads that it starts."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="yielding", initializer=give_way)
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    finally:
        pool.shutdown(wait=False)
