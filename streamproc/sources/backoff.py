"""How long to wait before a camera is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Full jitter: a random share of a ceiling that doubles with every failure in a row.

    Cameras that fail together (a switch reboots) come back spread out instead of in step. After a connection that was
    healthy for ``healthy_s`` the ceiling starts again from ``base_s``. Source: M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.

    Args:
        uniform: draws from [low, high]; injected by tests.
    """

    base_s = 0.5
    cap_s = 30.0
    healthy_s = 60.0
    auth_floor_s = 60.0
    """Cameras lock an account out after a few wrong passwords: at most one attempt a minute."""

    def __init__(self, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._ceiling_s = self.base_s

    def delay_s(self, reason: str, online_s: float) -> float:
        """Seconds to wait after a failure with this reason, of a connection that gave pictures for ``online_s``."""
        if online_s >= self.healthy_s:
            self._ceiling_s = self.base_s
        delay_s = self._uniform(0.0, self._ceiling_s)
        self._ceiling_s = min(self.cap_s, 2 * self._ceiling_s)
        return self.auth_floor_s + delay_s if reason == "auth" else delay_s
