"""A trial's figures leave the warm-up out, and add up."""

from __future__ import annotations

import pytest

from streamproc.bench.measured import figures_of
from streamproc.bench.samples import CameraSecond
from streamproc.bench.usage import GpuUse
from tests.trials import a_record, a_second


def test_the_warm_up_does_not_count() -> None:
    def cameras(index: int) -> dict[str, CameraSecond]:
        if index < 3:
            return {"gate": a_second(5, 900.0, overload=19), "yard": a_second(5, 900.0)}
        return {"gate": a_second(24, 20.0), "yard": a_second(12, 40.0, stale=4, skipped=100, corrupt=2)}

    figures = figures_of(a_record(8, cameras, cores=1.5, others=0.25), warm_up=3)
    assert figures.seconds == 5.0
    assert figures.ages.summary() == {"p50": 20.0, "p95": 40.0, "p99": 40.0, "max": 40.0}
    assert (figures.cpu_cores, figures.others_cores) == (1.5, 0.25)
    gate, yard = figures.cameras["gate"], figures.cameras["yard"]
    assert (gate.fps, gate.share, gate.lost) == (24.0, 1.0, {})
    assert (yard.fps, yard.share, yard.lost) == (12.0, 0.75, {"stale": 20})
    assert (figures.published_fps, figures.inferred_fps, figures.lost) == (36.0, 36.0, {"stale": 20})
    assert figures.share == pytest.approx(180 / 200)
    assert [one.published for one in figures.timeline] == [10] * 3 + [36] * 5
    assert [one.at_s for one in figures.timeline] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_memory_is_the_most_that_was_resident() -> None:
    figures = figures_of(
        a_record(6, lambda _: {"gate": a_second()}, rss_mb=lambda index: (900, 1, 2, 5, 4, 3)[index]), warm_up=2
    )
    assert figures.rss_mb == 5.0


def test_a_camera_of_which_nothing_came() -> None:
    figures = figures_of(a_record(4, lambda _: {"gate": a_second(0, state="offline (refused)")}), warm_up=1)
    assert figures.share == 0.0
    assert figures.cameras["gate"].share == 0.0
    assert figures.cameras["gate"].state == "offline (refused)"
    assert figures.ages.percentile(95) is None


def test_gpus_where_there_are_any() -> None:
    gpu = GpuUse(busy=0.25, decoding=0.5, memory_bytes=700_000_000)
    with_one = figures_of(a_record(4, lambda _: {"gate": a_second()}, gpu=gpu), warm_up=1)
    assert with_one.gpu is not None
    assert (with_one.gpu.busy, with_one.gpu.decoding, with_one.gpu.memory_mb) == (0.25, 0.5, 700.0)
    assert figures_of(a_record(4, lambda _: {"gate": a_second()}), warm_up=1).gpu is None
