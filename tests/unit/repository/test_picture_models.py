"""Building what gives no boxes: classifiers, texts, embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.config import PixelsConfig
from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ConfigError, ModelError
from streamproc.graphs.reading import inputs_of, read_onnx
from streamproc.models.heads.embedding import EmbeddingReader
from streamproc.models.secondary import WantedHead, recognise_secondary
from streamproc.repository.build import build
from streamproc.repository.config_pbtxt import inputs_of_config, outputs_of_config, parameters_of, read_config
from streamproc.repository.in_process import write_int8
from streamproc.repository.options import BuildOptions
from streamproc.repository.output_comparison import EXACT, compare_outputs
from streamproc.repository.pictures import drawn_sample
from streamproc.repository.session import Session
from streamproc.repository.verification import GraphRunner
from tests.tiny_models import save_constant, save_means
from tests.unit.repository.detectors import save_picture

BGR = PixelsConfig(color="bgr", mean=(127.5,) * 3, scale=(1 / 128,) * 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_means(tmp_path / "means.onnx", size=(64, 32))


def served_info(folder: Path, **metadata: str) -> ModelInfo:
    """A model as clients see it."""
    config = read_config(folder / "config.pbtxt")
    outputs = tuple(TensorInfo(name=t.name, dtype=t.dtype, shape=(1, *t.shape[1:])) for t in outputs_of_config(config))
    told = {**parameters_of(config), **metadata}
    return ModelInfo(name="m", size=(64, 32), inputs=inputs_of_config(config), outputs=outputs, metadata=told)


@pytest.mark.parametrize("head", ["auto", "classifier"])
@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_a_classifier(tmp_path: Path, source: Path, head: Any, precision: Any) -> None:
    pictures = (save_picture(tmp_path / "a.png"), save_picture(tmp_path / "b.png", value=90))
    options = BuildOptions(repository=tmp_path / "models", head=head, precision=precision, pixels=BGR, verify=pictures)
    built = build(source, options)
    assert (built.head, built.max_batch) == ("classifier", 8)
    assert "of their largest value on 2 pictures" in str(built)
    graph = read_onnx(built.folder / "model.onnx")
    assert [(tensor.dtype, tensor.shape) for tensor in inputs_of(graph)] == [("uint8", (-1, 32, 64, 3))]
    images = np.full((2, 32, 64, 3), (10, 120, 240), dtype=np.uint8)
    means = Session((built.folder / "model.onnx").read_bytes(), "means").run(images)["means"]
    np.testing.assert_allclose(means, [(np.array([240, 120, 10]) - 127.5) / 128] * 2, atol=1e-3)
    assert (tmp_path / "models" / "means" / "labels.txt").read_text() == "red\ngreen\nblue\n"
    parameters = parameters_of(read_config(tmp_path / "models" / "means" / "config.pbtxt"))
    assert (parameters["task"], parameters["fit"]) == ("classify", "stretch")
    assert parameters["names"] == "{0: 'red', 1: 'green', 2: 'blue'}"


def test_clients_are_told_what_was_asked_for(tmp_path: Path, source: Path) -> None:
    build(source, BuildOptions(repository=tmp_path, head="classifier", labels=("a", "b", "c"), fit="letterbox"))
    info = served_info(tmp_path / "means")
    assert info.metadata["fit"] == "letterbox"  # which its outputs do not tell
    assert info.metadata["names"] == "{0: 'a', 1: 'b', 2: 'c'}"
    build(source, BuildOptions(repository=tmp_path, name="vector", head="embedding"))
    assert isinstance(recognise_secondary(served_info(tmp_path / "vector"), WantedHead()), EmbeddingReader)
    assert not (tmp_path / "vector" / "labels.txt").exists()
    table = save_constant(tmp_path / "table.onnx", (1, 7, 5))
    assert build(table, BuildOptions(repository=tmp_path, head="ctc")).head == "ctc"
    with pytest.raises(ModelError, match="Write alphabet"):
        recognise_secondary(served_info(tmp_path / "table"), WantedHead())


def test_what_does_not_fit_is_refused(tmp_path: Path, source: Path) -> None:
    table = save_constant(tmp_path / "table.onnx", (1, 7, 5))
    shared: dict[str, Any] = {"repository": tmp_path / "models"}
    with pytest.raises(ModelError, match="say what it tells with --head classifier, ctc"):
        build(table, BuildOptions(**shared))
    with pytest.raises(ModelError, match="head: classifier needs an output"):
        build(table, BuildOptions(**shared, head="classifier"))
    with pytest.raises(ModelError, match=r"head: ctc needs an output .* but it has outputs means float32 \(1, 3\)"):
        build(source, BuildOptions(**shared, head="ctc"))
    with pytest.raises(ModelError, match="holds 3 classes, but 2 are named"):
        build(source, BuildOptions(**shared, head="classifier", labels=("a", "b")))
    with pytest.raises(ConfigError, match=r"fuse_suppression: .* not with head classifier"):  # as it turns out to be
        build(source, BuildOptions(**shared, fuse_suppression=True))
    int8 = BuildOptions(repository=Path("models"), backend="openvino", precision="int8", calibration=tmp_path)
    with pytest.raises(ConfigError, match=r"precision: .* another precision with head classifier"):
        write_int8(source, tmp_path / "means.xml", int8)
    assert not shared["repository"].exists()


def runner(path: Path, *, factor: float = 1.0) -> GraphRunner:
    def feed(images: Any) -> Any:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) * np.float32(factor)

    return GraphRunner(session=Session(path.read_bytes(), "m"), feed=feed, batch=2, open_batch=True)


def test_outputs_are_compared_number_by_number(source: Path) -> None:
    samples = [drawn_sample((64, 32), "stretch")] * 3
    good = compare_outputs("m", runner(source), runner(source, factor=1.0005), samples, tolerance=EXACT, drawn=True)
    assert good.worst == pytest.approx(0.0005, rel=0.01)
    assert str(good) == "outputs within 0.05% of their largest value on a drawn picture"
    for factor, said in ((1.01, "1.00%"), (float("nan"), "nan%")):
        with pytest.raises(ModelError, match=f"output means differs .* by {said} .* on a drawn picture"):
            compare_outputs("m", runner(source), runner(source, factor=factor), samples, tolerance=EXACT, drawn=True)
