"""How a run is doing, once a second: rates of every camera, and what is wrong where nothing comes out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamproc.batching import BatchTimes
from streamproc.ledger import AgeHistogram, CameraLedger, CameraTally, DropReason
from streamproc.sources.supervisor import CameraSource
from streamproc.telemetry import RateLimitedLog, StatusBoard
from streamproc.types import CameraStatus

__all__ = ["CameraView", "Monitor", "WorkerMonitor"]

_log = logging.getLogger(__name__)

_INTERVAL_S = 1.0
_BUSY = 0.85
"""A loop that computes for more than this share of the time answers late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraView:
    """One camera now, for the live display; rates are of the last seconds, ``ages`` those of all frames so far."""

    status: CameraStatus
    tally: CameraTally
    decoded_fps: float
    published_fps: float
    ages: AgeHistogram


class Monitor:
    """Watches the books of a run, whoever keeps them."""

    def __init__(self, ledgers: Mapping[str, CameraLedger], board: StatusBoard) -> None:
        self._ledgers = ledgers
        self._board = board
        self._fps: dict[str, tuple[float, float]] = {}

    def decoded_fps(self, camera: str) -> float:
        """Frames a second that came out of its decoder during the last interval; 0 before the first is over."""
        return self._fps.get(camera, (0.0, 0.0))[0]

    async def run(self, on_view: Callable[[list[CameraView]], None]) -> None:
        """Look once a second, and tell ``on_view``, until cancelled."""
        before = self._tallies()
        before_s = time.monotonic()
        while True:
            await asyncio.sleep(_INTERVAL_S)
            now_s = time.monotonic()
            tallies = self._tallies()
            for name, tally in tallies.items():
                decoded = (tally.decoded - before[name].decoded) / (now_s - before_s)
                published = (tally.published - before[name].published) / (now_s - before_s)
                self._fps[name] = (round(decoded, 1), round(published, 1))
            before, before_s = tallies, now_s
            on_view([self._view(status, tallies[name]) for name, status in self._board.statuses().items()])

    def _tallies(self) -> dict[str, CameraTally]:
        return {name: ledger.tally() for name, ledger in self._ledgers.items()}

    def _view(self, status: CameraStatus, tally: CameraTally) -> CameraView:
        decoded_fps, published_fps = self._fps[status.camera]
        return CameraView(
            status=status,
            tally=tally,
            decoded_fps=decoded_fps,
            published_fps=published_fps,
            ages=self._ledgers[status.camera].ages.copy(),
        )


class WorkerMonitor:
    """Watches one worker from inside, and says what its books do not.

    Args:
        ledgers: of all cameras.
        sources: of its cameras; may change.
        times: what batches take.
        max_age_ms: the budget.
    """

    def __init__(
        self,
        ledgers: Mapping[str, CameraLedger],
        sources: Mapping[str, CameraSource],
        board: StatusBoard,
        times: BatchTimes,
        *,
        max_age_ms: float,
    ) -> None:
        self._ledgers = ledgers
        self._sources = sources
        self._board = board
        self._times = times
        self._max_age_ms = max_age_ms
        self._warnings = RateLimitedLog(_log, interval_s=10.0)
        self._began_s = self._computed_s = 0.0
        self.loop_load = 0.0

    @property
    def mean_load(self) -> float:
        """The share of the time since :meth:`run` in which the event loop's thread computed."""
        passed_s = time.monotonic() - self._began_s
        return round(self._computed_s / passed_s, 3) if self._began_s and passed_s > 0 else 0.0

    async def run(self) -> None:
        """Look once a second, on the event loop's own thread, until cancelled.

        ``loop_load`` is the share of the last second in which the event loop's thread computed.
        """
        before, before_s, used_s = self._tallies(), time.monotonic(), time.thread_time()
        self._began_s = before_s
        while True:
            await asyncio.sleep(_INTERVAL_S)
            now, now_s, now_used_s = self._tallies(), time.monotonic(), time.thread_time()
            self.loop_load = (now_used_s - used_s) / (now_s - before_s)
            self._computed_s += now_used_s - used_s
            for name, source in self._sources.items():
                self._board.timed_by(name, source.clock)
            self._complain_of_slowness(before, now)
            before, before_s, used_s = now, now_s, now_used_s

    def _tallies(self) -> dict[str, CameraTally]:
        return {name: self._ledgers[name].tally() for name in self._sources}

    def _complain_of_slowness(self, before: Mapping[str, CameraTally], now: Mapping[str, CameraTally]) -> None:
        """Say why nothing is published, where the machine cannot keep the budget at all."""
        if self.loop_load > _BUSY:
            self._warnings.warning(
                "busy",
                "the event loop of a process with %d cameras is %.0f %% busy: frames will be late. "
                "Spread the cameras over more processes with --workers, or use fewer.",
                len(self._sources),
                100 * self.loop_load,
            )
        names = before.keys() & now.keys()
        published = sum(now[name].published - before[name].published for name in names)
        too_old = sum(
            now[name].dropped.get(reason.label, 0) - before[name].dropped.get(reason.label, 0)
            for name in names
            for reason in (DropReason.LATE, DropReason.STALE)
        )
        if too_old and not published:
            self._warnings.warning(
                "slow",
                "no frame was published within budget.max_frame_age_ms, %g ms: inference takes about %.0f ms here. "
                "Use a smaller model or fewer cameras, free the processor, or raise the budget.",
                self._max_age_ms,
                self._times.expect_ns(1) / 1e6,
            )
