"""One path of the server: where a camera's encoded pictures come in from any thread, and go out to its viewers."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from av.error import FFmpegError

from streamproc.rtsp.group import RecentGroup
from streamproc.rtsp.packetizer import CLOCK_HZ, Packetizer, Picture
from streamproc.rtsp.sdp import Description, parameter_sets
from streamproc.rtsp.trouble import Trouble
from streamproc.rtsp.viewer import Sent, Viewer
from streamproc.types import AccessUnit

__all__ = ["Feed", "FeedStats"]

_CAPACITY = 800
"""Pictures between the publishing thread and the loop: those since the last keyframe, with which a camera's own stream
begins, and some seconds more."""

_JUMP = 10 * CLOCK_HZ
_BACK = 2 * CLOCK_HZ
"""Steps of media time, forwards and backwards, that are a new start rather than a pause or reordered pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStats:
    """Since the start, over all viewers: ``skipped`` are pictures that a viewer did not get because it was slow or
    waited for a keyframe, ``overrun`` those the event loop was too late for, ``invalid`` those without packets."""

    viewers: int
    published: int
    sent: int
    packets: int
    skipped: int
    overrun: int
    invalid: int


class Feed:
    """A path of the server, such as ``gate`` or ``gate/raw``.

    :meth:`publish` may be called from any one thread at a time; everything else is called on the event loop, by the
    server. The pictures since the last keyframe are kept while it is watched (at most 4 MB), so that a new viewer has
    a picture at once also where nobody can ask for a keyframe.

    Args:
        path: what clients ask for, without slashes at its ends.
        on_watch: is called on the event loop with True when somebody wants to see it, and with False
            ``linger_s`` after the last one left.
        on_join: makes the next picture a keyframe, which a new viewer then begins with. Without it, where nobody can
            (a camera's own stream), it begins with the past since the last keyframe, hastened: some players complain
            of such timestamps.
        linger_s: time in which a viewer that leaves, or has only asked, may come back before the encoder stops.
        trouble: what goes wrong with it on purpose.
    """

    def __init__(
        self,
        path: str,
        on_watch: Callable[[bool], None],
        *,
        on_join: Callable[[], None] | None = None,
        linger_s: float = 2.0,
        trouble: Trouble | None = None,
    ) -> None:
        self.path = path
        self.trouble = trouble
        self._on_watch = on_watch
        self._on_join = on_join
        self._linger_s = linger_s
        self._loop: asyncio.AbstractEventLoop | None = None
        # The publishing thread's, or shared with it under the lock.
        self._lock = threading.Lock()
        self._watched = False
        self._packetizer: Packetizer | None = None
        self._needs_keyframe = True
        self._pending: deque[tuple[Picture, Description | None]] = deque()
        self._scheduled = False
        self._base = secrets.randbits(32)
        self._last: int | None = None
        self._last_utc_ns = 0
        self._published = 0
        self._overrun = 0
        self._invalid = 0
        # The event loop's.
        self._description: Description | None = None
        self._interested = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._viewers: dict[Viewer, None] = {}
        self._group = RecentGroup()
        self._waiting: set[asyncio.Future[Description]] = set()
        self.sent = Sent()

    @property
    def watched(self) -> bool:
        """Whether published pictures are wanted. A flag, cheap to ask from any thread before making a picture."""
        return self._watched

    @property
    def description(self) -> Description | None:
        """Codec and parameter sets of the newest keyframe; None before the first."""
        return self._description

    def publish(self, unit: AccessUnit) -> None:
        """Take an encoded picture; returns at once. Ignored while nobody watches, and until the first keyframe."""
        if not self._watched:
            return
        with self._lock:
            if self._needs_keyframe and not unit.keyframe:
                return
            description = parameter_sets(unit.data, unit.codec) if unit.keyframe else None
            picture = self._cut(unit)
            if picture is None:
                return
            self._needs_keyframe = False
            self._published += 1
            if len(self._pending) >= _CAPACITY:
                self._overrun += len(self._pending) + 1
                self._pending.clear()
                self._needs_keyframe = True
                return
            self._pending.append((picture, description))
            if self._scheduled:
                return
            self._scheduled = True
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._distribute)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _cut(self, unit: AccessUnit) -> Picture | None:
        """The unit as packets; None when there is nothing in it that libav can send."""
        if self._packetizer is None or self._packetizer.codec != unit.codec:
            self._packetizer = Packetizer(unit.codec)
        try:
            packets = self._packetizer.cut(unit.data)
        except FFmpegError:
            packets = ()
        if not packets:
            self._invalid += 1
            return None
        return Picture(
            codec=unit.codec,
            keyframe=unit.keyframe,
            packets=packets,
            payload_bytes=sum(len(payload) for _, payload in packets),
            timestamp=self._timestamp(unit),
            captured_utc_ns=unit.captured_utc_ns,
        )

    def _timestamp(self, unit: AccessUnit) -> int:
        """Media time on the RTP clock. Where the source starts anew it goes on by the time that has passed."""
        ticks = round(unit.pts_s * CLOCK_HZ)
        if self._last is not None and not -_BACK < self._base + ticks - self._last < _JUMP:
            passed = (unit.captured_utc_ns - self._last_utc_ns) * CLOCK_HZ // 1_000_000_000
            self._base = self._last + min(max(passed, 1), _JUMP) - ticks
        self._last, self._last_utc_ns = self._base + ticks, unit.captured_utc_ns
        return self._last

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve it on this loop."""
        self._loop = loop

    def detach(self) -> None:
        """Stop serving it: nobody is interested any more."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._stop_watching()

    def acquire(self) -> None:
        """Somebody wants to see it: the first one starts it."""
        assert self._loop is not None, "the feed is served by no server"
        self._interested += 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if not self._watched:
            with self._lock:
                self._needs_keyframe = True
                self._watched = True
            self._on_watch(True)

    def release(self) -> None:
        """One less; the last one stops it, a moment later."""
        assert self._loop is not None
        self._interested -= 1
        if self._interested == 0 and self._watched:
            self._idle_timer = self._loop.call_later(self._linger_s, self._stop_watching)

    def described(self, *, anew: bool = False) -> asyncio.Future[Description]:
        """The description, as soon as there is one; ``anew``: as soon as there is a keyframe to come with it."""
        assert self._loop is not None
        future: asyncio.Future[Description] = self._loop.create_future()
        if self._description is not None and not anew:
            future.set_result(self._description)
        else:
            self._waiting.add(future)
            future.add_done_callback(self._waiting.discard)
        return future

    def join(self, viewer: Viewer) -> None:
        """Send it what comes from now on, beginning with a keyframe."""
        self.acquire()
        self._viewers[viewer] = None
        if self._on_join is not None and len(self._group) != 1:
            viewer.catch_up(())
            self._on_join()
        else:
            viewer.catch_up(self._group.hastened())

    def leave(self, viewer: Viewer) -> None:
        """Send it nothing more."""
        del self._viewers[viewer]
        self.release()

    def stats(self) -> FeedStats:
        """A snapshot of the counts."""
        return FeedStats(
            viewers=len(self._viewers),
            published=self._published,
            sent=self.sent.pictures,
            packets=self.sent.packets,
            skipped=self.sent.skipped,
            overrun=self._overrun,
            invalid=self._invalid,
        )

    def _stop_watching(self) -> None:
        self._idle_timer = None
        if not self._watched:
            return
        with self._lock:
            self._watched = False
            self._pending.clear()
        self._group.clear()
        self._on_watch(False)

    def _distribute(self) -> None:
        with self._lock:
            pending = tuple(self._pending)
            self._pending.clear()
            self._scheduled = False
        if not self._watched:  # its last picture, which came as the last viewer's time was over
            return
        for picture, description in pending:
            if description is not None:
                self._describe(description)
            altered = picture if self.trouble is None else self.trouble.picture(picture)
            if altered is None:
                self._group.clear()
                continue
            self._group.add(altered)
            for viewer in tuple(self._viewers):
                viewer.send(altered)

    def _describe(self, description: Description) -> None:
        before, self._description = self._description, description
        if before is not None and before.codec != description.codec:
            for viewer in tuple(self._viewers):
                viewer.on_end()
        for future in tuple(self._waiting):
            if not future.done():
                future.set_result(description)
