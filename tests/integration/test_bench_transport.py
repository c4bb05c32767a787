"""``streamproc bench transport`` against real servers: by itself over a model file, and on one that runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner, Result

from streamproc.cli.bench import bench
from streamproc.repository.build import build
from streamproc.repository.options import BuildOptions
from tests.pictures import frames_of
from tests.triton import RunningServer, running_server

WAYS = [("float32", "raw"), ("uint8", "raw"), ("uint8", "boxes")]
QUICK = ("--seconds", "0.2", "--concurrency", "1,2")


@pytest.fixture(scope="module")
def picture(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame of the sample world with something in it."""
    path = tmp_path_factory.mktemp("pictures") / "plaza.png"
    frame = next(frame for index, frame in enumerate(frames_of(samples / "plaza.mp4")) if index == 60)
    cv2.imwrite(str(path), frame.to_ndarray(format="bgr24"))
    return path


@pytest.fixture(scope="module")
def server(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A running server with the sample detector, in batches of up to two uint8 pictures."""
    repository = tmp_path_factory.mktemp("models")
    build(samples / "streetnet.onnx", BuildOptions(repository=repository, backend="python", name="street", max_batch=2))
    with running_server(repository) as server:
        yield server


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bench, ["transport", *map(str, arguments)])


def test_a_model_file_by_itself(samples: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPROC_STATE", str(tmp_path / "state"))
    rows, everything = tmp_path / "rows.csv", tmp_path / "all.json"
    done = run(
        *("--onnx", samples / "streetnet.onnx", "--use", "wheel", "--fused", "none,input,all"),
        *("--transports", "system", "--batch-sizes", "2", "--picture", picture),
        *(*QUICK, "--csv", rows, "--json", everything),
    )
    assert done.exit_code == 0, done.output
    told = json.loads(everything.read_text())
    assert told["schema"] == "streamproc.bench.transport/1"
    assert list(told["models"].values()) == ["float32", "uint8", "uint8"]
    assert told["server"].startswith("Triton 2.")
    kinds = [(row["client"], row["input"], row["output"], row["concurrency"]) for row in told["rows"]]
    ways = [("tutorial", "float32", "raw"), *(("streamproc", *way) for way in WAYS)]
    assert kinds == [(*way, concurrency) for way in ways for concurrency in (1, 2)]
    for row in told["rows"]:
        assert row["images_per_s"] == pytest.approx(row["requests_per_s"] * row["batch"])
        assert row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert row["server"]["infer_ms"] > 0
        assert row["cpu_ms_per_image"] > 0
        assert row["failed"] == 0
    assert told["agreed"] > 0
    assert [(one["input"], one["output"]) for one in told["comparisons"]] == WAYS
    assert len(list(csv.DictReader(rows.read_text().splitlines()))) == len(kinds)
    assert "x the images/s of the tutorial's client" in done.output


def test_a_server_that_runs(server: RunningServer, tmp_path: Path) -> None:
    everything = tmp_path / "all.json"
    done = run("--url", server.url, "--model", "street", "--batch-sizes", "1,4", *QUICK, "--json", everything)
    assert done.exit_code == 0, done.output
    told = json.loads(everything.read_text())
    assert {row["batch"] for row in told["rows"]} == {1}
    assert {row["transport"] for row in told["rows"]} >= {"system", "none"}
    assert told["comparisons"] == []
    notes = "\n".join(told["notes"])
    assert "street: no rows with batch 4" in notes
    assert "no tutorial's client with model street: its input is uint8" in notes


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        ("yolo", (), "has no such model; it has street"),
        ("street", ("--batch-sizes", "4"), "nothing could be measured: street: no rows with batch 4"),
    ],
)
def test_what_cannot_be_measured(server: RunningServer, model: str, arguments: tuple[str, ...], said: str) -> None:
    done = run("--url", server.url, "--model", model, "--no-baseline", "--transports", "none", *QUICK, *arguments)
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())


def test_a_transport_that_does_not_work_here(server: RunningServer) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is a GPU here")
    done = run("--url", server.url, "--model", "street", "--no-baseline", "--transports", "cuda", *QUICK)
    assert done.exit_code == 1
    assert "driver" in done.output
