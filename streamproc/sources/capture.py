"""When a camera's pictures were taken: their arrival, less the delay that its sender reports show."""

from __future__ import annotations

import struct
from typing import Literal

from av.packet import Packet
from av.video.stream import VideoStream

__all__ = ["CaptureClock", "ClockSource", "sent_utc_ns"]

ClockSource = Literal["rtcp", "arrival"]

_PRODUCER_TIME = struct.Struct("=q")  # AVProducerReferenceTime.wallclock, in µs (libavcodec/defs.h)


def sent_utc_ns(packet: Packet[VideoStream]) -> int | None:
    """The picture's time by the camera's own clock, as its RTCP sender reports map it (RFC 3550, 6.4.1).

    None before the first report, which some cameras never send.
    """
    if not packet.has_sidedata("prft"):
        return None
    wallclock_us: int = _PRODUCER_TIME.unpack_from(bytes(packet.get_sidedata("prft")))[0]
    return wallclock_us * 1000


class CaptureClock:
    """Tells when a camera's pictures were taken, on our monotonic clock; times never go back over the whole run.

    Cameras' clocks are off by hours and jump, so theirs is trusted for differences only. A picture's way here took
    some least time that nobody can know and nothing can be done about; what it took beyond the least of the last
    minute (a jammed network, a reader that has fallen behind) is age. A clock that is set forward becomes the new
    measure at once, and one that runs backwards starts it anew: neither makes pictures look old. (So do pictures sent
    out of order, whose delay stays unknown.)
    """

    MAX_DELAY_NS = 2_000_000_000
    """No picture is taken for older than that on arrival, whatever a camera claims."""

    def __init__(self) -> None:
        self._captured_ns: int | None = None
        self._held = False
        self._source: ClockSource = "arrival"
        self._previous_arrival_ns: int | None = None
        self._sent_ns: int | None = None
        self._least = _Least()

    def begin(self, *, held: bool) -> None:
        """A new connection starts. ``held``: each picture comes out of the demuxer when the next one begins."""
        self._held = held
        self._source = "arrival"
        self._previous_arrival_ns = self._sent_ns = None
        self._least = _Least()

    @property
    def source(self) -> ClockSource:
        """Whether this connection's times make use of sender reports yet."""
        return self._source

    def captured_ns(self, arrival_ns: int, sent_ns: int | None) -> int:
        """When a picture was taken that came out of the demuxer at ``arrival_ns`` and carries the camera's ``sent_ns``.

        Not later than ``arrival_ns``, which must not go back.
        """
        began_ns = self._previous_arrival_ns if self._held else arrival_ns
        self._previous_arrival_ns = arrival_ns
        captured_ns = arrival_ns
        if sent_ns is not None and began_ns is not None:
            self._source = "rtcp"
            captured_ns = min(arrival_ns, self._due_ns(arrival_ns, began_ns, sent_ns))
        captured_ns = max(captured_ns, arrival_ns - self.MAX_DELAY_NS)
        if self._captured_ns is not None:
            captured_ns = max(captured_ns, self._captured_ns)
        self._captured_ns = captured_ns
        return captured_ns

    def _due_ns(self, arrival_ns: int, began_ns: int, sent_ns: int) -> int:
        """When the picture would have come with no more than the least delay of the last minute.

        A held picture began to arrive when the one before it came out (``began_ns``) and is due one interval after,
        which nobody can help; the camera's last interval stands for the one not known yet.
        """
        previous_ns, self._sent_ns = self._sent_ns, sent_ns
        backwards = previous_ns is not None and sent_ns < previous_ns
        if backwards:
            self._least = _Least()
        due_ns = sent_ns + self._least.of(began_ns, began_ns - sent_ns)
        if not self._held:
            return due_ns
        return arrival_ns if previous_ns is None or backwards else due_ns + sent_ns - previous_ns


class _Least:
    """The least of what was seen in the current and the last half-window."""

    HALF_WINDOW_NS = 30_000_000_000
    """A minute in all: long enough to see an idle network, short enough to forget a route or a drift."""

    def __init__(self) -> None:
        self._end_ns = 0
        self._last: int | None = None
        self._current: int | None = None

    def of(self, now_ns: int, value: int) -> int:
        """The least, ``value`` included."""
        if self._current is None or now_ns >= self._end_ns:
            self._last, self._current = self._current, value
            self._end_ns = now_ns + self.HALF_WINDOW_NS
        self._current = min(self._current, value)
        return self._current if self._last is None else min(self._last, self._current)
