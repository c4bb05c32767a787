"""What a run says of itself: the state of every camera, and the log."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Literal

from streamproc.channel import LoopSignal
from streamproc.types import CameraState, CameraStatus

__all__ = [
    "RateLimitedLog",
    "RedactingFilter",
    "StatusBoard",
    "redact",
]


class StatusBoard:
    """The present state of every camera, and a bell for whoever shows it. Used on the event loop only."""

    def __init__(self, cameras: list[str], *, utc_ns: Callable[[], int] = time.time_ns) -> None:
        self._utc_ns = utc_ns
        self._signals: list[LoopSignal] = []
        self._statuses = {
            camera: CameraStatus(camera=camera, state=CameraState.CONNECTING, reason=None, since_utc_ns=self._utc_ns())
            for camera in cameras
        }

    def set(self, camera: str, state: CameraState, reason: str | None = None) -> None:
        """Record a camera's state; repeating the present one changes nothing."""
        present = self._statuses[camera]
        if (present.state, present.reason) == (state, reason):
            return
        self._statuses[camera] = CameraStatus(camera=camera, state=state, reason=reason, since_utc_ns=self._utc_ns())
        for signal in self._signals:
            signal.ring()

    def timed_by(self, camera: str, clock: Literal["rtcp", "arrival"] | None) -> None:
        """Record where an online camera's capture times come from."""
        present = self._statuses[camera]
        if present.state is CameraState.ONLINE and present.clock != clock:
            self._statuses[camera] = dataclasses.replace(present, clock=clock)
            for signal in self._signals:
                signal.ring()

    def statuses(self) -> dict[str, CameraStatus]:
        """The state of every camera, in configuration order."""
        return dict(self._statuses)

    def subscribe(self, signal: LoopSignal) -> None:
        """Ring ``signal`` after every change from now on."""
        self._signals.append(signal)


class RateLimitedLog:
    """A repeated warning becomes one line a second with its count. Safe from every thread."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, int]] = {}

    def warning(self, key: str, message: str, *args: object) -> None:
        """Log ``message % args``, unless ``key`` was logged within the interval; then count it for the next line."""
        now = self._clock()
        with self._lock:
            last, held = self._held.get(key, (-self._interval_s, 0))
            if now - last < self._interval_s:
                self._held[key] = (last, held + 1)
                return
            self._held[key] = (now, 0)
        if held:
            message, args = message + " (and %d more like it)", (*args, held)
        self._logger.warning(message, *args)


# The second form is a password with an unescaped "/": rather hide too much than show a part of it.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/\s]+|[^/\s:]*:\S+)(?=@)")


def redact(text: str) -> str:
    """Text with the credentials of every URL in it replaced.

    >>> redact("cannot open rtsp://admin:secret@10.0.0.5/stream1")
    'cannot open rtsp://***@10.0.0.5/stream1'
    """
    return _CREDENTIALS.sub("***", text)


class RedactingFilter(logging.Filter):
    """Keeps credentials out of every log line, whoever wrote it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Render the record and replace credentials; never suppresses a record."""
        message = record.getMessage()
        safe = redact(message)
        if safe != message:
            record.msg, record.args = safe, None
        return True
