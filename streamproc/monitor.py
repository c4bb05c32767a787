"""How a run is doing, once a second: rates of every camera, and why nothing is published where that is so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamproc.batching import BatchTimes
from streamproc.ledger import CameraLedger, CameraTally, DropReason
from streamproc.sources.supervisor import CameraSource
from streamproc.telemetry import RateLimitedLog, StatusBoard
from streamproc.types import CameraStatus

__all__ = ["CameraView", "Monitor"]

_log = logging.getLogger(__name__)

_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraView:
    """One camera now, for the live display; rates are of the last seconds."""

    status: CameraStatus
    tally: CameraTally
    decoded_fps: float
    published_fps: float
    age_p50_ms: float | None
    age_p99_ms: float | None


class Monitor:
    """Watches the books of a run.

    Args:
        times: what batches take, for the remedy where that is too long.
        max_age_ms: the budget.
    """

    def __init__(
        self, ledgers: Mapping[str, CameraLedger], board: StatusBoard, times: BatchTimes, *, max_age_ms: float
    ) -> None:
        self._ledgers = ledgers
        self._board = board
        self._times = times
        self._max_age_ms = max_age_ms
        self._fps: dict[str, tuple[float, float]] = {}
        self._warnings = RateLimitedLog(_log, interval_s=10.0)

    def decoded_fps(self, camera: str) -> float:
        """Frames a second that came out of its decoder during the last interval; 0 before the first is over."""
        return self._fps.get(camera, (0.0, 0.0))[0]

    async def run(self, sources: Mapping[str, CameraSource], on_view: Callable[[list[CameraView]], None]) -> None:
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
            for name, source in sources.items():
                self._board.timed_by(name, source.clock)
            self._complain_of_slowness(before, tallies)
            before, before_s = tallies, now_s
            on_view([self._view(status, tallies[name]) for name, status in self._board.statuses().items()])

    def _tallies(self) -> dict[str, CameraTally]:
        return {name: ledger.tally() for name, ledger in self._ledgers.items()}

    def _complain_of_slowness(self, before: Mapping[str, CameraTally], now: Mapping[str, CameraTally]) -> None:
        """Say why nothing is published, where the machine cannot keep the budget at all."""
        published = sum(now[name].published - before[name].published for name in now)
        too_old = sum(
            now[name].dropped.get(reason.label, 0) - before[name].dropped.get(reason.label, 0)
            for name in now
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

    def _view(self, status: CameraStatus, tally: CameraTally) -> CameraView:
        decoded_fps, published_fps = self._fps[status.camera]
        ages = self._ledgers[status.camera].ages
        return CameraView(
            status=status,
            tally=tally,
            decoded_fps=decoded_fps,
            published_fps=published_fps,
            age_p50_ms=ages.percentile(50),
            age_p99_ms=ages.percentile(99),
        )
