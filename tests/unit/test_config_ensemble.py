"""The file of an ensemble's steps: what is read, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.config.ensemble import EnsembleConfig, StepConfig, load_ensemble
from streamproc.errors import ConfigError

GOOD = """
inputs: [raw]
outputs: [text]
steps:
  - model: tidy
    version: 2
    inputs: {text: raw}
    outputs: {text: text}
"""


def load(folder: Path, text: str) -> EnsembleConfig:
    (folder / "steps.yaml").write_text(text)
    return load_ensemble(folder / "steps.yaml")


def test_what_is_read(tmp_path: Path) -> None:
    step = StepConfig(model="tidy", version=2, inputs={"text": "raw"}, outputs={"text": "text"})
    assert load(tmp_path, GOOD) == EnsembleConfig(inputs=("raw",), outputs=("text",), steps=(step,))
    assert load(tmp_path, GOOD.replace("version: 2", "")).steps[0].version is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (GOOD, "", r"found an empty file; expected a configuration. Write at least the keys inputs, outputs and steps"),
        (GOOD, "- a", r"found a list at the top level"),
        (
            "inputs: [raw]",
            "",
            r"inputs: found nothing; expected a list of the tensors that a request brings. Write",
        ),
        ("inputs: [raw]", "inputs: raw", r"inputs: found 'raw'; expected a list of"),
        ("inputs: [raw]", "inputs: []", r"inputs: found an empty list; expected a list of"),
        ("outputs: [text]", "outputs: [1]", r"outputs\[0\]: found 1; expected a list of the tensors that the answer"),
        ("outputs: [text]", "output: [text]", r"output: found an unknown key; .* Did you mean 'outputs'\?"),
        ("model: tidy", "", r"steps\[0\]\.model: found nothing; expected the name of a model"),
        ("model: tidy", "model: ''", r"steps\[0\]\.model: found empty text; expected the name of a model"),
        ("version: 2", "version: 0", r"steps\[0\]\.version: found 0; expected a whole number from 1"),
        ("version: 2", "version: true", r"steps\[0\]\.version: found true; expected a whole number from 1"),
        ("version: 2", "vresion: 2", r"steps\[0\]\.vresion: found an unknown key; .* Did you mean 'version'\?"),
        ("version: 2", "priority: 2", r"expected one of model, version, inputs, outputs. Remove it."),
        ("{text: raw}", "{}", r"steps\[0\]\.inputs: found an empty section; expected for each input of the model"),
        (
            "{text: raw}",
            "{text: [raw]}",
            r"steps\[0\]\.inputs\.text: found a list; expected for each input of the",
        ),
        ("{text: raw}", "{text: raw, text: raw}", r"steps\[0\]\.inputs\.text: found this key twice"),
        (
            "steps:",
            "steps: []\nother:",
            r"steps: found an empty list; expected a list of models.*\n.*other: found an",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)steps.yaml: \d problem.*{said}"):
        load(tmp_path, GOOD.replace(old, new))
