"""How far a reader has fallen behind its pictures, and when it should leave some out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from av.packet import Packet
from av.video.stream import VideoStream

from streamproc.sources.capture import CaptureClock
from streamproc.telemetry import RateLimitedLog

__all__ = ["Backlog"]

_log = logging.getLogger(__name__)


class Backlog:
    """Tells a reader that comes to its pictures too late, and does not catch up by itself, to leave some out.

    A reader decodes several times faster than a camera sends, and a moment in which it could not is soon made up for.
    One that stays behind has less of the processor than it needs, and so has everybody: what it decodes too late to be
    of use takes from those that are in time. And what it has not read yet waits in the network's buffers, where seconds
    of it would grow old unseen.

    Of a camera, lateness is what a packet took beyond the least of the last minute, by the stream's own timestamps; but
    a reader that had to wait for its packet has none behind it, whatever the timestamps say.

    Args:
        camera: for messages.
        limit_s: a picture that comes to be decoded so late is of little use; None: every picture is, however late.
        clock_ns: the monotonic clock.
    """

    PATIENCE_NS = 100_000_000
    """Behind for so long, a reader does not catch up by itself."""

    def __init__(self, camera: str, limit_s: float | None, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._camera = camera
        self._limit_ns = math.inf if limit_s is None else limit_s * 1e9
        self._clock_ns = clock_ns
        self._warnings = RateLimitedLog(_log, interval_s=10.0)
        self._transit = CaptureClock()
        self._period_ns = 0.0
        self._since_ns: int | None = None
        self._lag_ns = 0

    def begin(self, period_s: float, *, held: bool) -> None:
        """A new file or connection of a picture every ``period_s`` starts; ``held``: see :class:`CaptureClock`."""
        self._transit.begin(held=held)
        self._period_ns = period_s * 1e9
        self._since_ns = None

    def arrived(self, packet: Packet[VideoStream], asked_ns: int, arrival_ns: int) -> None:
        """A camera's packet was asked for and came at these instants."""
        stamp = packet.pts if packet.dts is None else packet.dts
        sent_ns = None if stamp is None else round(stamp * float(packet.time_base) * 1e9)
        captured_ns = self._transit.captured_ns(arrival_ns, sent_ns)
        waited = arrival_ns - asked_ns >= self._period_ns / 2
        self._came(arrival_ns, 0 if waited else arrival_ns - captured_ns)

    def decoded(self, due_ns: int) -> None:
        """A picture of a file that is played like a camera has been decoded; it was due at that instant."""
        now_ns = self._clock_ns()
        self._came(now_ns, now_ns - due_ns)

    def excess(self) -> int:
        """How many packets to leave out now. It then has the same patience again to see whether that was enough."""
        if self._since_ns is None or self._clock_ns() - self._since_ns < self.PATIENCE_NS:
            return 0
        self._since_ns = None
        self._warnings.warning(
            "late",
            "camera %s: decoding is %.2f s behind; pictures are left out up to a keyframe. Use fewer cameras, a "
            "smaller picture or frame rate, or decode: nonref.",
            self._camera,
            self._lag_ns / 1e9,
        )
        return math.ceil(self._lag_ns / self._period_ns)

    def _came(self, now_ns: int, lag_ns: int) -> None:
        self._lag_ns = lag_ns
        if lag_ns <= self._limit_ns:
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = now_ns
