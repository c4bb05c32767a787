"""The run in numbers: what ``--report`` writes and the live display shows."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streamproc.cascade.stage import StageCounts
from streamproc.ledger import AgeHistogram, CameraLedger, Cost
from streamproc.sinks.base import SinkCounts

__all__ = ["REPORT_SCHEMA", "BatchCounts", "WorkerCounts", "build_report", "cpu_seconds", "encode_report"]

REPORT_SCHEMA = "streamproc.report/1"


class BatchCounts:
    """How many batches were inferred, and of what size."""

    def __init__(self) -> None:
        self.count = 0
        self.frames = 0

    def add(self, size: int) -> None:
        """Count one batch of ``size`` frames."""
        self.count += 1
        self.frames += size

    @property
    def mean_size(self) -> float | None:
        """Frames a batch; None before the first."""
        return round(self.frames / self.count, 3) if self.count else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCounts:
    """What one worker says of itself beside its cameras' books.

    ``carried`` of the annotated pictures shown live were not inferred; ``live_ages`` are those of live pictures, None
    where none are served. ``loop_load`` is the share of the time in which its event loop computed. ``models``: what
    each secondary model was asked.
    """

    cameras: tuple[str, ...]
    engine: Mapping[str, str | int]
    batches: BatchCounts
    sinks: Mapping[str, SinkCounts]
    carried: int
    live_ages: AgeHistogram | None
    loop_load: float
    models: Mapping[str, StageCounts] = field(default_factory=dict)


def _total_batches(workers: Iterable[WorkerCounts]) -> BatchCounts:
    """Of all of them."""
    total = BatchCounts()
    for worker in workers:
        total.count += worker.batches.count
        total.frames += worker.batches.frames
    return total


def _total_sinks(workers: Iterable[WorkerCounts]) -> dict[str, SinkCounts]:
    """What the sinks of each name took and lost in all workers."""
    totals: dict[str, SinkCounts] = {}
    for worker in workers:
        for name, counts in worker.sinks.items():
            total = totals.setdefault(name, SinkCounts())
            total.taken += counts.taken
            total.lost += counts.lost
    return totals


def _total_models(workers: Iterable[WorkerCounts]) -> dict[str, Any]:
    """What each secondary model was asked in all workers."""
    totals: dict[str, StageCounts] = {}
    for worker in workers:
        for name, counts in worker.models.items():
            totals.setdefault(name, StageCounts()).add(counts)
    return {
        name: {
            "batches": counts.batches,
            "crops": counts.crops,
            "mean_size": round(counts.crops / counts.batches, 3) if counts.batches else None,
            "empty": counts.empty,
            "lost": dict(counts.lost),
        }
        for name, counts in totals.items()
    }


def _live_counts(workers: Iterable[WorkerCounts]) -> dict[str, Any]:
    """How many of the annotated pictures were not inferred, and how old they were when they were handed on."""
    carried, ages = 0, AgeHistogram()
    for worker in workers:
        carried += worker.carried
        if worker.live_ages is not None:
            ages.merge(worker.live_ages)
    return {"carried": carried, "age_ms": ages.summary()}


def cpu_seconds() -> float:
    """User + system time of this process and of its children that have ended, in seconds."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _camera(ledger: CameraLedger) -> dict[str, Any]:
    tally = ledger.tally()
    span = ledger.span_ns()
    active_s = (span[1] - span[0]) / 1e9 if span else 0.0
    return {
        "received": tally.received,
        "decoded": tally.decoded,
        "inferred": tally.inferred,
        "published": tally.published,
        "predicted": tally.predicted,
        "dropped": tally.dropped,
        "fps": round(tally.published / active_s, 2) if active_s > 0 else None,
        "age_ms": ledger.ages.summary(),
        "cpu_ms": _cpu_ms(ledger.spent_ns(), tally.decoded),
        "reconnects": ledger.reconnects,
    }


def _cpu_ms(spent_ns: Mapping[Cost, int], frames: int) -> dict[str, float]:
    """Milliseconds for each of so many frames, of what was spent on at all."""
    return {cost.value: round(ns / 1e6 / frames, 3) for cost, ns in spent_ns.items() if ns and frames}


def build_report(
    ledgers: Mapping[str, CameraLedger],
    *,
    workers: Sequence[Sequence[WorkerCounts]],
    rtsp: Mapping[str, Any] | None,
    started_ns: int,
    cpu_started_s: float,
) -> dict[str, Any]:
    """The report of a run, as JSON-ready values.

    Args:
        ledgers: of every camera, in configuration order. Close them first, or the sums are those of the moment.
        workers: what each says of itself; more than once where it was restarted.
        rtsp: counts of the live streams; None where there are none.
        started_ns: monotonic time at which the run began.
        cpu_started_s: :func:`cpu_seconds` at that time.

    ``cpu_ms`` is processor time on threads of our own, user + system, for each decoded frame, by what it went to; the
    engine's threads and the event loop's own work are only in ``cpu_s``. ``active_s`` runs from the first frame
    captured to the last published; 0 when nothing was published. ``models`` has the crops that each secondary model was
    asked about, and in how many batches. With ``cascade: server`` the server looks at every object and forms batches as
    it likes: ``batches`` is 0, ``crops`` are those whose answers were due and taken, and ``unseen`` in ``lost`` those
    that it had no room for, or that were too small for it.
    """
    cameras = {name: _camera(ledger) for name, ledger in ledgers.items()}
    spans = [span for ledger in ledgers.values() if (span := ledger.span_ns()) is not None]
    active_s = (max(last for _, last in spans) - min(first for first, _ in spans)) / 1e9 if spans else 0.0
    ages = AgeHistogram()
    dropped: dict[str, int] = {}
    spent_ns = dict.fromkeys(Cost, 0)
    for name, ledger in ledgers.items():
        ages.merge(ledger.ages)
        for cost, ns in ledger.spent_ns().items():
            spent_ns[cost] += ns
        for reason, count in cameras[name]["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    every = [counts for life in workers for counts in life]
    batches = _total_batches(every)
    counts = ("received", "decoded", "inferred", "published", "predicted")
    totals = {key: sum(camera[key] for camera in cameras.values()) for key in counts}
    return {
        "schema": REPORT_SCHEMA,
        "wall_s": round((time.monotonic_ns() - started_ns) / 1e9, 3),
        "active_s": round(active_s, 3),
        "cpu_s": round(cpu_seconds() - cpu_started_s, 3),
        "engine": next((dict(counts.engine) for counts in reversed(every) if counts.engine), {}),
        "cameras": cameras,
        "totals": {
            **totals,
            "dropped": dropped,
            "fps": round(totals["published"] / active_s, 2) if active_s > 0 else None,
            "age_ms": ages.summary(),
            "cpu_ms": _cpu_ms(spent_ns, totals["decoded"]),
        },
        "batches": {"count": batches.count, "mean_size": batches.mean_size},
        "sinks": {name: {"taken": each.taken, "lost": dict(each.lost)} for name, each in _total_sinks(every).items()},
        "workers": [
            {"cameras": list(life[-1].cameras), "restarts": len(life) - 1, "loop_load": life[-1].loop_load}
            for life in workers
            if life
        ],
        **({"models": models} if (models := _total_models(every)) else {}),
        **({"rtsp": {**rtsp, **_live_counts(every)}} if rtsp is not None else {}),
    }


def encode_report(report: Mapping[str, Any]) -> bytes:
    """The report as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
