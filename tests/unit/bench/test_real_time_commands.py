"""``streamproc bench capacity`` and ``overload``: what is wrong with a command line is said before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamproc.bench import capacity
from streamproc.bench.trials import Record
from streamproc.cli.bench import bench
from streamproc.config import Config
from tests.trials import a_record, a_second, fake_trials

VIDEO = ("--video", "a.mp4")


@pytest.mark.parametrize("command", ["capacity", "overload"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either a CONFIG, or --video FILE and --model FILE"),
        (("cameras.yaml", *VIDEO), "give either a CONFIG, or --video FILE and --model FILE"),
        (("cameras.yaml", "--model", "m.onnx"), "--model: the CONFIG has it"),
        (("cameras.yaml", "--labels", "coco"), "--labels: the CONFIG has it"),
        (("cameras.yaml",), "cameras.yaml: 1 problem"),
        (("nowhere.yaml",), "found no such file"),
        (("--video", "nowhere.mp4"), "'nowhere.mp4' does not exist"),
        ((*VIDEO, "--model", "nowhere.onnx"), "'nowhere.onnx' does not exist"),
        (VIDEO, "--model: expected the model to run, or --engine null"),
        ((*VIDEO, "--engine", "tflite"), "'tflite' is not one of"),
        ((*VIDEO, "--engine", "null"), "camera camera: "),
        ((*VIDEO, "--engine", "null", "--workers", "few"), "--workers: found 'few'; expected auto, or a number"),
        ((*VIDEO, "--engine", "null", "--workers", "0"), "--workers: found '0'"),
        ((*VIDEO, "--engine", "null", "--seconds", "0"), "greater than or equal to 1"),
        ((*VIDEO, "--engine", "null", "--max", "0"), "greater than or equal to 1"),
        ((*VIDEO, "--engine", "null", "--json", "nowhere/a.json"), "--json: the folder of nowhere/a.json does not"),
        ((*VIDEO, "--engine", "null", "--html", "nowhere/a.html"), "--html: the folder of nowhere/a.html does not"),
    ],
)
def test_bad_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, arguments: tuple[str, ...], said: str
) -> None:
    refused(tmp_path, monkeypatch, (command, *arguments), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("capacity", *VIDEO, "--engine", "null", "--fps", "24,fast"),
            "--fps: found 'fast'; expected numbers",
        ),
        (("capacity", *VIDEO, "--engine", "null", "--fps", "0"), "--fps: found '0'"),
        (("capacity", *VIDEO, "--engine", "null", "--fps", "nan"), "--fps: found 'nan'"),
        (("overload", *VIDEO, "--engine", "null", "--times", "1"), "greater than or equal to 1.1"),
    ],
)
def test_bad_command_lines_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    refused(tmp_path, monkeypatch, arguments, said)


def test_not_even_one_camera(monkeypatch: pytest.MonkeyPatch, samples: Path) -> None:
    def late(config: Config, looks: int) -> Record:
        return a_record(looks, lambda _: dict.fromkeys(config.cameras, a_second(0, late=24)))

    monkeypatch.setattr(capacity, "run_trial", fake_trials(late))
    done = CliRunner().invoke(bench, ["capacity", "--video", str(samples / "gate.mp4"), "--engine", "null"])
    assert done.exit_code == 1
    assert "not even one camera at 24 FPS" in done.stdout
    assert "nothing was published within 100 ms. Use a smaller model" in " ".join(done.stderr.split())


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("a.mp4", "m.onnx"):
        (folder / name).touch()
    (folder / "cameras.yaml").write_text("model: {path: m.onnx}\ncameras: {gate: {url: b.mp4}}")
    done = CliRunner().invoke(bench, list(arguments))
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
