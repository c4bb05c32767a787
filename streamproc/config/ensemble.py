"""A file that ``models build --ensemble`` reads: which served models follow one another, and what they pass on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from streamproc.config.fields import Section, Text
from streamproc.config.models import Config
from streamproc.config.refusals import did_you_mean, dotted, show
from streamproc.config.syntax import read_yaml
from streamproc.config.tree import at
from streamproc.errors import ConfigError, Problem

__all__ = ["EnsembleConfig", "StepConfig", "is_ensemble", "load_ensemble"]

_Names = Annotated[tuple[Text, ...], Field(min_length=1)]
_Links = Annotated[dict[Text, Text], Field(min_length=1)]


class StepConfig(Section):
    """One model of an ensemble.

    ``inputs`` tells for each of its inputs which tensor feeds it, ``outputs`` for those of its outputs that are wanted
    what they are called from there on. ``version``: None for the newest one that is served.
    """

    model: Text
    version: Annotated[int, Field(ge=1)] | None = None
    inputs: _Links
    outputs: _Links


class EnsembleConfig(Section):
    """Models behind one another in the server: one request runs them all.

    A tensor has one name throughout: it is one of the ``inputs``, which a request brings, or one step makes it, and
    any steps read it. ``outputs`` are what the answer holds. The order of ``steps`` does not matter.
    """

    inputs: _Names
    outputs: _Names
    steps: Annotated[tuple[StepConfig, ...], Field(min_length=1)]


# For each key, whatever step it is in: what it takes, and an example.
_WANTED: Mapping[tuple[str, ...], tuple[str, str]] = {
    ("inputs",): ("a list of the tensors that a request brings", "inputs: [raw]"),
    ("outputs",): ("a list of the tensors that the answer holds", "outputs: [cleaned]"),
    ("steps",): (
        "a list of models, each with inputs and outputs",
        "steps: [{model: clean, inputs: {text: raw}, outputs: {text: cleaned}}]",
    ),
    ("steps", "model"): ("the name of a model in the repository", "model: clean"),
    ("steps", "version"): ("a whole number from 1, or nothing for the newest version", "version: 1"),
    ("steps", "inputs"): ("for each input of the model the tensor that feeds it", "inputs: {text: raw}"),
    ("steps", "outputs"): ("for outputs of the model what they are called from there on", "outputs: {text: cleaned}"),
}
_EXAMPLE = "Write at least the keys inputs, outputs and steps, such as {}; {}; {}.".format(
    *(_WANTED[key,][1] for key in ("inputs", "outputs", "steps"))
)


def is_ensemble(path: Path) -> bool:
    """Whether a file tells the steps of an ensemble; False where it is a configuration of cameras.

    Raises:
        ConfigError: it has keys of neither or of both, or gives no keys at all.
    """
    values, _ = read_yaml(path, example=_EXAMPLE)
    keys = list(values) if isinstance(values, dict) else []
    of_steps, of_cameras = (
        [key for key in keys if key in section.model_fields] for section in (EnsembleConfig, Config)
    )
    if bool(of_steps) != bool(of_cameras):
        return bool(of_steps)
    problem = Problem(
        key="",
        found=f"the keys {', '.join(map(show, of_steps + of_cameras or keys))}",
        expected=f"those of steps ({', '.join(EnsembleConfig.model_fields)}) or of cameras (model, cameras, ...)",
        remedy="Correct the keys, or name another file.",
    )
    raise ConfigError(str(path), [problem])


def load_ensemble(path: Path) -> EnsembleConfig:
    """The steps in a YAML file.

    Raises:
        ConfigError: all that is wrong with the file's own form; whether the models fit is another question.
    """
    values, located = read_yaml(path, example=_EXAMPLE)
    problems = [problem for _, problem in located]
    ensemble: EnsembleConfig | None = None
    try:
        ensemble = EnsembleConfig.model_validate(values)
    except ValidationError as exc:
        findings = exc.errors(include_url=False)
        problems += {str(problem): problem for finding in findings for problem in [_problem(finding, values)]}.values()
    if problems or ensemble is None:
        raise ConfigError(str(path), problems)
    return ensemble


def _problem(finding: ErrorDetails, values: object) -> Problem:
    """A finding of pydantic's in the house's words; what is wrong inside a list or map is said of the whole."""
    path = finding["loc"]
    if finding["type"] == "extra_forbidden":
        return _unknown_key(path)
    depth = 3 if path[0] == "steps" and len(path) > 2 else 1
    expected, example = _WANTED[tuple(step for step in path[:depth] if isinstance(step, str))]
    found = "nothing" if finding["type"] == "missing" else show(at(values, path))
    return Problem(key=dotted(path), found=found, expected=expected, remedy=f"Write, for example, {example}.")


def _unknown_key(path: tuple[str | int, ...]) -> Problem:
    fields = [*(StepConfig if path[0] == "steps" else EnsembleConfig).model_fields]
    remedy = did_you_mean(str(path[-1]), fields) or "Remove it."
    return Problem(key=dotted(path), found="an unknown key", expected=f"one of {', '.join(fields)}", remedy=remedy)
