"""Classifiers in TorchScript: what is built of them, and the script that runs them, on a small double of PyTorch."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from streamproc.cli.models import models
from streamproc.config import PixelsConfig
from streamproc.errors import ConfigError, ModelError
from streamproc.repository.build import BuiltModel, build
from streamproc.repository.config_pbtxt import parameters_of, read_config
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from tests import fake_torch
from tests.unit.repository.python_backend import Response, Tensor, load, use_backend

COLOURS = ("red", "green", "blue")
BGR = PixelsConfig(color="bgr", mean=(10, 20, 30), scale=(1, 0.5, 0.25))


@pytest.fixture(autouse=True)
def _python_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's modules, and PyTorch beside them."""
    use_backend(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch", fake_torch)
    monkeypatch.setattr(fake_torch, "threads", [])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fake_torch.save_means(tmp_path / "colours.pt")


def built(source: Path, **options: Any) -> BuiltModel:
    usual: dict[str, Any] = {"backend": "python", "head": "classifier", "labels": COLOURS, "size": (64, 32)}
    return build(source, BuildOptions(repository=source.parent / "models", **(usual | options)))


def request(*values: int) -> dict[str, Tensor]:
    """A picture for each value, which is red's; green has 10 more, blue 20."""
    images = np.stack([np.full((32, 64, 3), (value, value + 10, value + 20), np.uint8) for value in values])
    return {"images": Tensor("images", images)}


def test_what_is_built(source: Path) -> None:
    model = built(source, threads=2, instances=3)
    assert (model.name, model.backend, model.head, model.max_batch) == ("colours", "python", "classifier", 8)
    assert {path.name for path in model.folder.iterdir()} == {"model.py", "model.pt", "build.json"}
    assert (model.folder / "model.pt").read_bytes() == source.read_bytes()
    assert "the server's Python needs PyTorch; it runs on the processor" in str(model)
    config = read_config(model.folder.parent / "config.pbtxt")
    assert [(t.name, list(t.dims)) for t in config.input] == [("images", [32, 64, 3])]
    assert [(t.name, list(t.dims), t.label_filename) for t in config.output] == [("scores", [3], "labels.txt")]
    assert parameters_of(config) == {
        "task": "classify",
        "names": "{0: 'red', 1: 'green', 2: 'blue'}",
        "imgsz": "[32, 64]",
        "fit": "stretch",
        "color": "rgb",
        "mean": "0.0,0.0,0.0",
        "scale": ",".join([str(1 / 255)] * 3),
        "threads": "2",
    }
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 8]
    assert not config.HasField("dynamic_batching")
    found = inspect(model.folder.parent)
    assert (found.head, found.labels, found.detects, found.engines) == ("classifier", COLOURS, False, ("triton",))


def test_pictures_become_what_the_network_wants(source: Path) -> None:
    instance = load(built(source, pixels=BGR))
    assert fake_torch.threads == [1]
    (answer,) = instance.execute([request(100, 200)])
    expected = np.array([(120 - 10) * 1, (110 - 20) * 0.5, (100 - 30) * 0.25])
    assert answer["scores"].dtype == np.float32
    np.testing.assert_allclose(answer["scores"], np.stack([expected, expected + np.array((100, 50, 25))]))


@pytest.mark.parametrize("gives", ["tuple", "mapping", "tensor"])
def test_requests_that_come_together_are_one_run(tmp_path: Path, gives: str) -> None:
    instance = load(built(fake_torch.save_means(tmp_path / "m.torchscript", gives=gives)))
    one, other = instance.execute([request(0, 51), request(102)])
    np.testing.assert_allclose(one["scores"][:, 0], [0, 0.2], atol=1e-6)
    np.testing.assert_allclose(other["scores"], [[102 / 255, 112 / 255, 122 / 255]], rtol=1e-6)


def test_a_failed_run_is_an_answer(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = load(built(source))

    def fail(_: Any) -> None:
        raise RuntimeError("CUDA out of memory.\nSee documentation")

    with monkeypatch.context() as patched:
        patched.setattr(instance, "_network", fail)
        assert instance.execute([request(1), request(2)]) == [
            Response(error="PyTorch failed: CUDA out of memory.") for _ in range(2)
        ]
    assert len(instance.execute([request(1)])[0]["scores"]) == 1


def test_on_a_gpu(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(source, instance_kind="gpu")
    config = read_config(model.folder.parent / "config.pbtxt")
    assert config.HasField("dynamic_batching")
    assert "it runs on the GPU" in str(model)
    with pytest.raises(RuntimeError, match=r"KIND_GPU: PyTorch 0\.0 of the server's Python finds no CUDA device"):
        load(model, kind="GPU")
    monkeypatch.setattr(fake_torch.cuda, "available", True)
    (answer,) = load(model, kind="GPU", device=1).execute([request(51)])
    np.testing.assert_allclose(answer["scores"][0, 0], 0.2, rtol=1e-6)


def test_a_server_without_pytorch(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    with pytest.raises(RuntimeError, match=r"needs PyTorch, which the server's Python \(.*\) cannot import.*Install"):
        load(built(source))


def test_networks_that_do_not_fit(tmp_path: Path) -> None:
    source = fake_torch.save_means(tmp_path / "m.pt")
    with pytest.raises(RuntimeError, match=r"gives \(1, 3\) for 1 pictures; expected \(1, 2\), a score for each"):
        load(built(source, labels=("cat", "dog")))
    traced = fake_torch.save_means(tmp_path / "traced.pt", batch=1)
    with pytest.raises(RuntimeError, match=r"PyTorch cannot run the model: RuntimeError: shape '\[1, -1\]' is invalid"):
        load(built(traced))
    for alone in (1, 0):
        model = built(traced, max_batch=alone, name=f"alone-{alone}")
        assert len(load(model).execute([request(7)])[0]["scores"]) == 1
    with pytest.raises(RuntimeError, match="it gives tuple; expected a tensor, or a tuple that begins with one"):
        load(built(fake_torch.save_means(tmp_path / "empty.pt", gives="nothing")))


def test_what_the_file_does_not_tell_is_asked_for(source: Path) -> None:
    done = CliRunner().invoke(models, ["build", str(source), "--precision", "fp16", "--runtime", "onnxruntime"])
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    for part in (
        "head: found auto; expected classifier, which alone is made from TorchScript",
        "labels: found nothing; expected the names of its classes",
        "size: found nothing; expected width and height",
        "precision: found fp16; expected it for an ONNX file only",
        "runtime: found onnxruntime; expected it for an ONNX file only",
    ):
        assert part in said
    for options, part in (({"backend": "onnxruntime"}, "python, which runs TorchScript"), ({"onnx": source}, "onnx")):
        with pytest.raises(ConfigError, match=part):
            built(source, **options)
    with pytest.raises(ModelError, match="expected the names of two classes or more, found dog"):
        built(source, labels=("dog",))
    assert not (source.parent / "models").exists()


def test_from_the_command_line(source: Path) -> None:
    repository = source.parent / "models"
    command = ["build", str(source), "-r", str(repository), "--head", "classifier", "--labels", "a,b,c"]
    done = CliRunner().invoke(models, [*command, "--size", "64x32", "--mean", "127.5", "--scale", "0.0078125"])
    assert done.exit_code == 0, done.output
    parameters = parameters_of(read_config(repository / "colours" / "config.pbtxt"))
    assert (parameters["mean"], parameters["scale"]) == ("127.5,127.5,127.5", "0.0078125,0.0078125,0.0078125")


def test_files_that_are_no_torchscript(tmp_path: Path, source: Path) -> None:
    weights = tmp_path / "weights.pth"
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("weights/data.pkl", b"")
    (tmp_path / "old.pt").write_bytes(b"\x80\x02")
    for path, said in ((weights, "it holds no code"), (tmp_path / "old.pt", "it holds no code")):
        with pytest.raises(ModelError, match=said):
            built(path)
        with pytest.raises(ModelError, match=said):
            inspect(path)
    with pytest.raises(ModelError, match=r"nowhere\.pt: it cannot be read"):
        built(tmp_path / "nowhere.pt")
    found = inspect(source)
    assert (found.kind, found.runs) == ("TorchScript", False)
    assert "Build it with --head classifier, --labels and --size" in str(found)
