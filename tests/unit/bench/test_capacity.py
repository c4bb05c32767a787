"""``bench capacity`` on a machine that carries so many frames a second: what it answers, and how it says so."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from xml.etree import ElementTree

import pytest

from streamproc.bench import capacity
from streamproc.bench.capacity import CapacityReport, Plan, measure_capacity
from streamproc.bench.capacity_report import as_html, as_json, remedy, sentence, summary_table, trial_line
from streamproc.bench.samples import CameraSecond
from streamproc.bench.trials import Record
from streamproc.bench.workload import Workload
from streamproc.config import CameraConfig, Config, ModelConfig
from tests.trials import a_record, a_second, fake_trials

WORKLOAD = Workload(
    base=Config(model=ModelConfig(name="m"), cameras={"gate": CameraConfig(url="rtsp://h/a")}),
    sends={"gate": "h264 1920x1080 at 24 FPS"},
    rates={"gate": 24.0},
    notes=("a note",),
)


def machine(frames_per_s: float) -> object:
    """Shares what it can do evenly; ages grow with the load; 200 MB, and 10 for each camera."""

    def make(config: Config, looks: int) -> Record:
        count, fps = len(config.cameras), config.budget.fps
        published = min(int(fps), math.floor(frames_per_s / count))
        one = a_second(published, 50.0 * count * fps / frames_per_s, stale=int(fps) - published)
        seconds: Mapping[str, CameraSecond] = dict.fromkeys(config.cameras, one)
        return a_record(looks, lambda _: seconds, cores=0.05 * count, rss_mb=lambda _: 200 + 10 * count)

    return fake_trials(make)


async def report_of(
    monkeypatch: pytest.MonkeyPatch, frames_per_s: float, *rates: float, limit: int = 100
) -> CapacityReport:
    monkeypatch.setattr(capacity, "run_trial", machine(frames_per_s))
    plan = Plan(rates=rates, warm_up=2, seconds=4, limit=limit, workers="auto")
    return await measure_capacity(WORKLOAD, plan)


async def test_a_number_for_each_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, 340, 24, 12, 6)
    assert [(answer.fps, answer.cameras) for answer in report.answers] == [(24, 14), (12, 28), (6, 56)]
    assert sentence(report.answers[0]) == "14 cameras at 24 FPS, p95 age 49 ms, p99 49 ms"
    for answer in report.answers:
        assert answer.held is not None
        assert answer.broke is not None
        assert (answer.held.cameras, answer.broke.cameras) == (answer.cameras, answer.cameras + 1)
    assert report.memory is not None
    assert (report.memory.base_mb, report.memory.per_camera_mb) == pytest.approx((200, 10))
    assert len(report.trials) < 30


async def test_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, 340, 24, limit=6)
    assert report.answers[0].broke is None
    assert sentence(report.answers[0]).endswith("no more were tried")


async def test_not_even_one(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, 20, 24, 5)
    none, some = report.answers
    assert (none.cameras, none.held, some.cameras) == (0, None, 4)
    assert sentence(none) == "not even one camera at 24 FPS"
    assert "gate published 83.3 % of its frames (stale 16). Use a smaller model" in remedy(none)
    assert [row[0] for row in summary_table(report).rows] == ["5"]
    assert ElementTree.fromstring(as_html(report).partition("\n")[2]) is not None


async def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "run_trial", machine(340))
    plan = Plan(rates=(24.0,), warm_up=2, seconds=4, limit=1, workers=1)
    doing: list[str] = []
    lines: list[str] = []
    await measure_capacity(
        WORKLOAD, plan, on_trial=lambda trial: lines.append(trial_line(trial)), on_doing=doing.append
    )
    assert doing == ["1 camera at 24 FPS: starting", "1 camera at 24 FPS: 1 of 6 s"]
    assert lines == [
        "1 camera at 24 FPS: holds | age p95 4 ms, p99 4 ms, 100.0 % published, 0.05 cores (others 0.00), 210 MB"
    ]


async def test_json_and_page(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, 100, 24, 12)
    told = json.loads(as_json(report))
    assert told["schema"] == "streamproc.bench.capacity/1"
    assert [(answer["fps"], answer["cameras"], answer["limited"]) for answer in told["answers"]] == [
        (24, 4, False),
        (12, 8, False),
    ]
    assert told["answers"][0]["held"]["figures"]["ages"]["summary_ms"]["p95"] == pytest.approx(48)
    assert told["answers"][0]["broke"]["reasons"]
    assert (told["warm_up"], told["seconds"], told["notes"], told["cameras"]) == (2, 4, ["a note"], WORKLOAD.sends)
    page = as_html(report)
    assert ElementTree.fromstring(page.partition("\n")[2]) is not None
    for title in ("Cameras within the budget", "Age against cameras", "age over time", "Distribution", "Trials"):
        assert title in page
