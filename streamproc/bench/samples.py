"""What a trial tells about itself once a second, and how it ended: what crosses from its process to ours.

A line of JSON is one :class:`Line`, and holds one of its three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streamproc.ledger import AgeHistogram

__all__ = ["Ages", "CameraSecond", "Ended", "Line", "Refused", "Second", "read_line", "write_line"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How old frames were when they were published: ``bins`` of (milliseconds, how many) in ascending order, within
    1 %; ``max_ms`` is exact, or that of the highest bin."""

    bins: tuple[tuple[float, int], ...] = ()
    max_ms: float = 0.0

    @classmethod
    def between(cls, earlier: AgeHistogram | None, later: AgeHistogram) -> Ages:
        """What was published from one snapshot to another; None stands for the beginning."""
        since = later if earlier is None else later.since(earlier)
        return cls(bins=tuple(since.bins()), max_ms=since.max_ms or 0.0)

    @classmethod
    def together(cls, parts: Iterable[Ages]) -> Ages:
        """All of them as one."""
        counts: Counter[float] = Counter()
        most_ms = 0.0
        for part in parts:
            most_ms = max(most_ms, part.max_ms)
            for age_ms, count in part.bins:
                counts[age_ms] += count
        return cls(bins=tuple(sorted(counts.items())), max_ms=most_ms)

    @property
    def count(self) -> int:
        """Frames."""
        return sum(count for _, count in self.bins)

    def percentile(self, percent: float) -> float | None:
        """The age in ms below which ``percent`` of the frames lie; None without frames.

        >>> Ages(bins=((10.0, 9), (50.0, 1)), max_ms=50.2).percentile(95)
        50.0
        """
        wanted, seen = percent / 100 * self.count, 0
        for age_ms, count in self.bins:
            seen += count
            if seen >= wanted:
                return age_ms
        return None

    def summary(self) -> dict[str, float | None]:
        """``p50``, ``p95``, ``p99`` and ``max`` in ms; None without frames."""
        percentiles = {f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}
        return percentiles | {"max": self.max_ms if self.bins else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSecond:
    """One camera since the last look: counts of frames, ``lost`` by reason; ``state`` is that at the end."""

    state: str
    received: int
    inferred: int
    published: int
    lost: Mapping[str, int] = field(default_factory=dict)
    ages: Ages = field(default_factory=Ages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """All cameras at one look; ``at_s`` on the trial's own clock."""

    at_s: float
    cameras: Mapping[str, CameraSecond]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run's own report, and what went wrong in it."""

    report: dict[str, Any]
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why there was no run; ``is_bad_input``: for what the user named, not for what the machine lacks."""

    message: str
    is_bad_input: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One of them."""

    second: Second | None = None
    ended: Ended | None = None
    refused: Refused | None = None


def write_line(line: Line) -> bytes:
    """As JSON with a final newline."""
    return msgspec.json.encode(line) + b"\n"


def read_line(text: bytes) -> Line:
    """What :func:`write_line` wrote.

    >>> read_line(write_line(Line(refused=Refused(message="no", is_bad_input=True)))).refused
    Refused(message='no', is_bad_input=True)
    """
    return msgspec.json.decode(text, type=Line)
