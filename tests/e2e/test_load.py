"""Real-time cameras under more load than the machine can infer, and over time."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.brokers import mosquitto
from tests.e2e.harness import Subscriber, assert_sums_close, started, streamproc, write_config

pytestmark = pytest.mark.alone


def overloaded(folder: Path, shared_data: Path, port: int, max_age_ms: float, priorities: dict[str, float]) -> Path:
    """Four 1080p cameras of 25 FPS and a detector that cannot keep up with them on two cores."""
    video = shared_data / "videos" / "pedestrians_street_1080p.mp4"
    return write_config(
        folder,
        site="load",
        engine={"precision": "fp32"},
        model={"path": shared_data / "models" / "yolov8n.onnx", "labels": "coco"},
        budget={"max_frame_age_ms": max_age_ms},
        mqtt={"url": f"mqtt://127.0.0.1:{port}"},
        cameras={name: {"url": video, "loop": True, "priority": weight} for name, weight in priorities.items()},
    )


def run_overloaded(
    folder: Path, shared_data: Path, seconds: int, max_age_ms: float, priorities: dict[str, float]
) -> dict[str, Any]:
    with mosquitto(folder) as broker, Subscriber(broker.port) as heard:
        heard.wait_subscribed()
        report = folder / "report.json"
        config = overloaded(folder, shared_data, broker.port, max_age_ms, priorities)
        done = streamproc("run", config, "--duration", str(seconds), "--report", report, timeout_s=seconds + 60)
        assert done.code == 0, done.err
        heard.wait_for_end("streamproc/load")
        ages = [m["age_ms"] for t, ms in heard.messages.items() if t.endswith("detections") for m in ms]
    books: dict[str, Any] = json.loads(report.read_text())
    assert_sums_close(books)
    rates = {name: row["published"] for name, row in books["cameras"].items()}
    print(f"published {rates}, age {books['totals']['age_ms']}, dropped {books['totals']['dropped']}")
    assert max(ages) <= max_age_ms, "what is published is fresh, without exception"
    assert books["totals"]["age_ms"]["p99"] <= max_age_ms
    return rates


# The short form leaves room for a noisy machine; the drill has the default budget.
FORMS = [pytest.param(15, 400.0), pytest.param(120, 100.0, marks=pytest.mark.drill)]


@pytest.mark.shared_data
@pytest.mark.parametrize(("seconds", "max_age_ms"), FORMS)
def test_overload_is_shared_equally(tmp_path: Path, shared_data: Path, seconds: int, max_age_ms: float) -> None:
    rates = run_overloaded(tmp_path, shared_data, seconds, max_age_ms, {"a": 1, "b": 1, "c": 1, "d": 1})
    assert max(rates.values()) <= 1.1 * min(rates.values())


@pytest.mark.shared_data
@pytest.mark.parametrize(("seconds", "max_age_ms"), FORMS)
def test_overload_is_shared_by_priority(tmp_path: Path, shared_data: Path, seconds: int, max_age_ms: float) -> None:
    rates = run_overloaded(tmp_path, shared_data, seconds, max_age_ms, {"a": 2, "b": 1, "c": 1, "d": 1})
    others = [rates[c] for c in "bcd"]
    assert max(others) <= 1.1 * min(others)
    assert 1.6 <= rates["a"] / (sum(others) / 3) <= 2.2


def resident_mb(process: psutil.Process) -> float:
    """Of a process and its children."""
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family) / 2**20


def watch_memory(process: psutil.Process, seconds: int, every: int) -> Iterator[float]:
    tick = threading.Event()
    for _ in range(0, seconds, every):
        tick.wait(every)
        yield resident_mb(process)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("first_s", "last_s", "growth"), [pytest.param(20, 40, 1.1), pytest.param(60, 600, 1.05, marks=pytest.mark.drill)]
)
def test_memory_stays_flat(tmp_path: Path, samples: Path, first_s: int, last_s: int, growth: float) -> None:
    with mosquitto(tmp_path) as broker:
        config = write_config(
            tmp_path,
            model={"path": samples / "streetnet.onnx"},
            mqtt={"url": f"mqtt://127.0.0.1:{broker.port}"},
            cameras={n: {"url": samples / f"{n}.mp4", "loop": True} for n in ("gate", "yard", "crossing", "plaza")},
        )
        log, report = tmp_path / "log", tmp_path / "report.json"
        with started("run", config, "--report", report, log=log) as running:
            every = first_s // 2
            series = list(watch_memory(psutil.Process(running.pid), last_s, every))
            running.send_signal(signal.SIGINT)
            assert running.wait(10) == 0, log.read_text()
    print("resident MB every", every, "s:", [round(mb) for mb in series])
    assert_sums_close(json.loads(report.read_text()))
    assert series[-1] <= growth * series[first_s // every - 1]
