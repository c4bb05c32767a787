"""More than this machine can take: what becomes of freshness, fairness, priorities and the books."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamproc.bench.machine import processor
from streamproc.bench.measured import Figures, Instant, figures_of
from streamproc.bench.samples import Ages
from streamproc.bench.trials import Record, run_trial
from streamproc.bench.usage import GpuMeter
from streamproc.bench.verdict import disturbance
from streamproc.bench.workload import SPARE_S, Workload
from streamproc.config import Config
from streamproc.errors import FatalError
from streamproc.ledger import CameraTally

__all__ = ["FAIR_SPREAD", "Group", "Growth", "OverloadReport", "Plan", "Probe", "measure_overload"]

FAIR_SPREAD = 0.10
"""Rates of cameras of one priority that differ by no more of their mean are fair."""
STEADY_GROWTH = 1.10
"""Ages and memory of the last third that are no more than so many times those of the first have not grown."""
_SATURATED_SHARE = 0.9  # of the frames that come, below which the machine infers as much as it can
_PROBE_WARM_UP, _PROBE_S = 3, 5
_FIRST = 2
_HIGH_PRIORITY = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``times`` the load that the machine takes, in cameras of ``fps`` frames a second, ``limit`` of them at most;
    ``warm_up`` seconds that do not count and ``seconds`` that do, over so many ``workers``."""

    times: float
    fps: float
    warm_up: int
    seconds: int
    limit: int
    workers: int | Literal["auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """So many cameras on the way to what the machine infers: frames a second that came, and that were inferred."""

    cameras: int
    offered_fps: float
    inferred_fps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The cameras of one ``priority``: the mean of their published rates, and the difference between the highest and
    the lowest, as a share of the mean."""

    priority: float
    cameras: int
    mean_fps: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """From the first third of the measured time to its last; None where nothing was published in one."""

    age_p95_ms: tuple[float | None, float | None]
    rss_mb: tuple[float, float]

    @property
    def is_steady(self) -> bool:
        """Whether neither has grown."""
        before, after = self.age_p95_ms
        ages = before is not None and after is not None and after <= STEADY_GROWTH * before
        return ages and self.rss_mb[1] <= STEADY_GROWTH * self.rss_mb[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadReport:
    """All of it. ``capacity_fps``: images a second that the machine infers when it is saturated; ``open_books``:
    cameras whose sums do not close, with what is missing at each stage."""

    processor: str
    cores: int
    model: str
    engine: Mapping[str, str | int]
    sends: Mapping[str, str]
    max_age_ms: float
    plan: Plan
    probes: tuple[Probe, ...]
    capacity_fps: float
    cameras: int
    offered_fps: float
    figures: Figures
    groups: tuple[Group, ...]
    priorities: Mapping[str, float]
    totals: Mapping[str, Any]
    open_books: Mapping[str, Mapping[str, int]]
    growth: Growth
    notes: tuple[str, ...]

    @property
    def is_fresh(self) -> bool:
        """Whether 99 of 100 published frames were within the budget."""
        p99_ms = self.figures.ages.percentile(99)
        return p99_ms is not None and p99_ms <= self.max_age_ms

    @property
    def is_fair(self) -> bool:
        """Whether cameras of the same priority got the same."""
        return all(group.spread <= FAIR_SPREAD for group in self.groups)


async def measure_overload(
    workload: Workload,
    plan: Plan,
    *,
    on_probe: Callable[[Probe], None] = lambda _: None,
    on_doing: Callable[[str], None] = lambda _: None,
) -> OverloadReport:
    """Find what the machine infers at most, then ask for ``plan.times`` as much.

    Args:
        on_probe: is told of every attempt to saturate it.
        on_doing: is told, once a second, what is under way.

    Raises:
        ModelError: the model cannot be used.
        FatalError: a trial could not begin or broke, or so many cameras do not overload the machine.
    """
    longest_s = max(plan.warm_up + plan.seconds, _PROBE_WARM_UP + _PROBE_S) + SPARE_S
    with GpuMeter() as gpus, workload.lasting(longest_s) as lasting:
        lab = _Lab(lasting, plan, gpus, on_doing)
        probes = await _saturate(lab, on_probe)
        capacity_fps = max(probe.inferred_fps for probe in probes)
        offered_each_fps = probes[-1].offered_fps / probes[-1].cameras
        cameras = max(2, math.ceil(plan.times * capacity_fps / offered_each_fps))
        if cameras > plan.limit:
            raise FatalError(
                f"{plan.times:g} times the {capacity_fps:.0f} images/s that this machine infers are {cameras} cameras; "
                f"--max allows {plan.limit}. Raise it, or lower --times."
            )
        config = _with_priorities(lasting.with_cameras(cameras, plan.fps))
        record = await lab.run(config, plan.warm_up, plan.seconds)
    figures = figures_of(record, warm_up=plan.warm_up)
    report = record.ended.report
    priorities = {name: camera.priority for name, camera in config.cameras.items()}
    name, cores = processor()
    return OverloadReport(
        processor=name,
        cores=cores,
        model=workload.base.model.name,
        engine=report["engine"],
        sends=workload.sends,
        max_age_ms=workload.base.budget.max_frame_age_ms,
        plan=plan,
        probes=tuple(probes),
        capacity_fps=capacity_fps,
        cameras=cameras,
        offered_fps=round(offered_each_fps * cameras, 2),
        figures=figures,
        groups=_groups(figures, priorities),
        priorities=priorities,
        totals=report["totals"],
        open_books=_open_books(report["cameras"]),
        growth=_growth(record, figures, plan.warm_up),
        notes=(*workload.notes, *disturbance([figures], cores)),
    )


@dataclass(frozen=True, slots=True)
class _Lab:
    """Where trials are made."""

    workload: Workload
    plan: Plan
    gpus: GpuMeter
    on_doing: Callable[[str], None]

    async def run(self, config: Config, warm_up: int, seconds: int) -> Record:
        looks = warm_up + seconds
        name = f"{len(config.cameras)} cameras at {self.plan.fps:g} FPS"
        self.on_doing(f"{name}: starting")
        return await run_trial(
            config,
            looks=looks,
            workers=self.plan.workers,
            gpus=self.gpus,
            on_look=lambda number: self.on_doing(f"{name}: {number} of {looks} s"),
        )


async def _saturate(lab: _Lab, on_probe: Callable[[Probe], None]) -> list[Probe]:
    """Twice the cameras each time, until a part of their frames is lost."""
    probes: list[Probe] = []
    for doublings in itertools.count():
        cameras = min(_FIRST << doublings, lab.plan.limit)
        config = lab.workload.with_cameras(cameras, lab.plan.fps)
        figures = figures_of(await lab.run(config, _PROBE_WARM_UP, _PROBE_S), warm_up=_PROBE_WARM_UP)
        came = figures.ages.count + sum(figures.lost.values())
        probe = Probe(cameras=cameras, offered_fps=round(came / figures.seconds, 2), inferred_fps=figures.inferred_fps)
        probes.append(probe)
        on_probe(probe)
        if not came:
            raise FatalError(f"no frame came of {cameras} cameras: {next(iter(figures.cameras.values())).state}")
        if figures.share < _SATURATED_SHARE:
            return probes
        if cameras == lab.plan.limit:
            raise FatalError(
                f"{cameras} cameras at {lab.plan.fps:g} FPS do not overload this machine, and --max allows no more"
            )
    raise AssertionError("unreachable")


def _with_priorities(config: Config) -> Config:
    """Every other camera counts twice, unless the configuration has priorities of its own."""
    if any(camera.priority != 1 for camera in config.cameras.values()):
        return config
    cameras = {
        name: camera.model_copy(update={"priority": _HIGH_PRIORITY}) if index % 2 else camera
        for index, (name, camera) in enumerate(config.cameras.items())
    }
    return config.model_copy(update={"cameras": cameras})


def _groups(figures: Figures, priorities: Mapping[str, float]) -> tuple[Group, ...]:
    """The cameras by priority, the lowest first."""
    groups = []
    for priority in sorted(set(priorities.values())):
        rates = [figures.cameras[name].fps for name, own in priorities.items() if own == priority]
        mean_fps = sum(rates) / len(rates)
        groups.append(
            Group(
                priority=priority,
                cameras=len(rates),
                mean_fps=round(mean_fps, 2),
                spread=round((max(rates) - min(rates)) / mean_fps, 4) if mean_fps else math.inf,
            )
        )
    return tuple(groups)


def _open_books(cameras: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What is missing from the sums of every camera of a report, where anything is."""
    found = {}
    for name, counts in cameras.items():
        keys = ("received", "decoded", "inferred", "published", "dropped")
        missing = CameraTally(**{key: counts[key] for key in keys}).in_flight()
        if any(missing.values()):
            found[name] = {stage.value: count for stage, count in missing.items() if count}
    return found


def _growth(record: Record, figures: Figures, warm_up: int) -> Growth:
    third = max(1, (len(record.moments) - warm_up) // 3)
    counted, timeline = record.moments[warm_up:], figures.timeline[warm_up:]
    ages = [
        Ages.together(one.ages for moment in part for one in moment.second.cameras.values()).percentile(95)
        for part in (counted[:third], counted[-third:])
    ]
    return Growth(age_p95_ms=(ages[0], ages[1]), rss_mb=(_mean_mb(timeline[:third]), _mean_mb(timeline[-third:])))


def _mean_mb(part: tuple[Instant, ...]) -> float:
    return round(sum(one.rss_mb for one in part) / len(part), 1)
