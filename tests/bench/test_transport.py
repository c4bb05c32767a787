"""Figures of the road to Triton: every transport against a tutorial's client, and a pipeline against the same in
process."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streamproc.cli.bench import bench
from streamproc.repository.build import build
from streamproc.repository.options import BuildOptions
from tests.e2e.harness import streamproc, write_config
from tests.triton import running_server

pytestmark = [pytest.mark.bench, pytest.mark.shared_data, pytest.mark.timeout(1800)]

ROUNDS = 5
CAMERAS = 4


def test_transports_and_a_tutorials_client(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The goal, with uint8 by system shared memory: 3.5 times the tutorial's images a second at a twentieth of its CPU
    time an image."""
    everything = tmp_path / "all.json"
    picture, model = shared_data / "images" / "bus.jpg", shared_data / "models" / "yolov8n.onnx"
    arguments = ["transport", "--onnx", model, "--use", "wheel", "--picture", picture, "--json", everything]
    done = CliRunner().invoke(bench, list(map(str, arguments)))
    with capsys.disabled():
        print(f"\n{done.output}")
    assert done.exit_code == 0
    assert json.loads(everything.read_text())["agreed"] == 5  # four persons and a bus


def test_pipeline_through_triton_against_in_process(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four files through the whole program, with the same model in the same runtime. The goal: 0.92 of in process."""
    model, repository = shared_data / "models" / "yolov8n.onnx", tmp_path / "models"
    build(model, BuildOptions(repository=repository, backend="python", name="yolov8n"))
    with running_server(repository) as server:
        in_process = {"engine": {"kind": "openvino"}, "model": {"path": model, "labels": "coco"}}
        triton = {
            "engine": {"kind": "triton", "url": server.url, "shared_memory": "system"},
            "model": {"name": "yolov8n", "labels": "coco"},
        }
        rounds = [
            [frames_per_s(tmp_path, shared_data, sections) for sections in (in_process, triton)] for _ in range(ROUNDS)
        ]
    ratios = [through / within for within, through in rounds]
    with capsys.disabled():
        print("\nframes/s in process, through Triton, ratio")
        for (within, through), ratio in zip(rounds, ratios, strict=True):
            print(f"{within:8.1f} {through:8.1f} {ratio:8.3f}")
        print(f"median ratio {statistics.median(ratios):.3f}")


def frames_per_s(folder: Path, shared_data: Path, sections: dict[str, Any]) -> float:
    """Of a whole run in a process of its own, over the time from the first frame to the last result."""
    video = {"url": shared_data / "videos" / "pedestrians_street_1080p.mp4", "realtime": False}
    config = write_config(folder, **sections, cameras={f"camera{number}": video for number in range(CAMERAS)})
    report = folder / "report.json"
    done = streamproc("run", config, "--report", report)
    assert done.code == 0, done.err
    told = json.loads(report.read_text())
    assert told["totals"]["published"] == told["totals"]["received"]
    return float(told["totals"]["published"] / told["active_s"])
