"""A steady load: so many requests under way at every moment, and what they took."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamproc.errors import EngineAwayError, EngineError, StreamprocError

__all__ = ["Latency", "Load", "put_under_load"]

_WARM_UPS = 2  # requests of each worker before anything counts
_WARM_UP_S = 0.5
_AFTER_FAILURE_S = 0.05  # or workers that are turned away at once would do nothing but ask again
_HOPELESS = 10  # failures of each worker with no success between: half a second of nothing else

_Reading = TypeVar("_Reading")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds from the start of a request to its result."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, latencies_s: NDArray[np.float64]) -> Latency:
        """Of single latencies in seconds, at least one; percentiles are interpolated linearly.

        >>> Latency.of(np.array([0.001, 0.002, 0.003])).p50
        2.0
        """
        p50, p90, p95, p99 = np.percentile(latencies_s * 1e3, (50, 90, 95, 99)).tolist()
        return cls(mean=float(latencies_s.mean() * 1e3), p50=p50, p90=p90, p95=p95, p99=p99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Generic[_Reading]):
    """What was measured: ``requests`` that ended well within ``wall_s``, and how many ``failed`` in it.

    ``cpu_s``: user + system time of this process, all its threads and none of its children. ``before`` and ``after``:
    readings taken when the measurement began and ended.
    """

    requests: int
    failed: int
    wall_s: float
    cpu_s: float
    latency: Latency
    before: _Reading
    after: _Reading


async def put_under_load(
    request: Callable[[], Awaitable[object]],
    *,
    workers: int,
    seconds: float,
    read: Callable[[], Awaitable[_Reading]],
) -> Load[_Reading]:
    """Let ``workers`` make one request after the other, and measure for ``seconds`` once they are warm.

    The measurement begins and ends with the end of a request, so that no part of one is counted; the others stay under
    way at both moments. ``read`` asks for whatever else is to be compared before and after.

    Raises:
        EngineError: request after request is lost.
    """
    window = _Window(workers, seconds)
    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(workers):
                tasks.create_task(_work(request, window), name=f"load {number}")
            await window.opened.wait()
            before = await read()
            await window.closed.wait()
            after = await read()
    except BaseExceptionGroup as group:
        known, others = group.split(StreamprocError)
        if known is None or others is not None:
            raise
        raise known.exceptions[0] from group
    if window.error is not None:
        raise EngineError(f"nothing could be measured: {window.error}") from window.error
    return Load(
        requests=len(window.latencies_s),
        failed=window.failed,
        wall_s=window.ended_s - window.began_s,
        cpu_s=window.cpu_after_s - window.cpu_before_s,
        latency=Latency.of(np.array(window.latencies_s)),
        before=before,
        after=after,
    )


async def _work(request: Callable[[], Awaitable[object]], window: _Window) -> None:
    while not window.closed.is_set():
        started_s = time.perf_counter()
        try:
            await request()
        except EngineAwayError as error:
            window.note_failure(error)
            await asyncio.sleep(_AFTER_FAILURE_S)
        else:
            window.note(started_s)


class _Window:
    """The time that counts: opens after the warm-up, closes when it has been open for long enough."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self.latencies_s: list[float] = []
        self.failed = 0
        self.error: EngineAwayError | None = None
        self.began_s = self.ended_s = 0.0
        self.cpu_before_s = self.cpu_after_s = 0.0
        self._warm_ups = workers * _WARM_UPS
        self._hopeless = workers * _HOPELESS
        self._failed_in_a_row = 0
        self._seconds = seconds
        self._warm_at_s = time.perf_counter() + min(_WARM_UP_S, seconds)

    def note(self, started_s: float) -> None:
        """A request has ended well."""
        now_s = time.perf_counter()
        if self.closed.is_set():
            return
        self._failed_in_a_row = 0
        if self.opened.is_set():
            self.latencies_s.append(now_s - started_s)
            if now_s - self.began_s >= self._seconds:
                self.ended_s, self.cpu_after_s = now_s, _cpu_s()
                self.closed.set()
            return
        self._warm_ups -= 1
        if self._warm_ups <= 0 and now_s >= self._warm_at_s:
            self.failed = 0
            self.began_s, self.cpu_before_s = now_s, _cpu_s()
            self.opened.set()

    def note_failure(self, error: EngineAwayError) -> None:
        """A request was lost: the server turned it away, or went away."""
        if self.closed.is_set():
            return
        self.failed += 1
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._hopeless:
            self.error = error
            self.opened.set()
            self.closed.set()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
