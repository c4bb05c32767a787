"""How one simulated camera is at the moment, and what its viewers notice of that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from streamproc.rtsp import CLOCK_HZ, Picture, Treatment
from streamproc.simulate.faults import Change, FaultKind

__all__ = ["Condition"]

_LOST_SHARE = 0.05
_BETWEEN_JUMPS_S = (1.0, 4.0)
_JUMP_S = (3600.0, 6 * 3600.0)
"""Less than half of what RTP's 32 bits hold at 90 kHz, so that ahead is ahead."""


class Condition:
    """Which faults a camera has; a :class:`streamproc.rtsp.Trouble`.

    Everything is called on the event loop but :meth:`has`, which any thread may ask.

    Args:
        random: decides what is left to chance.
        clock: seconds, for the time between jumps.
    """

    def __init__(self, random: Random, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._random = random
        self._clock = clock
        self._faults: Counter[FaultKind] = Counter()
        self._resuming = False
        self._origin = 0
        self._jump = 0
        self._jumps_at_s = 0.0

    def has(self, kind: FaultKind) -> bool:
        """Whether it has such a fault now."""
        return self._faults[kind] > 0

    def change(self, change: Change) -> None:
        """A fault begins or ends."""
        if change.how != "happens":
            self._faults[change.kind] += 1 if change.how == "begins" else -1
        if change.kind is FaultKind.REBOOT and change.how == "ends":
            self._origin = self._random.getrandbits(32)

    def request(self) -> Treatment:
        """See :class:`streamproc.rtsp.Trouble`; so are the others below."""
        if self.has(FaultKind.REFUSE) or self.has(FaultKind.REBOOT):
            return Treatment.CUT
        if self.has(FaultKind.HANG):
            return Treatment.IGNORE
        return Treatment.DENY if self.has(FaultKind.PASSWORD) else Treatment.ANSWER

    def picture(self, picture: Picture) -> Picture | None:
        """None while it stalls, and then until a keyframe. With timestamps that jump, the clock that its reports tell
        jumps too."""
        if self.has(FaultKind.STALL):
            self._resuming = True
            return None
        if self._resuming and not picture.keyframe:
            return None
        self._resuming = False
        jump_ns = self._ahead() * 1_000_000_000 // CLOCK_HZ
        return replace(
            picture,
            timestamp=picture.timestamp + self._origin + self._jump,
            captured_utc_ns=picture.captured_utc_ns + jump_ns,
        )

    def datagram(self) -> bool:
        """One in twenty is lost."""
        return not (self.has(FaultKind.LOSS) and self._random.random() < _LOST_SHARE)

    def _ahead(self) -> int:
        """By how many ticks its clock is ahead now: none, or hours, each for some seconds."""
        if not self.has(FaultKind.JUMP):
            self._jump, self._jumps_at_s = 0, 0.0
        elif self._clock() >= self._jumps_at_s:
            self._jump = 0 if self._jump else round(self._random.uniform(*_JUMP_S) * CLOCK_HZ)
            self._jumps_at_s = self._clock() + self._random.uniform(*_BETWEEN_JUMPS_S)
        return self._jump
