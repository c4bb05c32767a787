"""The script that the server runs around a function, without the server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.errors import ConfigError, ModelError
from streamproc.repository.build import BuiltModel
from streamproc.repository.config_pbtxt import parameters_of, read_config
from streamproc.repository.from_python import build_python
from streamproc.repository.function_probe import probe
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from streamproc.repository.tensors import parse_tensors
from streamproc.repository.versions import list_models
from tests.unit.repository.functions import save_module
from tests.unit.repository.python_backend import Response, Tensor, load, use_backend

SPEC = parse_tensors("text:string:1,score:fp32:-1", key="inputs")


@pytest.fixture(autouse=True)
def _backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What Triton gives to its models, and a module in the current directory; all of it is gone afterwards."""
    use_backend(monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("streamproc.repository.function._probed", probed_here)
    save_module(tmp_path)
    yield
    sys.modules.pop("plates", None)


def probed_here(module: str, name: str, inputs: int) -> dict[str, Any]:
    """What another process would find; a tenth of a second sooner."""
    sys.modules.pop(module, None)
    sys.path.insert(0, str(Path.cwd()))
    try:
        return probe(module, name, inputs)
    finally:
        sys.path.remove(str(Path.cwd()))
        sys.modules.pop(module, None)


def built(function: str = "tidy", **options: Any) -> BuiltModel:
    shared: dict[str, Any] = {"repository": Path("models"), "backend": "python"}
    return build_python(f"plates:{function}", SPEC, SPEC, BuildOptions(**(shared | options)))


def request(*words: str, scores: int = 2, batched: bool = True) -> dict[str, Tensor]:
    text = np.array([word.encode() for word in words], object)
    score = np.arange(len(words) * scores, dtype=np.float32).reshape(len(words), scores)
    return {
        "text": Tensor("text", text[:, None] if batched else text),
        "score": Tensor("score", score if batched else score[0]),
    }


def words(response: Response) -> list[bytes]:
    return [bytes(item) for item in response["text"].ravel()]


def test_what_is_built() -> None:
    model = built(labels=("car", "van"))
    assert str(model) == "tidy version 1: function plates:tidy, python, batches of up to 8, in models/tidy/1"
    assert {path.name for path in model.folder.iterdir()} == {"model.py", "function.json", "function", "build.json"}
    config = read_config(model.folder.parent / "config.pbtxt")
    assert [(t.name, list(t.dims)) for t in config.input] == [("text", [1]), ("score", [-1])]
    assert parameters_of(config) == {"names": "{0: 'car', 1: 'van'}", "description": "Clean up what was read."}
    assert config.HasField("dynamic_batching")
    assert [group.count for group in config.instance_group] == [1]
    assert not config.model_warmup
    (entry,) = list_models(Path("models"))
    assert (entry.problem, entry.inputs[0].dtype, entry.inputs[1].shape) == (None, "string", (-1, -1))
    assert entry.versions[0].origin["source"] == "plates:tidy"
    assert inspect(model.folder.parent).engines == ("triton",)
    unnamed = built(name="plain", max_batch=0)
    assert not (unnamed.folder.parent / "labels.txt").exists()
    assert "no batching" in str(unnamed)
    assert read_config(unnamed.folder.parent / "config.pbtxt").output[0].label_filename == ""


def test_requests_that_come_together_are_one_call() -> None:
    model = load(built())
    first, second = model.execute([request(" ab", "cd "), request("e")])
    assert words(first) == [b"AB", b"CD"]
    assert words(second) == [b"E"]
    assert first["score"].tolist() == [[0, 2], [4, 6]]
    assert second["score"].tolist() == [[0, 2]]
    assert sys.modules["plates"].calls == [3]


def test_other_sizes_are_another_call() -> None:
    model = load(built())
    answers = model.execute([request("a"), request("b", scores=5), request("c")])
    assert [answer["score"].shape for answer in answers] == [(1, 2), (1, 5), (1, 2)]
    assert sys.modules["plates"].calls == [2, 1]


def test_one_that_fails_leaves_its_neighbours_alone() -> None:
    model = load(built())
    good, bad, other = model.execute([request("a"), request("bad"), request("c")])
    assert (words(good), words(other)) == ([b"A"], [b"C"])
    assert bad.error == "plates:tidy: ValueError: bad text (plates.py, line 16)"
    assert words(model.execute([request("d")])[0]) == [b"D"]


def test_a_function_may_use_its_arrays_again() -> None:
    model = load(built("reuses"))
    first, second = request("a"), request("b")
    second["score"].values += 5
    assert [answer["score"].tolist() for answer in model.execute([first, second])] == [[[0, 1]], [[5, 6]]]


def test_outputs_by_name_and_without_batching() -> None:
    (answer,) = load(built("by_name", max_batch=0)).execute([request("a", batched=False)])
    assert words(answer) == [b"a"]
    assert answer["score"].tolist() == [0, 1]


def test_text_comes_as_bytes_whatever_it_was() -> None:
    model = load(built("repeats", max_batch=0))
    (answer,) = model.execute([request("ü", batched=False)])
    assert answer["text"].dtype == np.object_
    assert words(answer) == [b"b'\\xc3\\xbc'"]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("wrong_type", "output score: expected float32 (1, any), found float64 (1, 2)"),
        ("numbers_for_text", "output text: expected bytes or text, found float32"),
        ("too_few", "it returned 1 array; expected 2, for the outputs text, score"),
        ("other_names", "it returned text, points; expected the outputs text, score"),
        ("nothing", "output score: expected an array, found None"),
        ("leaves", "SystemExit: enough (plates.py, line 49)"),
        ("repeats", "output text: expected string (1, 1), found string (1)"),
    ],
)
def test_wrong_outputs(function: str, said: str) -> None:
    model = load(built(function))
    for answer in model.execute([request("a"), request("b")]):
        assert answer.error == f"plates:{function}: {said}"


def test_inputs_that_are_not_as_declared() -> None:
    model = load(built())
    wrong = request("a")
    wrong["score"] = Tensor("score", np.zeros((1, 2), np.float64))
    bad, good = model.execute([wrong, request("a")])
    assert bad.error == "plates:tidy: input score: expected float32 (1, any), found float64 (1, 2)"
    assert words(good) == [b"A"]


def test_a_function_that_the_server_cannot_import() -> None:
    model = built()
    (model.folder / "function" / "plates.py").write_text("import not_there")
    with pytest.raises(RuntimeError, match=r"plates:tidy cannot be imported in .*'not_there' \(plates.py, line 1\)"):
        load(model)


def test_each_version_has_its_own_function() -> None:
    first, second = built("tidy", name="m"), built("by_name", name="m")
    assert (first.version, second.version) == (1, 2)
    assert words(load(first).execute([request("a")])[0]) == [b"A"]
    assert words(load(second).execute([request("a")])[0]) == [b"a"]
    with pytest.raises(ModelError, match="other batch than"):
        built("tidy", name="m", max_batch=2)


@pytest.mark.parametrize(
    ("function", "options", "error", "said"),
    [
        ("absent", {}, ModelError, "plates:absent: it has no absent; it has tidy, by_name"),
        ("ANSWER", {}, ModelError, "plates:ANSWER: ANSWER is of type int"),
        ("later", {}, ModelError, "plates:later: later is a coroutine"),
        ("a-b", {}, ConfigError, "expected module:function"),
        ("tidy", {"precision": "fp16"}, ConfigError, "precision: found fp16; expected it for a model file only"),
        ("tidy", {"backend": "openvino"}, ConfigError, "backend: found openvino; expected python"),
    ],
)
def test_what_cannot_be_built(function: str, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        built(function, **options)
    assert not Path("models").exists()
