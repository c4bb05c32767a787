"""Python functions and ensembles of them in the real server, from the commands that a user types to the answers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
from typer.testing import CliRunner

from streamproc.cli.models import models
from tests.triton import running_server
from tests.unit.repository.functions import save_module

EVERYTHING = "text:string:-1,image:uint8:-1x-1x3,offset:int8:2,score:fp32:4,flag:bool:1"
NAMES = ("text", "image", "offset", "score", "flag")
SOURCE = '''
import numpy as np
from parts.steps import counted

calls = []

def keep(text, image, offset, score, flag):
    return text, image, offset, score, flag

def keep_by_name(text, image, offset, score, flag):
    return {"flag": flag, "score": score, "offset": offset, "image": image, "text": text}

def read(text):
    """How many items one call had, and which call it was."""
    calls.append(len(text))
    if b"bad" in text:
        raise ValueError("bad text")
    if b"double" in text:
        return np.full((len(text), 1), 0.5), counted(text, calls)
    return np.full((len(text), 1), len(text), np.int32), counted(text, calls)

def upper(text):
    if b"bad" in text:
        raise ValueError("bad text")
    return np.array([[item.upper()] for item in text[:, 0]], object)

def join(text):
    return np.array([b" ".join(text.ravel())], object)
'''
COUNTED = """
import numpy as np

def counted(text, calls):
    return np.full((len(text), 1), len(calls), np.int32)
"""
CHAIN = f"""
inputs: [{", ".join(NAMES)}]
outputs: [{", ".join(f"{name}_again" for name in NAMES)}]
steps:
  - model: keep_by_name
    inputs: {{{", ".join(f"{name}: {name}_between" for name in NAMES)}}}
    outputs: {{{", ".join(f"{name}: {name}_again" for name in NAMES)}}}
  - model: keep
    version: 1
    inputs: {{{", ".join(f"{name}: {name}" for name in NAMES)}}}
    outputs: {{{", ".join(f"{name}: {name}_between" for name in NAMES)}}}
"""
MIXED = """
inputs: [words]
outputs: [loud, sentence]
steps:
  - {model: upper, inputs: {text: words}, outputs: {text: loud}}
  - {model: join, inputs: {text: loud}, outputs: {text: sentence}}
"""


def build(*arguments: str) -> None:
    done = CliRunner().invoke(models, ["build", *arguments])
    assert done.exit_code == 0, done.output


def build_function(name: str, inputs: str, outputs: str, *arguments: str) -> None:
    build("--python", f"model:{name}", "--inputs", inputs, "--outputs", outputs, *arguments)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServerClient]:
    """Of a server with functions, and with ensembles of them."""
    folder = tmp_path_factory.mktemp("scripted")
    save_module(folder, "model.py", SOURCE)
    save_module(folder, "parts/steps.py", COUNTED)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name in ("keep", "keep_by_name"):
            build_function(name, EVERYTHING, EVERYTHING, "--max-batch", "4")
        # Two requests are a full batch, which goes at once; one waits longer than any test.
        waiting = ("--max-batch", "2", "--queue-delay-us", "10000000", "--queue-timeout-ms", "60000")
        build_function("read", "text:string:1", "size:int32:1,call:int32:1", *waiting)
        build_function("read", "text:string:1", "size:int32:1,call:int32:1", "--name", "read_alone")
        build_function("upper", "text:string:1", "text:string:1")
        build_function("join", "text:string:-1x1", "text:string:1", "--max-batch", "0")
        for name, text in (("chain", CHAIN), ("mixed", MIXED)):
            (folder / f"{name}.yaml").write_text(text)
            build("--ensemble", f"{name}.yaml")
    with (
        running_server(folder / "models") as server,
        InferenceServerClient(server.url.removeprefix("grpc://")) as connected,
    ):
        yield connected
    assert not [*folder.glob("models/*/1/function/**/__pycache__")]


def ask(client: InferenceServerClient, model: str, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
    tensors = []
    for name, array in arrays.items():
        tensors.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        tensors[-1].set_data_from_numpy(array)
    answer = client.infer(model, tensors, client_timeout=30)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def ask_both(client: InferenceServerClient, model: str, *texts: bytes) -> list[Future[dict[str, NDArray[Any]]]]:
    """A request for each text, at the same time."""
    with ThreadPoolExecutor(len(texts)) as pool:
        return [pool.submit(ask, client, model, text=np.array([[text]], object)) for text in texts]


def everything(count: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(count)
    texts = np.array([b"", b"plate", "Zürich 中".encode(), b"\x00\xff\x00", b"a,b" * 1000, b" "], object)
    score = random.normal(size=(count, 4)).astype(np.float32)
    score[0] = np.array([np.inf, -0.0, np.nan, np.finfo(np.float32).tiny], np.float32)
    return {
        "text": random.choice(texts, (count, 6)),
        "image": random.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8),
        "offset": random.integers(-128, 128, (count, 2), dtype=np.int8),
        "score": score,
        "flag": random.integers(0, 2, (count, 1)).astype(np.bool_),
    }


@pytest.mark.parametrize("count", [1, 4])
def test_tensors_of_every_type_come_through_two_steps_as_they_are(client: InferenceServerClient, count: int) -> None:
    sent = everything(count)
    found = ask(client, "chain", **sent)
    assert found.keys() == {f"{name}_again" for name in NAMES}
    for name in NAMES:
        assert found[f"{name}_again"].dtype == sent[name].dtype
        np.testing.assert_array_equal(found[f"{name}_again"], sent[name])


def test_an_ensemble_takes_no_more_than_its_models(client: InferenceServerClient) -> None:
    assert client.get_model_config("chain").config.max_batch_size == 4
    with pytest.raises(InferenceServerException, match="batch-size must be <= 4"):
        ask(client, "chain", **everything(5))


def test_requests_are_batched_and_a_bad_one_fails_alone(client: InferenceServerClient) -> None:
    together = [asked.result() for asked in ask_both(client, "read", b"one", b"two")]
    assert [(int(one["size"][0, 0]), int(one["call"][0, 0])) for one in together] == [(2, 1), (2, 1)]
    good, bad = ask_both(client, "read", b"one", b"bad")
    with pytest.raises(InferenceServerException, match=r"model:read: ValueError: bad text \(model.py, line 17\)"):
        bad.result()
    # The second call was the one for both; then each had its own.
    assert good.result()["size"][0, 0] == 1
    assert good.result()["call"][0, 0] in (3, 4)
    again = [asked.result() for asked in ask_both(client, "read", b"three", b"four")]
    assert [(int(one["size"][0, 0]), int(one["call"][0, 0])) for one in again] == [(2, 5), (2, 5)]


def test_a_function_whose_outputs_are_wrong(client: InferenceServerClient) -> None:
    good, bad = ask_both(client, "read_alone", b"one", b"double")
    with pytest.raises(
        InferenceServerException, match=r"read: output size: expected int32 \(1, 1\), found float64 \(1, 1\)"
    ):
        bad.result()
    assert good.result()["size"][0, 0] == 1


def test_a_model_without_batching_sees_the_whole_batch(client: InferenceServerClient) -> None:
    found = ask(client, "mixed", words=np.array([[b"to"], [b"be"], [b"or"]], object))
    assert found["sentence"].tolist() == [b"TO BE OR"]
    assert found["loud"].tolist() == [[b"TO"], [b"BE"], [b"OR"]]
    with pytest.raises(InferenceServerException, match="in ensemble 'mixed', model:upper: ValueError: bad text"):
        ask(client, "mixed", words=np.array([[b"bad"]], object))
    assert ask(client, "mixed", words=np.array([[b"good"]], object))["sentence"].tolist() == [b"GOOD"]
