"""The whole pipeline, as fast as it goes over files, and where its processor time goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from streamproc import app
from streamproc.config import Config
from streamproc.errors import FatalError

__all__ = ["INFER", "REST", "Pipeline", "cost_by_stage", "measure_pipeline"]

_LOOK_EVERY_S = 0.25
_ENGINE_POOLS = ("onnxruntime",)  # threads that Python has started for an engine to compute on
INFER, REST = "infer", "the rest"
# In the order in which a frame meets them; which of the report's counts are those that a stage has seen.
_SEEN = {
    "decode": "decoded",
    "letterbox": "inferred",
    INFER: "inferred",
    "postprocess": "inferred",
    "track": "inferred",
    "publish": "published",
    "draw": "published",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What a pipeline does. ``cpu_ms`` is processor time of its processes for each frame, user + system, and ``stages``
    what of that went where; ``the rest`` is what is left: the event loop, queues, and waking of threads."""

    frames_per_s: float
    cpu_ms: float
    stages: Mapping[str, float]
    description: Mapping[str, str | int]


def measure_pipeline(config: Config, seconds: float) -> Pipeline:
    """Run a configuration for ``seconds``; for a process of its own.

    Raises:
        FatalError: the run has failed, or published nothing.
        ConfigError: a class named in the configuration is none of the model's.
    """
    with _Meter() as used:
        run = app.run(config, stop=asyncio.Event(), duration_s=seconds, workers=1, on_ready=lambda _: used.begin())
        outcome = asyncio.run(run)
    if outcome.failures:
        raise FatalError(f"the pipeline failed: {'; '.join(outcome.failures)}")
    totals = outcome.report["totals"]
    if not totals["published"]:
        raise FatalError(f"the pipeline has published nothing in {seconds:g} s. Give it more time: --seconds.")
    stages = cost_by_stage(totals, cpu_s=outcome.report["cpu_s"], engine_cpu_s=used.engine_s)
    return Pipeline(
        frames_per_s=totals["published"] / outcome.report["active_s"],
        cpu_ms=sum(stages.values()),
        stages=stages,
        description=outcome.report["engine"],
    )


def cost_by_stage(totals: Mapping[str, Any], *, cpu_s: float, engine_cpu_s: float) -> dict[str, float]:
    """Processor time of a run of one process by what it went to, in ms for each frame that came so far.

    ``totals`` are those of its report. What was decoded and not published, as a run that is ended leaves some in the
    middle, is not charged to the others.

    >>> totals = {"decoded": 120, "inferred": 100, "published": 100, "cpu_ms": {"decode": 3.0, "letterbox": 0.5}}
    >>> cost_by_stage(totals, cpu_s=1.57, engine_cpu_s=1.1)
    {'decode': 3.0, 'letterbox': 0.6, 'infer': 11.0, 'the rest': 0.5}
    """
    spent_ms = {stage: each_ms * totals["decoded"] for stage, each_ms in totals["cpu_ms"].items()}
    spent_ms[INFER] = engine_cpu_s * 1e3
    rest_ms = cpu_s * 1e3 - sum(spent_ms.values())
    found = {stage: round(spent_ms[stage] / totals[seen], 3) for stage, seen in _SEEN.items() if stage in spent_ms}
    return found | {REST: round(max(rest_ms, 0.0) / totals["published"], 3)}


class _Meter:
    """What a run in this process has used before its cameras started, and in threads that are not ours: an engine
    computes in them.

    Threads that end take their time with them, so all are looked at now and then while the block lasts, and once more
    at its end.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ours: set[int] = set()
        self._used_s: dict[int, float] = {}
        self._before_s: dict[int, float] = {}
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._keep_looking, name="engine's time", daemon=True)

    def __enter__(self) -> _Meter:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()
        self._look()

    def begin(self) -> None:
        """The cameras start now: what was used to open model and outputs does not count."""
        self._look()
        self._before_s = dict(self._used_s)

    @property
    def engine_s(self) -> float:
        """Of the engine's threads since :meth:`begin`, user + system; it has started them by then."""
        theirs = self._before_s.keys() - self._ours
        return sum(self._used_s[thread] - self._before_s[thread] for thread in theirs)

    def _keep_looking(self) -> None:
        while not self._done.wait(_LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        for thread in threading.enumerate():
            if thread.native_id is not None and not thread.name.startswith(_ENGINE_POOLS):
                self._ours.add(thread.native_id)
        for used in self._process.threads():
            self._used_s[used.id] = used.user_time + used.system_time
