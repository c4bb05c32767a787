"""The most of something that holds, where every try costs half a minute and now and then errs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["Edge", "find_edge"]

_MAJORITY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """``most`` holds (0: not even 1 does), and ``most + 1`` does not, unless ``is_limit``: more was not asked for."""

    most: int
    is_limit: bool


async def find_edge(
    holds: Callable[[int], Awaitable[bool]], *, first: int = 1, limit: int, growth: float = 2.0
) -> Edge:
    """The most that holds: exponential growth (or decline) from ``first``, then bisection, then the edge again.

    A single try decides on the way. On both sides of the edge the majority of up to three does, as a machine that
    hiccups in one try would otherwise cost cameras, or give some away; what was found wrong there is searched anew.

    Args:
        holds: tries a number from 1 to ``limit``; what holds is taken to hold for less as well.
        first: tried first; the nearer, the fewer tries.
        growth: factor, above 1, from one try to the next until the edge lies between two.
    """
    tries = _Tries(holds)
    low, high = 0, limit + 1
    number = min(max(first, 1), limit)
    while True:
        while high - low > 1:
            if await tries.once(number):
                low = number
            else:
                high = number
            number = _next(low, high, limit, growth)
        if high <= limit and await tries.majority(high):
            low, high = high, tries.nearest_failure(high, limit + 1)
        elif low > 0 and high <= limit and not await tries.majority(low):
            low, high = tries.nearest_success(low), low
        else:
            return Edge(most=low, is_limit=high > limit)
        number = _next(low, high, limit, growth)


def _next(low: int, high: int, limit: int, growth: float) -> int:
    """What to try where ``low`` holds and ``high`` does not (``limit + 1``: not known yet).

    >>> _next(4, 101, 100, 2.0), _next(0, 4, 100, 2.0), _next(4, 8, 100, 2.0)
    (8, 2, 6)
    """
    if high > limit:
        return min(limit, max(low + 1, math.ceil(low * growth)))
    if low == 0:
        return max(1, min(high - 1, math.floor(high / growth)))
    return (low + high) // 2


class _Tries:
    """What every number came to so far."""

    def __init__(self, holds: Callable[[int], Awaitable[bool]]) -> None:
        self._holds = holds
        self._results: dict[int, list[bool]] = defaultdict(list)

    async def once(self, number: int) -> bool:
        """What it came to, trying it where it never was."""
        if not self._results[number]:
            await self._try(number)
        return self._held(number)

    async def majority(self, number: int) -> bool:
        """Try until two tries agree."""
        results = self._results[number]
        while max(results.count(True), results.count(False)) < _MAJORITY:
            await self._try(number)
        return self._held(number)

    def nearest_failure(self, above: int, otherwise: int) -> int:
        """The least number above another that did not hold."""
        return min((number for number in self._results if number > above and not self._held(number)), default=otherwise)

    def nearest_success(self, below: int) -> int:
        """The greatest number below another that held; 0 where none did."""
        return max((number for number in self._results if number < below and self._held(number)), default=0)

    async def _try(self, number: int) -> None:
        result = await self._holds(number)
        self._results[number].append(result)

    def _held(self, number: int) -> bool:
        results = self._results[number]
        return results.count(True) > results.count(False)
