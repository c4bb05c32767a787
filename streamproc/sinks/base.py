"""The contract between the fan-out and its receivers.

The fan-out hands each frame's result to every sink as a :class:`Delivery`. A frame is published when every essential
sink took it; it is lost, for the first reason given, when one of them did not.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from streamproc.channel import Channel
from streamproc.ledger import CameraLedger, Cost, DropReason
from streamproc.types import FrameResult

__all__ = ["Delivery", "SharedCounts", "Sink", "SinkCounts"]


class Delivery:
    """One result on its way to the receivers. Used on the event loop only.

    Each essential sink answers once, with :meth:`taken` or :meth:`lost`; the last answer books the frame in the
    camera's ledger. ``max_age_ms`` is None for frames that never age. One that is predicted is only counted, when all
    took it: the books have its frame among those that were not inferred.
    """

    __slots__ = ("_judged_ms", "_ledger", "_monotonic_ns", "_reason", "_waiting", "max_age_ms", "result")

    def __init__(
        self,
        result: FrameResult,
        ledger: CameraLedger,
        *,
        receivers: int,
        max_age_ms: float | None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.result = result
        self.max_age_ms = max_age_ms
        self._ledger = ledger
        self._waiting = receivers
        self._reason: DropReason | None = None
        self._judged_ms: float | None = None
        self._monotonic_ns = monotonic_ns
        if receivers == 0:
            self._reason = DropReason.LATE if self.too_old() else None
            self._book()

    def age_ms(self) -> float:
        """Milliseconds from the frame's capture to its publishing: as of the last :meth:`too_old`, so that message,
        books and verdict agree, or until now."""
        return self._now_ms() if self._judged_ms is None else self._judged_ms

    def too_old(self) -> bool:
        """Whether publishing it now would break the promise of freshness; receivers ask right before they send."""
        self._judged_ms = self._now_ms()
        return self.max_age_ms is not None and self._judged_ms > self.max_age_ms

    def spending(self) -> AbstractContextManager[None]:
        """What a receiver does with it on the event loop in the block is booked as publishing; without waiting."""
        return self._ledger.spending(Cost.PUBLISH)

    def taken(self) -> None:
        """A receiver has it."""
        self._answer(None)

    def lost(self, reason: DropReason = DropReason.SINK) -> None:
        """A receiver will not get it."""
        self._answer(reason)

    def _answer(self, reason: DropReason | None) -> None:
        assert self._waiting > 0, "a delivery was answered more often than it has receivers"
        self._waiting -= 1
        self._reason = self._reason or reason
        if self._waiting == 0:
            self._book()

    def _book(self) -> None:
        if self.result.predicted:
            if self._reason is None:
                self._ledger.predicted()
        elif self._reason is None:
            self._ledger.published(self.age_ms(), self._monotonic_ns())
        else:
            self._ledger.dropped(self._reason)

    def _now_ms(self) -> float:
        return self.result.frame.age_ms(self._monotonic_ns())


class SinkCounts:
    """What a sink took and what it lost, by reason, for the report."""

    def __init__(self) -> None:
        self.taken = 0
        self.lost: Counter[str] = Counter()


class SharedCounts:
    """A sink's counts, kept by many threads."""

    def __init__(self) -> None:
        self.counts = SinkCounts()
        self._lock = threading.Lock()

    def taken(self) -> None:
        """A frame was taken."""
        with self._lock:
            self.counts.taken += 1

    def lost(self, reason: str, count: int = 1) -> None:
        """Frames were not."""
        if count:
            with self._lock:
                self.counts.lost[reason] += count


class Sink(Protocol):
    """A receiver of results."""

    @property
    def name(self) -> str:
        """Its name in the report and the log: ``mqtt``, ``file``, ``video``."""
        ...

    @property
    def essential(self) -> bool:
        """Whether a frame counts as published only when this sink took it. An essential sink answers every
        delivery; the others never answer."""
        ...

    @property
    def capacity(self) -> int:
        """Deliveries that may wait for it."""
        ...

    @property
    def counts(self) -> SinkCounts:
        """What it took and lost so far."""
        ...

    async def start(self) -> None:
        """Get ready, or begin to: a receiver that is away is no error here.

        Raises:
            FatalError: it can never work (a file that cannot be written).
        """
        ...

    async def run(self, inbox: Channel[Delivery]) -> None:
        """Consume deliveries until the inbox is closed and empty, then flush and let go of everything."""
        ...
