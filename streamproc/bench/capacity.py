"""How many cameras this machine carries within the budget, at which rate: tried out, camera by camera."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from streamproc.bench.machine import processor
from streamproc.bench.measured import Figures, figures_of
from streamproc.bench.search import find_edge
from streamproc.bench.trials import run_trial
from streamproc.bench.usage import GpuMeter
from streamproc.bench.verdict import Verdict, disturbance, judge
from streamproc.bench.workload import SPARE_S, Workload

__all__ = ["Answer", "CapacityReport", "Line", "Plan", "Trial", "measure_capacity"]

_FIRST = 4  # cameras: below what most machines carry, above what is tried in vain
_NEARBY = 1.2
"""Growth from a good guess: what a machine carries at one rate says about what it does at another."""
_GUESS_SHARE = 0.8  # of what the last rate lets expect, since decoding costs the same at every rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to try: ``rates`` in frames a second, each for up to ``limit`` cameras, in trials of ``warm_up`` seconds
    that do not count and ``seconds`` that do, over so many ``workers``."""

    rates: tuple[float, ...]
    warm_up: int
    seconds: int
    limit: int
    workers: int | Literal["auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """So many cameras at so many frames a second, and what came of it."""

    cameras: int
    fps: float
    figures: Figures
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The most ``cameras`` at a rate, with the trial in which they ``held`` and the one in which one more ``broke``.

    ``held`` is None where not even one camera does; ``broke`` where more were not asked for.
    """

    fps: float
    cameras: int
    held: Trial | None
    broke: Trial | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Memory as a straight line: so much without cameras, and so much for each."""

    base_mb: float
    per_camera_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityReport:
    """All of it. ``engine`` is the engine's own description, ``sends`` what each camera sends, ``gpus`` the names of
    those that were read; ``memory`` is None where all trials had as many cameras; ``notes`` says what was left out."""

    processor: str
    cores: int
    gpus: tuple[str, ...]
    model: str
    engine: Mapping[str, str | int]
    sends: Mapping[str, str]
    max_age_ms: float
    plan: Plan
    answers: tuple[Answer, ...]
    trials: tuple[Trial, ...]
    memory: Line | None
    notes: tuple[str, ...]


async def measure_capacity(
    workload: Workload,
    plan: Plan,
    *,
    on_trial: Callable[[Trial], None] = lambda _: None,
    on_doing: Callable[[str], None] = lambda _: None,
) -> CapacityReport:
    """Find the most cameras at each rate.

    Args:
        on_trial: is told of every trial when it is over.
        on_doing: is told, once a second, what is under way.

    Raises:
        ModelError: the model cannot be used.
        FatalError: a trial could not begin, or broke for another reason than load.
    """
    with GpuMeter() as gpus, workload.lasting(plan.warm_up + plan.seconds + SPARE_S) as lasting:
        search = _Search(lasting, plan, gpus, on_trial, on_doing)
        answers: list[Answer] = []
        for fps in plan.rates:
            answers.append(await search.answer(fps, answers[-1] if answers else None))
    name, cores = processor()
    return CapacityReport(
        processor=name,
        cores=cores,
        gpus=gpus.names,
        model=workload.base.model.name,
        engine=search.engine,
        sends=workload.sends,
        max_age_ms=workload.base.budget.max_frame_age_ms,
        plan=plan,
        answers=tuple(answers),
        trials=tuple(search.trials),
        memory=_memory(search.trials),
        notes=(
            *workload.notes,
            *filter(None, [gpus.note]),
            *disturbance([trial.figures for trial in search.trials], cores),
        ),
    )


class _Search:
    """The trials so far, and what they say."""

    def __init__(
        self,
        workload: Workload,
        plan: Plan,
        gpus: GpuMeter,
        on_trial: Callable[[Trial], None],
        on_doing: Callable[[str], None],
    ) -> None:
        self.trials: list[Trial] = []
        self.engine: Mapping[str, str | int] = {}
        self._workload = workload
        self._plan = plan
        self._gpus = gpus
        self._on_trial = on_trial
        self._on_doing = on_doing
        _, self._cores = processor()

    async def answer(self, fps: float, last: Answer | None) -> Answer:
        """The most cameras at a rate, given what was found at the rate before."""
        guess = _guess(fps, last)
        edge = await find_edge(
            lambda count: self._holds(count, fps),
            first=_FIRST if guess is None else guess,
            limit=self._plan.limit,
            growth=2.0 if guess is None else _NEARBY,
        )
        held = [trial for trial in self._at(edge.most, fps) if trial.verdict.holds]
        broke = [trial for trial in self._at(edge.most + 1, fps) if not trial.verdict.holds]
        return Answer(fps=fps, cameras=edge.most, held=held[-1] if held else None, broke=broke[-1] if broke else None)

    def _at(self, cameras: int, fps: float) -> list[Trial]:
        return [trial for trial in self.trials if (trial.cameras, trial.fps) == (cameras, fps)]

    async def _holds(self, cameras: int, fps: float) -> bool:
        workload, plan = self._workload, self._plan
        looks = plan.warm_up + plan.seconds
        name = f"{cameras} camera{'s' if cameras > 1 else ''} at {fps:g} FPS"
        self._on_doing(f"{name}: starting")
        record = await run_trial(
            workload.with_cameras(cameras, fps),
            looks=looks,
            workers=plan.workers,
            gpus=self._gpus,
            on_look=lambda number: self._on_doing(f"{name}: {number} of {looks} s"),
        )
        figures = figures_of(record, warm_up=plan.warm_up)
        verdict = judge(
            figures,
            max_age_ms=workload.base.budget.max_frame_age_ms,
            cores=self._cores,
            expected_fps=lambda camera: workload.expected_fps(camera, fps),
        )
        self.engine = record.ended.report["engine"]
        trial = Trial(cameras=cameras, fps=fps, figures=figures, verdict=verdict)
        self.trials.append(trial)
        self._on_trial(trial)
        return verdict.holds


def _guess(fps: float, last: Answer | None) -> int | None:
    """What to try first: frames a second in all stay about the same from rate to rate."""
    if last is None or not last.cameras:
        return None
    return max(last.cameras, math.floor(_GUESS_SHARE * last.cameras * last.fps / fps))


def _memory(trials: list[Trial]) -> Line | None:
    """Least squares over all trials that held, at whatever rate: memory goes with the cameras."""
    held = [trial for trial in trials if trial.verdict.holds]
    if len({trial.cameras for trial in held}) < 2:
        return None
    slope, base = statistics.linear_regression(
        [trial.cameras for trial in held], [trial.figures.rss_mb for trial in held]
    )
    return Line(base_mb=round(base, 1), per_camera_mb=round(slope, 2))
