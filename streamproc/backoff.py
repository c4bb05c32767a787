"""How long to wait before trying again."""

from __future__ import annotations

import random as _random
from collections.abc import Callable

__all__ = ["Backoff", "RetryDelays"]

_LEAST_S = 0.05
"""Jitter may give 0, and a loop that never waits is no back-off."""


class Backoff:
    """Full jitter: a random share of a limit that doubles from ``first_s`` to ``cap_s`` with every failure in a row.

    Peers that fail together (a switch reboots) are tried again spread out instead of in step. Source: M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. ``random`` gives numbers in 0..1.
    """

    def __init__(self, first_s: float, cap_s: float, random: Callable[[], float] = _random.random) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._random = random
        self._limit_s = first_s

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        delay_s = max(_LEAST_S, self._random() * self._limit_s)
        self._limit_s = min(self._cap_s, 2 * self._limit_s)
        return delay_s

    def reset(self) -> None:
        """Begin again: the last attempt led to something that lasted."""
        self._limit_s = self._first_s


class RetryDelays:
    """The waiting times before one peer, a camera or a media server, is tried again: jittered between half a second and
    half a minute, begun again after a connection that was healthy for a minute, and never less than a minute after a
    refused password.

    Args:
        random: gives numbers in 0..1.
    """

    first_s = 0.5
    cap_s = 30.0
    healthy_s = 60.0
    auth_floor_s = 60.0
    """Cameras lock an account out after a few wrong passwords: at most one attempt a minute."""

    def __init__(self, *, random: Callable[[], float] = _random.random) -> None:
        self._backoff = Backoff(self.first_s, self.cap_s, random)

    def delay_s(self, reason: str, online_s: float) -> float:
        """Seconds to wait after a failure with this reason, of a connection that worked for ``online_s``."""
        if online_s >= self.healthy_s:
            self._backoff.reset()
        delay_s = self._backoff.next_s()
        return self.auth_floor_s + delay_s if reason == "auth" else delay_s
