"""Trials that never took place, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamproc.bench.samples import Ages, CameraSecond, Ended, Second
from streamproc.bench.trials import Moment, Record
from streamproc.bench.usage import GpuUse, Usage
from streamproc.config import Config

__all__ = ["a_record", "a_report", "a_second", "fake_trials"]

START_S = 1000.0


def a_second(published: int = 24, age_ms: float = 20.0, *, state: str = "online", **lost: int) -> CameraSecond:
    """One camera's second, in which every frame published was ``age_ms`` old."""
    came = published + sum(lost.values())
    ages = Ages(bins=((age_ms, published),), max_ms=age_ms) if published else Ages()
    return CameraSecond(state=state, received=came, inferred=published, published=published, lost=lost, ages=ages)


def a_report(cameras: Mapping[str, int], *, missing: int = 0) -> dict[str, Any]:
    """A run's report on cameras that published so many frames; ``missing`` of each vanished."""
    counts = {
        name: {"received": n + missing, "decoded": n, "inferred": n, "published": n, "dropped": {}}
        for name, n in cameras.items()
    }
    total = sum(cameras.values())
    totals = {"received": total, "decoded": total, "inferred": total, "published": total, "dropped": {}}
    return {"engine": {"kind": "null"}, "cameras": counts, "totals": totals}


def a_record(
    looks: int,
    cameras: Callable[[int], Mapping[str, CameraSecond]],
    *,
    cores: float = 1.0,
    others: float = 0.0,
    rss_mb: Callable[[int], float] = lambda _: 300.0,
    gpu: GpuUse | None = None,
    report: dict[str, Any] | None = None,
) -> Record:
    """A trial of so many seconds; ``cameras`` and ``rss_mb`` are told which second, from 0."""
    moments = tuple(
        Moment(
            second=Second(at_s=START_S + index, cameras=cameras(index)),
            usage=Usage(
                at_s=START_S + index,
                cpu_s=cores * index,
                rss_bytes=round(rss_mb(index) * 1e6),
                busy_s=(cores + others) * index,
            ),
            gpu=gpu,
        )
        for index in range(looks)
    )
    told = report or a_report({name: sum(cameras(i)[name].published for i in range(looks)) for name in cameras(0)})
    before = None if gpu is None else GpuUse(busy=0.0, decoding=0.0, memory_bytes=0)
    return Record(moments=moments, ended=Ended(report=told), gpu_before=before)


def fake_trials(make: Callable[[Config, int], Record]) -> Callable[..., Any]:
    """Takes the place of ``run_trial``; ``make`` is given the configuration and how many looks are wanted."""

    async def run_trial(config: Config, *, looks: int, on_look: Callable[[int], None], **_: object) -> Record:
        on_look(1)
        return make(config, looks)

    return run_trial
