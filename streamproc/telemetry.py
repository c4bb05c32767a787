"""Counting: where every frame went, how old it was, and what is said about it in the log.

The sums that hold for each camera, at the end exactly and at any moment up to what is in flight::

    received = decoded   + dropped at the decode stage
    decoded  = inferred  + dropped at the infer stage
    inferred = published + dropped at the publish stage

Each :class:`DropReason` belongs to exactly one stage, so the flat ``dropped`` of the report closes all three.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np

from streamproc.channel import LoopSignal
from streamproc.types import CameraState, CameraStatus

__all__ = [
    "AgeHistogram",
    "CameraLedger",
    "CameraTally",
    "DropReason",
    "RateLimitedLog",
    "RedactingFilter",
    "Stage",
    "StatusBoard",
    "redact",
]


class Stage(Enum):
    """A place where frames may be lost, named by what would have come next."""

    DECODE = "decode"
    INFER = "infer"
    PUBLISH = "publish"


class DropReason(Enum):
    """Why a frame went no further; ``stage`` says where."""

    CORRUPT = ("corrupt", Stage.DECODE)
    """Damaged, or dependent on something damaged: skipped to the next keyframe."""
    NO_PICTURE = ("no_picture", Stage.DECODE)
    """A packet that the decoder took and that gave no picture of its own (a second field, an undecodable lead-in)."""
    SKIPPED = ("skipped", Stage.DECODE)
    """Left out on purpose: the camera's ``decode`` or ``sample_fps`` asks for fewer."""
    UNDECODED = ("undecoded", Stage.DECODE)
    """Still in the decoder when the run ended."""
    OVERLOAD = ("overload", Stage.INFER)
    """A newer frame of the same camera took its place before there was room for it."""
    STALE = ("stale", Stage.INFER)
    """Would have been older than ``budget.max_frame_age_ms`` at the end of its inference."""
    ENGINE = ("engine", Stage.INFER)
    """The inference server was away, turned it away or did not answer in time; or its inference failed."""
    SHUTDOWN = ("shutdown", Stage.INFER)
    """Waiting or being inferred when the run ended."""
    LATE = ("late", Stage.PUBLISH)
    """Older than ``budget.max_frame_age_ms`` when it was due to be published."""
    SINK = ("sink", Stage.PUBLISH)
    """A receiver (broker, file) was away, too slow, or refused it."""
    UNPUBLISHED = ("unpublished", Stage.PUBLISH)
    """On its way to the receivers when the run ended."""

    def __init__(self, label: str, stage: Stage) -> None:
        self.label = label
        self.stage = stage


_RESIDUE = {
    Stage.DECODE: DropReason.UNDECODED,
    Stage.INFER: DropReason.SHUTDOWN,
    Stage.PUBLISH: DropReason.UNPUBLISHED,
}


class AgeHistogram:
    """Ages in milliseconds in bins of constant relative width: bounded memory, percentiles within 1 %.

    Bins grow by 2 % from 0.1 ms to about 100 s, so a bin's centre is within 1 % of what fell into it; the maximum
    is exact. Not thread-safe: it belongs to the task that publishes.
    """

    _GROWTH = 1.02
    _FLOOR_MS = 0.1
    _BINS = 700

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS, dtype=np.int64)
        self._max_ms = 0.0

    def add(self, age_ms: float) -> None:
        """Count one age."""
        ratio = max(age_ms, self._FLOOR_MS) / self._FLOOR_MS
        index = min(int(np.log(ratio) / np.log(self._GROWTH)), self._BINS - 1)
        self._counts[index] += 1
        self._max_ms = max(self._max_ms, age_ms)

    def percentile(self, percent: float) -> float | None:
        """The age in ms below which ``percent`` of the samples lie; None without samples."""
        total = int(self._counts.sum())
        if total == 0:
            return None
        index = int(np.searchsorted(np.cumsum(self._counts), percent / 100 * total))
        centre: float = self._FLOOR_MS * self._GROWTH ** (min(index, self._BINS - 1) + 0.5)
        return round(min(centre, self._max_ms), 2)

    @property
    def max_ms(self) -> float | None:
        """The greatest age so far; None without samples."""
        return round(self._max_ms, 2) if self._counts.any() else None

    def summary(self) -> dict[str, float | None]:
        """``p50``, ``p95``, ``p99`` and ``max`` in ms, for reports; None without samples."""
        return {**{f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}, "max": self.max_ms}

    def merge(self, other: AgeHistogram) -> None:
        """Add another histogram's counts."""
        self._counts += other._counts
        self._max_ms = max(self._max_ms, other._max_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraTally:
    """A consistent snapshot of one camera's counts; ``dropped`` by reason label, zero counts left out."""

    received: int
    decoded: int
    inferred: int
    published: int
    dropped: dict[str, int]

    def in_flight(self) -> dict[Stage, int]:
        """Frames that entered each stage and have not left it; all zero in a closed ledger."""
        lost = dict.fromkeys(Stage, 0)
        for reason in DropReason:
            lost[reason.stage] += self.dropped.get(reason.label, 0)
        return {
            Stage.DECODE: self.received - self.decoded - lost[Stage.DECODE],
            Stage.INFER: self.decoded - self.inferred - lost[Stage.INFER],
            Stage.PUBLISH: self.inferred - self.published - lost[Stage.PUBLISH],
        }


class CameraLedger:
    """The books of one camera: every frame is received once and leaves each stage once. Safe from every thread."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.ages = AgeHistogram()
        self._lock = threading.Lock()
        self._received = 0
        self._decoded = 0
        self._inferred = 0
        self._published = 0
        self._dropped: Counter[DropReason] = Counter()
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self.reconnects: Counter[str] = Counter()

    def received(self, count: int = 1) -> None:
        """Packets of the video stream came in."""
        with self._lock:
            self._received += count

    def decoded(self, captured_ns: int) -> None:
        """A picture came out of the decoder, captured at this monotonic time."""
        with self._lock:
            self._decoded += 1
            if self._first_ns is None:
                self._first_ns = captured_ns

    def inferred(self) -> None:
        """A frame's detections are known."""
        with self._lock:
            self._inferred += 1

    def published(self, age_ms: float, now_ns: int) -> None:
        """Every receiver that counts took the frame's detections, ``age_ms`` after its capture."""
        with self._lock:
            self._published += 1
            self._last_ns = now_ns
            self.ages.add(age_ms)

    def dropped(self, reason: DropReason, count: int = 1) -> None:
        """Frames went no further, for this reason."""
        with self._lock:
            self._dropped[reason] += count

    def close(self) -> None:
        """Book what is still in flight in any stage as lost to the end of the run; the sums close exactly."""
        with self._lock:
            for stage, residue in self._tally().in_flight().items():
                if residue:
                    self._dropped[_RESIDUE[stage]] += residue

    def tally(self) -> CameraTally:
        """A consistent snapshot."""
        with self._lock:
            return self._tally()

    def span_ns(self) -> tuple[int, int] | None:
        """Monotonic times of the first frame captured and the last published; None before both happened."""
        with self._lock:
            if self._first_ns is None or self._last_ns is None:
                return None
            return self._first_ns, self._last_ns

    def _tally(self) -> CameraTally:
        return CameraTally(
            received=self._received,
            decoded=self._decoded,
            inferred=self._inferred,
            published=self._published,
            dropped={reason.label: count for reason, count in self._dropped.items() if count},
        )


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
