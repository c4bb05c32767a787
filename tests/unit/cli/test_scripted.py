"""``streamproc models build`` without a model file: what is wrong with a command line is said first."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamproc.cli.models import models


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "found none of them; expected one of MODEL, --python and --ensemble"),
        (("a.onnx", "--python", "a:b", "--inputs", "x:bool:1", "--outputs", "x:bool:1"), "found MODEL and --python"),
        (("--ensemble", "a.yaml", "--output", "a.xml"), "found --output and --ensemble"),
        (("--output", "a.xml"), "found --output; expected"),
        (("--python", "a:b", "--inputs", "x:bool:1"), "--inputs and --outputs: expected both with --python"),
        (("a.onnx", "--inputs", "x:bool:1"), "--inputs and --outputs: expected both with --python"),
        (("--python", "a:b", "--inputs", "x:bool", "--outputs", "x:bool:1"), "inputs: found 'x:bool'; expected name:d"),
        (("--python", "a.b", "--inputs", "x:bool:1", "--outputs", "x:bool:1"), "python: found 'a.b'; expected module:"),
        (("--ensemble", "nowhere.yaml"), "found no such file"),
    ],
)
def test_command_lines_that_are_refused(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(models, ["build", *arguments])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{inputs: [a], outputs: [b], steps: []}", "max_batch: found 2; expected it for the models of an ensemble"),
        ("{model: {name: a}, cameras: {}}", "precision: found fp16; expected no such option"),
        ("{stages: []}", "found the keys 'stages'; expected those of steps (inputs, outputs, steps) or of cameras"),
    ],
)
def test_what_is_refused_goes_by_the_kind_of_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text)
    done = CliRunner().invoke(models, ["build", "--ensemble", str(path), "--max-batch", "2", "--precision", "fp16"])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
