"""A measurement in a process of its own.

Nothing of one is left when the next begins: no threads, no warm caches of the allocator, no engine. And all of its
process's time is its own.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from streamproc.errors import FatalError

__all__ = ["in_child"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_child(measure: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What a function gives in a new interpreter; it must be a module's own, and all that travels picklable.

    Raises what it raises, and:
        FatalError: the process died.
    """
    # Spawned: a forked process would inherit locks of threads that it does not have.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _quieten) as pool:
        try:
            return await asyncio.wrap_future(pool.submit(measure, *args, **kwargs))
        except BrokenProcessPool as exc:
            raise FatalError(
                "the process that measured died. Look for its last words above, and for the kernel's (dmesg) where "
                "memory may have run out."
            ) from exc


def _quieten() -> None:
    """What cameras and engines have to say belongs to a run; what goes wrong is raised."""
    logging.getLogger("streamproc").setLevel(logging.ERROR)
