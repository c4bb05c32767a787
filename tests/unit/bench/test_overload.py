"""``bench overload`` on a machine that infers so much: what it asks for, and what it makes of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from streamproc.bench import overload
from streamproc.bench.overload import OverloadReport, Plan, measure_overload
from streamproc.bench.overload_report import as_html, as_json, promises_table, sentence, shares_table
from streamproc.bench.samples import CameraSecond
from streamproc.bench.trials import Record
from streamproc.bench.workload import Workload
from streamproc.config import CameraConfig, Config, ModelConfig
from streamproc.errors import FatalError
from tests.trials import a_record, a_report, a_second, fake_trials

CAPACITY_FPS = 60
PLAN = Plan(times=2.0, fps=24.0, warm_up=2, seconds=9, limit=64, workers="auto")


def workload(**settings: Any) -> Workload:
    camera = CameraConfig(url="rtsp://h/a", **settings)
    base = Config(model=ModelConfig(name="m"), cameras={"gate": camera})
    return Workload(base=base, sends={"gate": "h264"}, rates={"gate": 24.0})


def machine(
    *,
    age_ms: Callable[[int], float] = lambda _: 80.0,
    rss_mb: Callable[[int], float] = lambda _: 300.0,
    favourite: int = 0,
    missing: int = 0,
) -> object:
    """Gives each camera its share by weight; the first camera gets ``favourite`` frames more."""

    def make(config: Config, looks: int) -> Record:
        weights = {name: camera.priority for name, camera in config.cameras.items()}
        rates = {name: min(24, round(CAPACITY_FPS * own / sum(weights.values()))) for name, own in weights.items()}
        rates["gate"] += favourite

        def cameras(index: int) -> dict[str, CameraSecond]:
            return {name: a_second(rate, age_ms(index), overload=max(0, 24 - rate)) for name, rate in rates.items()}

        report = a_report({name: rate * looks for name, rate in rates.items()}, missing=missing)
        return a_record(looks, cameras, rss_mb=rss_mb, report=report)

    return fake_trials(make)


async def report_of(
    monkeypatch: pytest.MonkeyPatch, trials: object, plan: Plan = PLAN, **settings: Any
) -> OverloadReport:
    monkeypatch.setattr(overload, "run_trial", trials)
    return await measure_overload(workload(**settings), plan)


def kept(report: OverloadReport) -> list[str]:
    return [row[-1] for row in promises_table(report).rows]


async def test_asks_for_twice_what_is_inferred(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, machine())
    assert [(probe.cameras, probe.inferred_fps) for probe in report.probes] == [(2, 48), (4, 60)]
    assert (report.capacity_fps, report.cameras, report.offered_fps) == (60, 5, 120)
    assert sentence(report).startswith("5 cameras send 120 frames/s, 2 times the 60 images/s that this machine infers")
    assert kept(report) == ["yes"] * 4


async def test_every_other_camera_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, machine())
    assert [(group.priority, group.cameras, group.mean_fps) for group in report.groups] == [(1, 3, 9), (2, 2, 17)]
    low, high = shares_table(report).rows
    assert (low[-2:], high[-2:]) == (("1.00", "1.00"), ("2.00", "1.89"))


async def test_priorities_of_the_configuration_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, machine(), priority=5)
    assert [(group.priority, group.cameras) for group in report.groups] == [(5, 5)]


async def test_unfair(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, machine(favourite=3))
    assert not report.is_fair
    assert report.groups[0].spread == pytest.approx(3 / 8)
    assert kept(report) == ["yes", "NO", "yes", "yes"]


async def test_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept(await report_of(monkeypatch, machine(age_ms=lambda _: 120.0))) == ["NO", "yes", "yes", "yes"]


@pytest.mark.parametrize(
    ("growing", "steady"), [({"age_ms": lambda i: 40.0 + 4 * i}, False), ({"rss_mb": lambda i: 300.0 + 9 * i}, False)]
)
async def test_growth(monkeypatch: pytest.MonkeyPatch, growing: dict[str, Any], steady: bool) -> None:
    report = await report_of(monkeypatch, machine(**growing))
    assert report.growth.is_steady is steady
    assert kept(report) == ["yes", "yes", "NO", "yes"]


async def test_books_that_do_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, machine(missing=2))
    assert report.open_books["gate"] == {"decode": 2}
    assert kept(report) == ["yes", "yes", "yes", "NO"]


async def test_a_machine_that_cannot_be_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Plan(times=2.0, fps=24.0, warm_up=2, seconds=9, limit=2, workers="auto")
    with pytest.raises(FatalError, match="2 cameras at 24 FPS do not overload this machine"):
        await report_of(monkeypatch, machine(), few)
    with pytest.raises(FatalError, match="are 5 cameras; --max allows 4"):
        await report_of(monkeypatch, machine(), Plan(times=2.0, fps=24.0, warm_up=2, seconds=9, limit=4, workers=1))


async def test_cameras_that_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    away = fake_trials(
        lambda config, looks: a_record(
            looks, lambda _: dict.fromkeys(config.cameras, a_second(0, state="offline (refused)"))
        )
    )
    with pytest.raises(FatalError, match=r"no frame came of 2 cameras: offline \(refused\)"):
        await report_of(monkeypatch, away)


async def test_json_and_page(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, machine())
    told = json.loads(as_json(report))
    assert told["schema"] == "streamproc.bench.overload/1"
    assert told["kept"] == {"fresh": True, "fair": True, "steady": True, "closed": True}
    assert (told["camera_count"], told["cameras"], told["times"]) == (5, {"gate": "h264"}, 2.0)
    assert told["groups"][1]["priority"] == 2
    page = as_html(report)
    assert ElementTree.fromstring(page.partition("\n")[2]) is not None
    for title in ("What is promised", "Who got how much", "Age over time", "Memory over time", "Rate of every camera"):
        assert title in page
