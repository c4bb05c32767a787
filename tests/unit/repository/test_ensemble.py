"""Models behind one another: what fits, and what is said about the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamproc.config.ensemble import EnsembleConfig
from streamproc.engines.base import TensorInfo
from streamproc.errors import ConfigError, ModelError
from streamproc.repository.config_pbtxt import read_config, steps_of
from streamproc.repository.ensemble import Ensemble, join
from streamproc.repository.from_ensemble import build_ensemble
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from streamproc.repository.policy import VersionPolicy
from streamproc.repository.versions import ServedEntry, ServedVersion, list_models, remove_version


def model(
    name: str, inputs: dict[str, Any], outputs: dict[str, Any], *, batch: int = 8, versions: int = 2
) -> ServedEntry:
    """Tensors are given as (dtype, shape); all versions are served but the first."""

    def tensors(told: dict[str, Any]) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(name=key, dtype=dtype, shape=shape) for key, (dtype, shape) in told.items())

    return ServedEntry(
        name=name,
        backend="python",
        max_batch=batch,
        inputs=tensors(inputs),
        outputs=tensors(outputs),
        policy=VersionPolicy(),
        versions=tuple(
            ServedVersion(number=number, size_bytes=1, served=number > 1, missing=None, origin={}) for number in (1, 2)
        ),
        problem=None,
    )


PICTURE, TEXT, SCORES = ("uint8", (-1, -1, -1, 3)), ("string", (-1, 1)), ("float32", (-1, 5))
MODELS = {
    "crop": model("crop", {"image": PICTURE, "box": ("float32", (-1, 4))}, {"part": ("uint8", (-1, 24, 94, 3))}),
    "read": model("read", {"image": ("uint8", (-1, 24, 94, 3))}, {"text": TEXT, "scores": SCORES}, batch=4),
    "tidy": model("tidy", {"text": TEXT}, {"text": TEXT}, batch=16),
    "whole": model("whole", {"text": ("string", (-1, -1))}, {"count": ("int64", (1,))}, batch=0),
}
CROP = {"model": "crop", "inputs": {"image": "photo", "box": "box"}, "outputs": {"part": "plate"}}
READ = {"model": "read", "inputs": {"image": "plate"}, "outputs": {"text": "raw"}}
TIDY = {"model": "tidy", "inputs": {"text": "raw"}, "outputs": {"text": "text"}}


def joined(*steps: dict[str, Any], inputs: Any = ("photo", "box"), outputs: Any = ("text",)) -> Ensemble:
    wanted = EnsembleConfig.model_validate({"inputs": inputs, "outputs": outputs, "steps": steps})
    return join(wanted, MODELS, source="steps.yaml")


def refused(*steps: dict[str, Any], **ends: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        joined(*steps, **ends)
    assert caught.value.source == "steps.yaml"
    return [str(problem) for problem in caught.value.problems]


def changed(step: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return step | changes


def test_three_models_in_any_order() -> None:
    found = joined(TIDY, CROP, READ, outputs=("text", "plate"))
    assert (found.max_batch, found.notes) == (4, ())
    assert found.inputs == (
        TensorInfo(name="photo", dtype="uint8", shape=(-1, -1, -1, 3)),
        TensorInfo(name="box", dtype="float32", shape=(-1, 4)),
    )
    assert found.outputs == (
        TensorInfo(name="text", dtype="string", shape=(-1, 1)),
        TensorInfo(name="plate", dtype="uint8", shape=(-1, 24, 94, 3)),
    )


def test_a_model_without_batching_takes_it_from_all() -> None:
    whole = {"model": "whole", "inputs": {"text": "text"}, "outputs": {"count": "count"}}
    found = joined(TIDY, whole, inputs=("raw",), outputs=("text", "count"))
    assert (found.max_batch, found.inputs[0].shape, found.outputs[1].shape) == (0, (-1, 1), (1,))


def test_what_comes_in_is_as_large_as_its_readers_agree() -> None:
    both = changed(CROP, inputs={"image": "photo", "box": "box"}), changed(READ, inputs={"image": "photo"})
    found = joined(*both, TIDY, outputs=("plate", "text"))
    assert found.inputs[0].shape == (-1, 24, 94, 3)
    assert len(found.notes) == 1
    assert found.notes[0].startswith("steps[0] and steps[1] begin at once: Triton 2.51 can hang")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            changed(READ, model="reed"),
            "steps[1].model: found reed; expected a model of the repository, of which there are: crop, read, tidy,"
            " whole. Build it first, or correct the name.",
        ),
        (
            changed(READ, version=1),
            "steps[1].version: found 1; expected a version of read that is served: 2. Choose one, or serve that one.",
        ),
        (
            changed(READ, inputs={"image": "plate", "size": "box"}),
            "steps[1].inputs.size: found size; expected inputs of read: image. Correct the name.",
        ),
        (
            changed(READ, outputs={"text": "raw", "txt": "b"}),
            "steps[1].outputs.txt: found txt; expected outputs of read: text, scores. Correct the name.",
        ),
        (
            changed(CROP, inputs={"image": "photo"}),
            "steps[1].inputs: found nothing for box; expected a tensor for every input of crop. Add box: TENSOR.",
        ),
    ],
)
def test_steps_that_do_not_fit_their_model(step: dict[str, Any], said: str) -> None:
    assert said in refused(CROP, step, TIDY)


def test_a_model_that_no_server_would_load() -> None:
    damaged = {**MODELS, "tidy": replace(MODELS["tidy"], problem="it is damaged")}
    wanted = EnsembleConfig.model_validate({"inputs": ["raw"], "outputs": ["text"], "steps": [TIDY]})
    with pytest.raises(ConfigError, match="found tidy, it is damaged; expected a model that a server loads"):
        join(wanted, damaged)


@pytest.mark.parametrize(
    ("steps", "ends", "said"),
    [
        (
            (CROP, changed(READ, inputs={"image": "plaet"}), TIDY),
            {"outputs": ("text", "plate")},
            "steps[1].inputs.image: found plaet; expected a tensor that comes in or that a step makes: box, photo,"
            " plate, raw, text. Correct the name.",
        ),
        (
            (CROP, READ, TIDY),
            {"outputs": ("text", "score")},
            "outputs: found score; expected tensors that a step makes: plate, raw, text. Correct the name.",
        ),
        (
            (CROP, READ, TIDY),
            {"inputs": ("photo", "box", "flag")},
            "inputs: found flag; expected tensors that a step reads. Leave it out, or feed it to a step.",
        ),
        (
            (CROP, changed(READ, outputs={"text": "raw", "scores": "scores"}), TIDY),
            {},
            "steps[1].outputs.scores: found scores, which nobody uses; expected tensors that another step reads, or"
            " that are among the outputs. Leave it out, or add it to outputs.",
        ),
        (
            (CROP, READ, TIDY),
            {"outputs": ("text", "text")},
            "outputs: found text 2 times; expected each tensor once. Remove all but one.",
        ),
        (
            (CROP, READ, TIDY),
            {"inputs": ("photo", "box", "raw")},
            "steps[1].outputs.text: found raw; expected each tensor from one place, not from inputs and"
            " steps[1].outputs.text. Rename all but one.",
        ),
        (
            (CROP, changed(TIDY, inputs={"text": "plate"})),
            {},
            "steps[1].inputs.text: found plate as string ?x1; expected uint8 ?x24x94x3, which steps[0].outputs.part"
            " makes of it. Put a model between them that converts it.",
        ),
        (
            (CROP, changed(READ, inputs={"image": "photo"}), changed(TIDY, inputs={"text": "box"})),
            {"outputs": ("text", "raw", "plate")},
            "steps[2].inputs.text: found box as string ?x1; expected float32 ?x4, which steps[0].inputs.box takes of"
            " it. Put a model between them that converts it.",
        ),
        (
            (changed(TIDY, inputs={"text": "text"}, outputs={"text": "raw"}), TIDY),
            {"inputs": ("text",)},
            "steps: found steps[0] -> steps[1] -> steps[0]; expected steps that do not wait for each other. Let one of"
            " them read another tensor.",
        ),
    ],
)
def test_tensors_that_do_not_fit(steps: Any, ends: dict[str, Any], said: str) -> None:
    assert said in refused(*steps, **ends)


def test_dims_of_three_readers_are_held_against_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, side in (("small", 24), ("large", 48)):
        entry = model(name, {"image": ("uint8", (-1, side, 94, 3))}, {"text": TEXT})
        monkeypatch.setitem(MODELS, name, entry)
    steps = [
        changed(READ, model=name, inputs={"image": "photo"}, outputs={"text": name}) for name in ("small", "large")
    ]
    said = refused(CROP, *steps, outputs=("plate", "small", "large"))
    assert len(said) == 1
    assert "photo as uint8 ?x48x94x3; expected uint8 ?x24x94x3, which steps[1].inputs.image takes" in said[0]


CONFIG = """
backend: "python" max_batch_size: {batch}
input [{{ name: "text" data_type: TYPE_STRING dims: [1] }}]
output [{{ name: "text" data_type: TYPE_STRING dims: [1] }}]
"""
STEPS = """
inputs: [raw]
outputs: [text]
steps:
  - {model: second, inputs: {text: tidied}, outputs: {text: text}}
  - {model: first, version: 1, inputs: {text: raw}, outputs: {text: tidied}}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models that take and give text."""
    for name, batch in (("first", 4), ("second", 2)):
        folder = tmp_path / "models" / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text("")
        (folder / "config.pbtxt").write_text(CONFIG.format(batch=batch))
    (tmp_path / "chain.yaml").write_text(STEPS)
    return tmp_path / "models"


def build_chain(repository: Path, **options: Any) -> str:
    wanted: dict[str, Any] = {"repository": repository, "backend": "ensemble"}
    return str(build_ensemble(repository.parent / "chain.yaml", BuildOptions(**(wanted | options))))


def test_an_ensemble_in_a_repository(repository: Path) -> None:
    assert build_chain(repository) == f"chain version 1: 2 steps, ensemble, batches of up to 2, in {repository}/chain/1"
    config = read_config(repository / "chain" / "config.pbtxt")
    assert (config.platform, config.backend, config.max_batch_size) == ("ensemble", "", 2)
    assert not config.instance_group
    assert [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step] == [
        ("second", -1),
        ("first", 1),
    ]
    assert dict(config.ensemble_scheduling.step[0].input_map) == {"text": "tidied"}
    assert steps_of(config)[1].version == 1
    entry = list_models(repository)[0]
    assert (entry.name, entry.backend, entry.problem) == ("chain", "ensemble", None)
    assert entry.versions[0].served
    found = inspect(repository / "chain")
    assert (found.runs, found.engines, found.head) == (True, ("triton",), None)
    assert found.notes[1:] == ("step: second version newest", "step: first version 1", "it is no detector")


def test_an_ensemble_needs_its_models(repository: Path) -> None:
    build_chain(repository)
    with pytest.raises(ModelError, match=r"model first: it is a step of chain\. Remove that first\."):
        remove_version(repository, "first", 1)
    (repository / "first").rename(repository / ".away")
    assert list_models(repository)[0].problem == "the repository has no first, which is a step of it"
    assert remove_version(repository, "chain", 1) is None


def test_other_steps_are_another_model(repository: Path) -> None:
    build_chain(repository)
    path = repository.parent / "chain.yaml"
    path.write_text(STEPS.replace("version: 1, ", ""))
    with pytest.raises(ModelError, match="other steps than its other versions"):
        build_chain(repository)
    assert "chain version 1" in build_chain(repository, version=1, replace=True)
    path.write_text(STEPS.replace("first", "chain"))
    with pytest.raises(ConfigError, match="found chain; expected a model of the repository"):
        build_chain(repository, version=1, replace=True)
