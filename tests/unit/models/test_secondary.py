"""Which head a secondary model gets, and what is said of those that none fits."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pytest

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.models.heads import TextRead
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.heads.ctc import Blank, CtcReader
from streamproc.models.heads.embedding import EmbeddingReader
from streamproc.models.secondary import SecondaryKind, WantedHead, recognise_secondary
from streamproc.models.spec import Head

Shape = tuple[int, ...]
NAMES = {"names": "{0: 'red', 1: 'green', 2: 'blue'}"}
COLOURS = ("red", "green", "blue")


def info(*outputs: Shape, metadata: Mapping[str, str] | None = None) -> ModelInfo:
    return ModelInfo(
        name="m",
        size=(640, 640),
        inputs=(TensorInfo(name="images", dtype="float32", shape=(1, 3, 640, 640)),),
        outputs=tuple(
            TensorInfo(name=f"output{number}", dtype="float32", shape=shape) for number, shape in enumerate(outputs)
        ),
        metadata=metadata or {},
    )


def wanted(kind: SecondaryKind | None = None, *, labels: tuple[str, ...] | None = None, top: int = 1) -> WantedHead:
    return WantedHead(kind=kind, labels=labels, top=top)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
@pytest.mark.parametrize("kind", [None, "classifier"])
@pytest.mark.parametrize(
    ("labels", "metadata"), [(COLOURS, {}), (None, NAMES), (COLOURS, {"names": "['a', 'b', 'c']"})]
)
def test_classifiers(
    shape: Shape, kind: SecondaryKind | None, labels: tuple[str, ...] | None, metadata: dict[str, str]
) -> None:
    head = recognise_secondary(info(shape, metadata=metadata), wanted(kind, labels=labels, top=2))
    assert isinstance(head, ClassifierReader)
    values = np.array([1, 5, 2], dtype=np.float32).reshape(shape)
    assert [name for name, _ in head.read({"output0": values}, 0).labels] == ["green", "blue"]


def test_classes_without_names_are_numbered(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        head = recognise_secondary(info((1, 3)), wanted("classifier"))
    assert isinstance(head, ClassifierReader)
    assert head.labels == ("class0", "class1", "class2")
    assert "its 3 classes have no names" in caplog.text


@pytest.mark.parametrize("shape", [(1, 512), (1, 512, 1, 1)])
def test_embeddings_are_asked_for(shape: Shape) -> None:
    assert isinstance(recognise_secondary(info(shape), wanted("embedding")), EmbeddingReader)
    with pytest.raises(ModelError, match="head: embedding, or head: classifier"):
        recognise_secondary(info(shape), wanted())


@pytest.mark.parametrize("kind", [None, "ctc"])
@pytest.mark.parametrize(("shape", "symbols_first"), [((1, 4, 18), True), ((1, 18, 4), False)])
@pytest.mark.parametrize("blank", ["first", "last"])
def test_texts(kind: SecondaryKind | None, shape: Shape, symbols_first: bool, blank: Blank) -> None:
    head = recognise_secondary(info(shape), WantedHead(kind=kind, alphabet="abc", blank=blank, beam_width=4))
    assert isinstance(head, CtcReader)
    steps = np.full((18, 4), 0.02)
    steps[:, 0 if blank == "first" else 3] = 0.94
    steps[7] = np.roll([0.02, 0.94, 0.02, 0.02], 1 if blank == "first" else 0)
    outputs = {"output0": (steps.T if symbols_first else steps)[None].astype(np.float32)}
    found = head.read(outputs, 0)
    assert isinstance(found, TextRead)
    assert found.text == "b"


def test_a_square_output_has_the_steps_first(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        recognise_secondary(info((1, 4, 4)), WantedHead(alphabet="abc"))
    assert "square" in caplog.text


@pytest.mark.parametrize(
    ("shapes", "labels", "kind", "name"),
    [
        ([(1, 84, 8400)], tuple(map(str, range(80))), None, "yolo"),
        ([(1, 84, 8400)], tuple(map(str, range(80))), "detector", "yolo"),
        ([(1, 16800, 4), (1, 16800, 2), (1, 16800, 8)], None, None, "retinaface with corners"),
        ([(1, 1, 640, 640)], None, None, "text regions"),
        ([(1, 1, 640, 640)], ("sign",), "detector", "text regions"),
        ([(1, 56, 8400)], ("person",), "keypoints", "yolo pose"),
    ],
)
def test_detectors(shapes: list[Shape], labels: tuple[str, ...] | None, kind: SecondaryKind | None, name: str) -> None:
    head = recognise_secondary(info(*shapes), wanted(kind, labels=labels))
    assert isinstance(head, Head)
    assert head.name == name


def test_plates_are_called_so() -> None:
    plates = info((1, 16800, 4), (1, 16800, 2), (1, 16800, 8))
    head = recognise_secondary(plates, wanted())
    assert isinstance(head, Head)
    assert head.labels == ("plate",)
    with pytest.raises(ModelError, match="holds 1 classes, but 2 are named"):
        recognise_secondary(plates, wanted(labels=("plate", "car")))


@pytest.mark.parametrize(
    ("outputs", "want", "saying"),
    [
        ([(1, 3)], wanted("classifier", labels=("red",)), "holds 3 classes, but 1 are named (red)"),
        ([(1, 1)], wanted("classifier", labels=("red",)), "holds one score"),
        ([(1, 3, 7)], wanted("classifier"), "needs an output (batch, n)"),
        ([(1, 3, 7)], wanted("embedding"), "output0 float32 (1, 3, 7)"),
        ([(1, 68, 18)], wanted("ctc"), "Write alphabet"),
        ([(1, 68, 18)], WantedHead(alphabet="abc"), "the alphabet has 3 symbols, so with the blank"),
        ([(1, 512)], WantedHead(alphabet="abc"), "output0 float32 (1, 512)"),
        ([(1, 68, 18)], wanted(), "write head: ctc with its alphabet"),
        ([(1, 68, 18)], wanted("detector"), "not supported: no output fits"),
    ],
)
def test_what_does_not_fit(outputs: list[Shape], want: WantedHead, saying: str) -> None:
    with pytest.raises(ModelError) as caught:
        recognise_secondary(info(*outputs), want)
    assert str(caught.value).startswith("model m: ")
    assert saying in str(caught.value)
