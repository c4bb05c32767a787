"""What a run's own process and its workers tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from streamproc.config import Config
from streamproc.errors import StreamprocError
from streamproc.report import WorkerCounts
from streamproc.types import AccessUnit, CameraStatus

__all__ = [
    "Assignment",
    "Beat",
    "Begin",
    "Ended",
    "GaveUp",
    "GiveUp",
    "Go",
    "News",
    "Opened",
    "Order",
    "Refresh",
    "Refused",
    "Said",
    "State",
    "Stop",
    "Tap",
    "Unit",
    "Watch",
]


# From the run to a worker.


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The first order: what to open, as worker ``number`` (from 1) in its ``life`` (from 1): a process that replaces
    another must not overwrite what that has written."""

    config: Config = field(repr=False)
    number: int
    life: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """Begin to work on these cameras."""

    cameras: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Work on one more camera."""

    camera: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Work on a camera no longer; the answer is :class:`GaveUp`."""

    camera: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Draw and encode a camera, or no longer."""

    camera: str
    watched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """Make its next picture a keyframe."""

    camera: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """Hand on a camera's own packets, or no longer."""

    camera: str
    watched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End: the answer is :class:`Ended`."""


Order: TypeAlias = Assignment | Go | Begin | GiveUp | Watch | Refresh | Tap | Stop


# From a worker to the run.


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The model is loaded; ``model`` is for people."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The assignment cannot be done; the process ends."""

    error: StreamprocError


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A camera's state has changed."""

    status: CameraStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A picture for viewers: annotated, or the camera's own packet."""

    camera: str
    raw: bool
    unit: AccessUnit = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A line for the log."""

    level: int
    logger: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life, once a second."""

    counts: WorkerCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp:
    """All frames of the camera are booked; another may take it on."""

    camera: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The worker has come to its end and ends its process; ``failures`` says what went wrong, ``broken`` whether that
    was the engine, so that nobody can go on."""

    counts: WorkerCounts
    failures: tuple[str, ...]
    broken: bool


News: TypeAlias = Opened | Refused | State | Unit | Said | Beat | GaveUp | Ended
