"""From a model file to a served model and a run through it, by the commands that a user types."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.harness import Finished, assert_sums_close, streamproc, write_config
from tests.tiny_models import save_constant, save_means


@pytest.fixture(autouse=True)
def _state_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that others have started here are none of ours."""
    monkeypatch.setenv("STREAMPROC_STATE", str(tmp_path / "state"))


def good(finished: Finished) -> Finished:
    assert finished.code == 0, finished.err + finished.out
    return finished


def test_the_way_of_the_readme(tmp_path: Path, samples: Path) -> None:
    repository = tmp_path / "models"
    built = good(streamproc("models", "build", samples / "streetnet.onnx", "-r", repository, "--backend", "python"))
    assert "streetnet version 1: yolo, python" in built.out
    assert "boxes matched" in built.out
    inspected = json.loads(good(streamproc("models", "inspect", repository / "streetnet", "--json")).out)
    assert inspected["runs"]
    assert inspected["engines"] == ["triton"]
    listed = good(streamproc("models", "list", "-r", repository)).out
    assert "streetnet: python, batch 8, serves the newest version" in listed

    start = ("triton", "start", repository, "--use", "wheel", "--grpc-port", "0", "--http-port", "0")
    ready = good(streamproc(*start, "--metrics-port", "0")).out
    url = re.search(r"grpc://127\.0\.0\.1:\d+", ready)
    assert url is not None, ready
    try:
        config = write_config(
            tmp_path,
            engine={"kind": "triton", "url": url[0]},
            model={"name": "streetnet"},
            file={"path": str(tmp_path / "{camera}.jsonl")},
            cameras={"gate": {"url": str(samples / "gate.mp4"), "realtime": False}},
        )
        checked = good(streamproc("check", config)).out
        assert "kind triton" in checked
        assert "transport system shared memory" in checked
        report = tmp_path / "report.json"
        good(streamproc("run", config, "--report", report))
        told = json.loads(report.read_text())
        assert_sums_close(told)
        assert told["engine"]["kind"] == "triton"
        assert told["totals"]["published"] == told["totals"]["decoded"] > 400
        status = json.loads(good(streamproc("triton", "status", "--json")).out)
        (server,) = status
        assert server["ready"]
        (model,) = server["models"]
        assert (model["name"], model["state"]) == ("streetnet", "READY")
        assert model["inferences"] >= told["totals"]["inferred"]
        assert server["regions"] == []
        assert "streetnet" in good(streamproc("triton", "status")).out
    finally:
        stopped = streamproc("triton", "stop")
    assert "stopped grpc://" in good(stopped).out
    assert streamproc("triton", "status").code == 1


def test_a_managed_server_lives_as_long_as_the_run(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(
        tmp_path,
        engine={"kind": "triton", "managed": True},
        model={"path": str(samples / "streetnet.onnx")},
        file={"path": str(tmp_path / "{camera}.jsonl")},
        cameras={"gate": {"url": str(samples / "gate.mp4"), "realtime": False}},
    )
    report = tmp_path / "report.json"
    ran = good(streamproc("run", config, "--report", report))
    assert "managed Triton server: " in ran.err
    told = json.loads(report.read_text())
    assert told["engine"]["kind"] == "triton"
    assert told["totals"]["published"] == told["totals"]["decoded"] > 400
    assert "no server was started here" in streamproc("triton", "status").err


def test_roll_back(tmp_path: Path, samples: Path) -> None:
    repository = tmp_path / "models"
    for _ in range(2):
        good(streamproc("models", "build", samples / "streetnet.onnx", "-r", repository, "--backend", "python"))
    assert "serves version 1" in good(streamproc("models", "serve", "streetnet", "1", "-r", repository)).out
    assert "version 1 is served" in streamproc("models", "remove", "streetnet", "1", "-r", repository).err
    good(streamproc("models", "remove", "streetnet", "2", "-r", repository))
    assert "is gone" in good(streamproc("models", "remove", "streetnet", "1", "-r", repository)).out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("models", "build", "no.onnx"), 1, "no such file"),
        (("models", "build", "means.onnx", "--head", "detector"), 1, "not supported"),
        (("models", "build", "table.onnx"), 1, "--head classifier, ctc"),
        (("models", "build", "means.onnx", "--head", "ctc", "--iou", "0.5"), 2, "iou: found 0.5"),
        (("models", "build", "means.onnx", "--precision", "int8"), 2, "calibration: found None"),
        (("models", "build", "means.onnx", "--size", "640"), 2, "--size: found '640'"),
        (("models", "build", "means.onnx", "--name", "a/b"), 2, "name: found a/b"),
        (("models", "build", "means.onnx", "--version-policy", "newest"), 2, "latest, latest:2, all"),
        (("models", "inspect", "table.onnx"), 1, ""),
        (("models", "inspect", "no"), 1, "no such file or folder"),
        (("models", "list", "-r", "nowhere"), 1, "no such folder"),
        (("models", "serve", "m", "1", "-r", "."), 1, "it has no model m"),
        (("triton", "start", "nowhere", "--use", "wheel"), 1, "no such folder"),
        (("triton", "start", ".", "--use", "snap"), 2, "snap"),
        (("triton", "start", ".", "--key", "key.pem"), 2, "--certificate and --key go together"),
        (("triton", "status"), 1, "no server was started here"),
        (("triton", "status", "--url", "grpc://127.0.0.1:1"), 1, "127.0.0.1:1"),
        (("triton", "status", "--url", "h", "--header", "x"), 2, "expected NAME=VALUE"),
        (("triton", "stop"), 1, "no server started here runs"),
        (("triton", "stop", "--port", "8001"), 1, "has the gRPC port 8001"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    save_means(tmp_path / "means.onnx")
    save_constant(tmp_path / "table.onnx", (1, 7, 5))
    finished = streamproc(*arguments, cwd=tmp_path)
    assert finished.code == code, finished
    assert said in finished.err
    assert "Traceback" not in finished.err
