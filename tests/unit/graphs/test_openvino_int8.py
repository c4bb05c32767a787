"""What is made int8 and what stays as it is, found by the graph's structure; and a library kept quiet."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from streamproc.errors import DependencyError, ModelError
from streamproc.graphs.intake import add_uint8_intake
from streamproc.graphs.openvino_int8 import OpenVinoGraph, OpenVinoSession, to_openvino_int8
from streamproc.repository.session import Session
from streamproc.types import UInt8Array
from tests.unit.repository.detectors import SIZE, save_convolutional, save_detector


def pictures(count: int) -> list[UInt8Array]:
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (1, SIZE[1], SIZE[0], 3), dtype=np.uint8) for _ in range(count)]


def taking_pictures(path: Path) -> bytes:
    model = onnx.load(path)
    add_uint8_intake(model, tensor="pictures", dtype="float32", channels_first=True, size=SIZE, batch=None)
    serialised: bytes = model.SerializeToString()
    return serialised


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return taking_pictures(save_convolutional(tmp_path_factory.mktemp("source") / "tiny.onnx"))


@pytest.fixture(scope="module")
def quantised(source: bytes) -> OpenVinoGraph:
    return to_openvino_int8(source, pictures(8), metadata={"names": "{0: 'person', 1: 'car'}"})


def layers_of(graph: OpenVinoGraph) -> dict[str, str]:
    """Type by name."""
    found = ElementTree.fromstring(graph.xml).iterfind("layers/layer")
    return {layer.attrib["name"]: layer.attrib["type"] for layer in found}


def int8_weights(graph: OpenVinoGraph) -> set[str]:
    """Names of the convolutions whose weights are stored as int8."""
    net = ElementTree.fromstring(graph.xml)
    layers = {layer.attrib["id"]: layer for layer in net.iterfind("layers/layer")}
    makers = {
        (edge.attrib["to-layer"], edge.attrib["to-port"]): edge.attrib["from-layer"]
        for edge in net.iterfind("edges/edge")
    }
    found = set()
    for number, layer in layers.items():
        if layer.attrib["type"] == "Convolution":
            maker = makers[number, "1"]
            while layers[maker].attrib["type"] != "Const":
                maker = makers[maker, "0"]
            data = layers[maker].find("data")
            if data is not None and data.attrib["element_type"] == "i8":
                found.add(layer.attrib["name"].removesuffix("/WithoutBiases"))
    return found


def test_all_but_the_last_convolutions_are_int8(quantised: OpenVinoGraph) -> None:
    kinds = layers_of(quantised)
    assert sum(kind == "Convolution" for kind in kinds.values()) == 5
    assert int8_weights(quantised) == {"stem", "neck"}
    assert sum(kind == "FakeQuantize" for kind in kinds.values()) == 2  # what either of the two takes


def test_a_value_times_its_sigmoid_becomes_one_operator(quantised: OpenVinoGraph) -> None:
    kinds = layers_of(quantised)
    assert [kinds["stem_act"], kinds["neck_act"]] == ["Swish", "Swish"]
    assert [name for name, kind in kinds.items() if kind == "Sigmoid"] == ["likelihoods"]


def test_it_answers_nearly_the_same_and_takes_every_batch(source: bytes, quantised: OpenVinoGraph) -> None:
    batch = np.concatenate(pictures(3))
    (expected,) = Session(source, "tiny").run(batch).values()
    (found,) = OpenVinoSession(quantised).run(batch).values()
    assert found.shape == expected.shape
    assert np.abs(found[:, :4] - expected[:, :4]).mean() < 0.5  # pixels, of values up to 56
    assert np.abs(found[:, 4:] - expected[:, 4:]).mean() < 0.02
    assert len(np.unique(expected)) > 100  # or it would agree whatever happened


def test_metadata_goes_along(quantised: OpenVinoGraph) -> None:
    entry = ElementTree.fromstring(quantised.xml).find("rt_info/model_info/names")
    assert entry is not None
    assert entry.attrib["value"] == "{0: 'person', 1: 'car'}"


def test_it_is_quiet_and_reports_nothing(source: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLoggerClass()
    to_openvino_int8(source, pictures(2), metadata={})
    assert capfd.readouterr().out == ""
    assert logging.getLoggerClass() is before
    assert not hasattr(sys.modules["nncf.telemetry.wrapper"], "Telemetry")


def test_a_model_with_nothing_to_quantise(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no layers but the last ones"):
        to_openvino_int8(taking_pictures(save_detector(tmp_path / "tiny.onnx")), pictures(1), metadata={})


def test_what_is_no_model() -> None:
    with pytest.raises(ModelError, match="OpenVINO cannot read the model"):
        to_openvino_int8(b"nonsense", pictures(1), metadata={})
    with pytest.raises(ValueError, match="at least one batch"):
        to_openvino_int8(b"", [], metadata={})


def test_a_missing_library_is_named(source: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(DependencyError, match=r"nncf, which is not installed.*streamproc\[int8\]"):
        to_openvino_int8(source, pictures(1), metadata={})
