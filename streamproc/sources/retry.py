"""When a camera is tried again."""

from __future__ import annotations

import random as _random
from collections.abc import Callable

from streamproc.backoff import Backoff

__all__ = ["RetryDelays"]


class RetryDelays:
    """The waiting times of one camera: jittered between half a second and half a minute, begun again after a connection
    that was healthy for a minute, and never less than a minute after a refused password.

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
        """Seconds to wait after a failure with this reason, of a connection that gave pictures for ``online_s``."""
        if online_s >= self.healthy_s:
            self._backoff.reset()
        delay_s = self._backoff.next_s()
        return self.auth_floor_s + delay_s if reason == "auth" else delay_s
