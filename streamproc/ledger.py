"""The books of every camera: where each frame went, how old it was, what it cost.

The sums that hold for each camera, at the end exactly and at any moment up to what is in flight::

    received = decoded   + dropped at the decode stage
    decoded  = inferred  + dropped at the infer stage
    inferred = published + dropped at the publish stage

Of the frames dropped at the infer stage, some are filled in with what is predicted for them: ``predicted`` is their
number, and no part of the sums.

Each :class:`DropReason` belongs to exactly one stage, so the flat ``dropped`` of the report closes all three.

A camera's books are a row of integers. Given memory that processes share, they outlive the process that keeps them:
whoever else has that memory reads them at any time, and a process that takes over a camera goes on where the last one
ended.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["AgeHistogram", "CameraLedger", "CameraTally", "Cost", "DropReason", "Stage", "open_ledgers"]


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
    BEHIND = ("behind", Stage.DECODE)
    """The machine decoded too slowly: left out up to a keyframe, for later pictures to be in time."""
    UNDECODED = ("undecoded", Stage.DECODE)
    """Still in the decoder when the run, or the camera's worker process, ended."""
    OVERLOAD = ("overload", Stage.INFER)
    """A newer frame of the same camera took its place before there was room for it."""
    STALE = ("stale", Stage.INFER)
    """Would have been older than ``budget.max_frame_age_ms`` at the end of its inference."""
    ENGINE = ("engine", Stage.INFER)
    """The inference server was away, turned it away or did not answer in time; or its inference failed."""
    SHUTDOWN = ("shutdown", Stage.INFER)
    """Waiting or being inferred when the run, or the camera's worker process, ended."""
    LATE = ("late", Stage.PUBLISH)
    """Older than ``budget.max_frame_age_ms`` when it was due to be published."""
    SINK = ("sink", Stage.PUBLISH)
    """A receiver (broker, file) was away, too slow, or refused it."""
    UNPUBLISHED = ("unpublished", Stage.PUBLISH)
    """On its way to the receivers when the run, or the camera's worker process, ended."""

    def __init__(self, label: str, stage: Stage) -> None:
        self.label = label
        self.stage = stage


_RESIDUE = {
    Stage.DECODE: DropReason.UNDECODED,
    Stage.INFER: DropReason.SHUTDOWN,
    Stage.PUBLISH: DropReason.UNPUBLISHED,
}


class Cost(Enum):
    """What processor time goes to, on threads of our own; the engine's threads are its own affair."""

    DECODE = "decode"
    LETTERBOX = "letterbox"
    POSTPROCESS = "postprocess"
    TRACK = "track"
    PUBLISH = "publish"
    DRAW = "draw"


class AgeHistogram:
    """Ages in milliseconds in bins of constant relative width: bounded memory, percentiles within 1 %.

    Bins grow by 2 % from 0.1 ms to about 100 s, so a bin's centre is within 1 % of what fell into it; the maximum
    is exact. Not thread-safe: it belongs to the task that publishes.

    Args:
        cells: (CELLS,) int64 to keep it in; None for memory of its own.
    """

    _GROWTH: Final = 1.02
    _FLOOR_MS: Final = 0.1
    _BINS: Final = 700
    CELLS: Final = _BINS + 1

    def __init__(self, cells: NDArray[np.int64] | None = None) -> None:
        self._cells = np.zeros(self.CELLS, dtype=np.int64) if cells is None else cells
        self._counts = self._cells[: self._BINS]

    def __reduce__(self) -> tuple[type[AgeHistogram], tuple[NDArray[np.int64]]]:
        return AgeHistogram, (self._cells.copy(),)  # from one process to another, with its parts still one memory

    def add(self, age_ms: float) -> None:
        """Count one age."""
        ratio = max(age_ms, self._FLOOR_MS) / self._FLOOR_MS
        index = min(int(math.log(ratio) / math.log(self._GROWTH)), self._BINS - 1)
        self._counts[index] += 1
        self._cells[-1] = max(int(self._cells[-1]), round(age_ms * 1e6))

    def percentile(self, percent: float) -> float | None:
        """The age in ms below which ``percent`` of the samples lie; None without samples."""
        total = int(self._counts.sum())
        if total == 0:
            return None
        index = int(np.searchsorted(np.cumsum(self._counts), percent / 100 * total))
        return round(min(self._centre_ms(index), self._max_ms), 2)

    @property
    def max_ms(self) -> float | None:
        """The greatest age so far; None without samples."""
        return round(self._max_ms, 2) if self._counts.any() else None

    def bins(self) -> list[tuple[float, int]]:
        """(age in ms, how many) of every bin that is not empty, in order of age."""
        return [(round(self._centre_ms(int(i)), 2), int(self._counts[i])) for i in np.flatnonzero(self._counts)]

    def summary(self) -> dict[str, float | None]:
        """``p50``, ``p95``, ``p99`` and ``max`` in ms, for reports; None without samples."""
        return {**{f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}, "max": self.max_ms}

    def merge(self, other: AgeHistogram) -> None:
        """Add another histogram's counts."""
        self._counts += other._counts
        self._cells[-1] = max(self._cells[-1], other._cells[-1])

    def copy(self) -> AgeHistogram:
        """What is in it now."""
        return AgeHistogram(self._cells.copy())

    def since(self, earlier: AgeHistogram) -> AgeHistogram:
        """What came after an earlier copy; where the maximum is of before, it is that of the highest bin since."""
        later = AgeHistogram(self._cells - earlier._cells)
        if self._cells[-1] > earlier._cells[-1]:
            later._cells[-1] = self._cells[-1]
        else:
            highest = np.flatnonzero(later._counts)
            top_ms = self._centre_ms(int(highest[-1])) if len(highest) else 0.0
            later._cells[-1] = min(int(self._cells[-1]), round(top_ms * 1e6))
        return later

    def _centre_ms(self, index: int) -> float:
        centre: float = self._FLOOR_MS * self._GROWTH ** (min(index, self._BINS - 1) + 0.5)
        return centre

    @property
    def _max_ms(self) -> float:
        return int(self._cells[-1]) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraTally:
    """A consistent snapshot of one camera's counts; ``dropped`` by reason label, zero counts left out."""

    received: int
    decoded: int
    inferred: int
    published: int
    dropped: dict[str, int]
    predicted: int = 0

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


_RECONNECTS = ("auth", "codec", "corrupt", "dns", "eof", "no_video", "not_found", "refused", "stalled", "timeout")
_COUNTS = (
    *("received", "decoded", "inferred", "published", "predicted", "last_track_id"),
    *("first_ns", "last_ns", "position_ns", "position_pts_ns"),
    *DropReason,
    *Cost,
    *_RECONNECTS,
)
_CELL: dict[object, int] = {what: index for index, what in enumerate(_COUNTS)}
_RECEIVED, _DECODED, _INFERRED, _PUBLISHED, _PREDICTED, _LAST_TRACK_ID = range(6)
_FIRST_NS, _LAST_NS, _POSITION_NS, _POSITION_PTS_NS = range(6, 10)


class CameraLedger:
    """The books of one camera: every frame is received once and leaves each stage once.

    Safe from every thread of one process at a time; another process that shares the memory may read.

    Args:
        cells: (CELLS,) int64 to keep them in, which go on where they are; None for memory of its own.
    """

    CELLS: Final = len(_COUNTS) + AgeHistogram.CELLS

    def __init__(self, camera: str, cells: NDArray[np.int64] | None = None) -> None:
        self.camera = camera
        cells = np.zeros(self.CELLS, dtype=np.int64) if cells is None else cells
        self._cells = cells[: len(_COUNTS)].data  # much faster than the array, one number at a time
        self.ages = AgeHistogram(cells[len(_COUNTS) :])
        self._lock = threading.Lock()

    def received(self, count: int = 1) -> None:
        """Packets of the video stream came in."""
        with self._lock:
            self._cells[_RECEIVED] += count

    def decoded(self, captured_ns: int, pts_s: float = 0.0) -> None:
        """A picture came out of the decoder, captured at this monotonic time and at this media time."""
        with self._lock:
            self._cells[_DECODED] += 1
            self._cells[_POSITION_NS], self._cells[_POSITION_PTS_NS] = captured_ns, round(pts_s * 1e9)
            if not self._cells[_FIRST_NS]:
                self._cells[_FIRST_NS] = captured_ns

    def inferred(self) -> None:
        """A frame's detections are known."""
        with self._lock:
            self._cells[_INFERRED] += 1

    def published(self, age_ms: float, now_ns: int) -> None:
        """Every receiver that counts took the frame's detections, ``age_ms`` after its capture."""
        with self._lock:
            self._cells[_PUBLISHED] += 1
            self._cells[_LAST_NS] = now_ns
            self.ages.add(age_ms)

    def predicted(self) -> None:
        """Every receiver that counts took what is predicted for a frame that was not inferred."""
        with self._lock:
            self._cells[_PREDICTED] += 1

    def dropped(self, reason: DropReason, count: int = 1) -> None:
        """Frames went no further, for this reason."""
        with self._lock:
            self._cells[_CELL[reason]] += count

    def reconnected(self, reason: str) -> None:
        """The camera is to be connected to anew, for this reason."""
        with self._lock:
            self._cells[_CELL[reason]] += 1

    def spent(self, cost: Cost, ns: int) -> None:
        """Processor time of the calling thread went into a frame of this camera."""
        with self._lock:
            self._cells[_CELL[cost]] += ns

    @contextmanager
    def spending(self, cost: Cost) -> Iterator[None]:
        """What the calling thread does in the block is booked as this; nothing in it may wait."""
        started_ns = time.thread_time_ns()
        yield
        self.spent(cost, time.thread_time_ns() - started_ns)

    def issued(self, track_id: int) -> None:
        """Track ids up to this one have been given."""
        if track_id > self._cells[_LAST_TRACK_ID]:
            self._cells[_LAST_TRACK_ID] = track_id

    @property
    def last_track_id(self) -> int:
        """The greatest track id given so far; 0 before the first."""
        return self._cells[_LAST_TRACK_ID]

    @property
    def position(self) -> tuple[int, float] | None:
        """Monotonic capture time in ns and media time in seconds of the newest picture; None before the first."""
        with self._lock:
            if not self._cells[_DECODED]:
                return None
            return self._cells[_POSITION_NS], self._cells[_POSITION_PTS_NS] / 1e9

    @property
    def reconnects(self) -> dict[str, int]:
        """How often the camera was connected to anew, by reason."""
        return {reason: count for reason in _RECONNECTS if (count := self._cells[_CELL[reason]])}

    def spent_ns(self) -> dict[Cost, int]:
        """Processor time so far, in ns."""
        return {cost: self._cells[_CELL[cost]] for cost in Cost}

    def close(self) -> None:
        """Book what is still in flight in any stage as lost to the end of the run, or of its process; the sums close
        exactly."""
        with self._lock:
            for stage, residue in self._tally().in_flight().items():
                self._cells[_CELL[_RESIDUE[stage]]] += residue

    def tally(self) -> CameraTally:
        """A consistent snapshot."""
        with self._lock:
            return self._tally()

    def span_ns(self) -> tuple[int, int] | None:
        """Monotonic times of the first frame captured and the last published; None before both happened."""
        with self._lock:
            if not (self._cells[_FIRST_NS] and self._cells[_LAST_NS]):
                return None
            return self._cells[_FIRST_NS], self._cells[_LAST_NS]

    def _tally(self) -> CameraTally:
        cells = self._cells
        return CameraTally(
            received=cells[_RECEIVED],
            decoded=cells[_DECODED],
            inferred=cells[_INFERRED],
            published=cells[_PUBLISHED],
            dropped={reason.label: count for reason in DropReason if (count := cells[_CELL[reason]])},
            predicted=cells[_PREDICTED],
        )


def open_ledgers(cameras: Sequence[str], memory: memoryview | None = None) -> Mapping[str, CameraLedger]:
    """The books of these cameras, by name: new ones, or those in ``memory`` that processes share, of at least
    ``8 * CameraLedger.CELLS`` bytes a camera, all zero to begin with."""
    if memory is None:
        return {camera: CameraLedger(camera) for camera in cameras}
    rows = np.frombuffer(memory, np.int64, len(cameras) * CameraLedger.CELLS).reshape(len(cameras), -1)
    return {camera: CameraLedger(camera, row) for camera, row in zip(cameras, rows, strict=True)}
