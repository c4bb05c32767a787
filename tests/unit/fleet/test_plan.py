"""How many processes, which camera goes where, and what is said about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.config import CameraConfig, Config, ModelConfig
from streamproc.fleet.plan import choose, expected_costs, plan_workers, spread


def config(cameras: int, **camera: Any) -> Config:
    model = ModelConfig(path=Path("model.onnx"), labels="coco")
    one = CameraConfig(url="rtsp://127.0.0.1/", **camera)
    return Config(model=model, cameras={f"camera{number}": one for number in range(cameras)})


def cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))


@given(
    cores=st.integers(1, 256),
    cameras=st.integers(1, 512),
    fps=st.floats(0.1, 60),
    frame_ms=st.one_of(st.none(), st.floats(0.01, 10)),
)
def test_no_more_processes_than_cameras_or_cores_can_feed(
    cores: int, cameras: int, fps: float, frame_ms: float | None
) -> None:
    plan = choose(cores=cores, cameras=cameras, frames_per_s=cameras * fps, frame_ms=frame_ms)
    assert 1 <= plan.processes <= max(1, min(cameras, cores // 2))
    if frame_ms is not None and plan.processes < max(1, min(cameras, cores // 2)):
        assert cameras * fps * frame_ms / 1e3 / plan.processes <= 0.5 + 1e-9, "no interpreter is more than half busy"


def test_few_cameras_and_small_machines_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    cores(monkeypatch, 16)
    assert str(plan_workers(config(4), "auto")) == "1: one is enough for 4 camera(s) with 96 frames/s"
    cores(monkeypatch, 2)
    assert str(plan_workers(config(24), "auto")) == "1: 2 cores feed no more for 24 camera(s) with 576 frames/s"


def test_many_cameras_are_measured_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cores(monkeypatch, 64)
    plan = plan_workers(config(256), "auto")
    assert 2 <= plan.processes <= 32
    assert plan.reason.startswith("256 cameras with 6144 frames/s need ")


def test_a_wish_is_granted_as_far_as_there_are_cameras() -> None:
    assert str(plan_workers(config(3), 2)) == "2: as asked for"
    assert str(plan_workers(config(3), 8)) == "3: 8 were asked for, but there are no more cameras"


def test_expected_costs_follow_what_is_wanted_of_a_camera() -> None:
    assert set(expected_costs(config(2)).values()) == {24.0}
    assert set(expected_costs(config(2, sample_fps=5.0)).values()) == {5.0}
    assert set(expected_costs(config(2, decode="keyframes")).values()) == {1.0}


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0.1, 100), min_size=1), st.integers(1, 9))
def test_every_camera_goes_somewhere_and_evenly(costs: dict[str, float], processes: int) -> None:
    places = spread(costs, processes)
    assert len(places) == processes
    assert sorted(name for place in places for name in place) == sorted(costs)
    loads = [sum(costs[name] for name in place) for place in places]
    assert max(loads) - min(loads) <= max(costs.values()) + 1e-9
