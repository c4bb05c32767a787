"""``streamproc models build`` without a model file: what is wrong with a command line is said first."""

from __future__ import annotations

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
        (("--ensemble", "nowhere.yaml", "--max-batch", "2"), "max_batch: found 2; expected it for the models of an e"),
    ],
)
def test_command_lines_that_are_refused(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(models, ["build", *arguments])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
