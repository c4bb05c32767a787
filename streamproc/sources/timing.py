"""Media time that never runs backwards, and the pace of a file that plays like a camera."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["FrameSampler", "MediaClock", "Pacer", "TimestampPicker"]


class TimestampPicker:
    """Chooses, picture by picture, which of a stream's two timestamps to believe.

    Containers without presentation times (AVI) get made-up ones, wrong as soon as there are B-frames. Pictures come in
    presentation order, so the timestamp that has run backwards less often so far is the better one.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._faults = {"pts": 0, "dts": 0}

    def pick(self, pts: int | None, dts: int | None) -> int | None:
        """The better timestamp of a picture, in the ticks it came in; None where that one is missing.

        >>> picker = TimestampPicker()
        >>> [picker.pick(pts, dts) for pts, dts in [(1, 2), (4, 3), (3, 4), (5, 5), (2, 6), (8, 7)]]
        [1, 4, 4, 5, 6, 7]
        """
        for name, ticks in (("pts", pts), ("dts", dts)):
            if ticks is not None:
                self._faults[name] += name in self._last and ticks <= self._last[name]
                self._last[name] = ticks
        if self._faults["pts"] <= self._faults["dts"] and pts is not None:
            return pts
        return dts


class MediaClock:
    """Turns a camera's timestamps into seconds since its first picture, strictly increasing over the whole run.

    Files in a row, loops, reconnects, jumps and missing timestamps all continue where the last picture left off: only
    the steps between timestamps count, and a step that is no plausible one is replaced by the nominal frame period.
    """

    MAX_STEP_S = 10.0
    """A longer step from one picture to the next is a jump of the camera's clock, not a pause in the scene."""
    RATES = (1.0, 240.0)
    """Nominal frame rates to believe; containers without one often give their tick rate (1000, 90000)."""
    FALLBACK_RATE = 25.0

    def __init__(self, last_s: float | None = None) -> None:
        """``last_s``: media time to go on from; None to begin with 0."""
        self._pts_s = last_s
        self._previous_s: float | None = None
        self._period_s = 1 / self.FALLBACK_RATE

    @property
    def period_s(self) -> float:
        """The nominal time from one picture to the next."""
        return self._period_s

    def begin(self, rate: float | None) -> None:
        """A new file or connection of nominal ``rate`` pictures a second starts; its timestamps have another origin."""
        self._previous_s = None
        slowest, fastest = self.RATES
        self._period_s = 1 / (rate if rate is not None and slowest <= rate <= fastest else self.FALLBACK_RATE)

    def advance(self, timestamp_s: float | None, *, pictures: int = 1) -> float:
        """Media time in seconds of the next picture, which carries ``timestamp_s`` (None: it carries none).

        ``pictures``: how many the stream has had since the last call, this one and those left out. From keyframe to
        keyframe a long step is no jump.
        """
        step_s = pictures * self._period_s
        if timestamp_s is not None and self._previous_s is not None and timestamp_s > self._previous_s:
            stamped_s = timestamp_s - self._previous_s
            if stamped_s <= max(self.MAX_STEP_S, pictures / self.RATES[0]):
                step_s = stamped_s
        self._previous_s = timestamp_s
        self._pts_s = 0.0 if self._pts_s is None else self._pts_s + step_s
        return self._pts_s


class FrameSampler:
    """Chooses at most ``fps`` pictures a second, as evenly as they come.

    Pictures are due on a grid of one period, and may come up to a period and a half late before the grid moves on: so
    it settles between the pictures of a camera that jitters, and a pause is not made up for.
    """

    SLACK_S = 0.001
    """Containers round to a millisecond."""

    def __init__(self, fps: float) -> None:
        self._period_s = 1 / fps
        self._due_s = 0.0

    def wants(self, pts_s: float) -> bool:
        """Whether to hand on the picture of media time ``pts_s``, which must not go back.

        >>> sampler = FrameSampler(10.0)
        >>> [n for n in range(12) if sampler.wants(n / 25)]
        [0, 3, 5, 8, 10]
        """
        if pts_s < self._due_s - self.SLACK_S:
            return False
        self._due_s = max(self._due_s + self._period_s, pts_s - self._period_s / 2)
        return True


class Pacer:
    """Holds each picture of a file back until it is due.

    Args:
        wait: waits that many seconds, or less when the run stops; whether it stopped (``threading.Event.wait``).
        on_lag: is told by how many seconds playing fell behind before it was moved on.
        clock_ns: the monotonic clock.
    """

    MAX_LAG_S = 0.2
    """Further behind than this, the rest of the file is due later: a viewer of the present, not of a backlog."""

    def __init__(
        self,
        *,
        wait: Callable[[float], bool],
        on_lag: Callable[[float], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wait = wait
        self._on_lag = on_lag
        self._clock_ns = clock_ns
        self._origin_ns: int | None = None

    def hold(self, pts_s: float) -> int | None:
        """Wait until the picture of media time ``pts_s`` is due; that instant (monotonic ns), or None when stopped."""
        now_ns = self._clock_ns()
        offset_ns = round(pts_s * 1e9)
        if self._origin_ns is None:
            self._origin_ns = now_ns - offset_ns
        lag_ns = now_ns - (self._origin_ns + offset_ns)
        if lag_ns > self.MAX_LAG_S * 1e9:
            self._origin_ns += lag_ns
            self._on_lag(lag_ns / 1e9)
        due_ns = self._origin_ns + offset_ns
        while now_ns < due_ns:
            if self._wait((due_ns - now_ns) / 1e9):
                return None
            now_ns = self._clock_ns()
        return due_ns
