"""Inspecting: what each kind of model is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamproc.errors import ModelError
from streamproc.repository.build import build
from streamproc.repository.inspection import inspect
from streamproc.repository.openvino_xml import read_xml
from streamproc.repository.options import BuildOptions
from streamproc.repository.policy import VersionPolicy
from tests.tiny_models import save_constant, save_means
from tests.unit.repository.detectors import CELLS, save_detector
from tests.unit.repository.plan_files import METADATA, write_plan

COLOURS = ("red", "green", "blue")
XML = """<?xml version="1.0"?>
<net name="tiny" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="{batch},3,64,64" element_type="f32"/>
 <output><port id="0" precision="FP32" names="x,images"><dim>1</dim></port></output></layer>
<layer id="1" name="head" type="Add" version="opset1"><output><port id="2" names="boxes"/></output></layer>
<layer id="2" name="end" type="Result" version="opset1"><input><port id="0" precision="FP16">
 <dim>1</dim><dim>6</dim><dim>84</dim></port></input></layer>
</layers><edges><edge from-layer="1" from-port="2" to-layer="2" to-port="0"/></edges>
<rt_info><model_info><labels value="person fire_hydrant"/></model_info></rt_info></net>
"""


def test_a_detector(tmp_path: Path) -> None:
    found = inspect(save_detector(tmp_path / "tiny.onnx"))
    assert (found.kind, found.head, found.runs, found.suppression) == ("ONNX", "yolo", True, None)
    assert found.engines == ("openvino", "onnxruntime", "triton")
    assert found.labels == ("person", "car")
    assert found.inputs[0].shape == (-1, 3, 64, 64)
    assert found.outputs[0].shape == (-1, 6, CELLS)
    said = str(found)
    assert "input pictures: float32 ?x3x64x64" in said
    assert "classes: 2 (person, car)" in said
    assert "suppression: by streamproc" in said
    told = json.loads(json.dumps(found.as_dict()))
    assert told["runs"] is True
    assert told["outputs"][0] == {"name": "output0", "dtype": "float32", "shape": [-1, 6, CELLS]}


def test_a_model_with_suppression_of_its_own(tmp_path: Path) -> None:
    assert inspect(save_detector(tmp_path / "a.onnx", layout="end-to-end")).suppression == "in the model"


def test_what_tells_of_other_models_objects(tmp_path: Path) -> None:
    source = save_means(tmp_path / "means.onnx")
    found = inspect(source)
    assert (found.head, found.runs, found.detects, found.labels) == ("classifier", True, False, COLOURS)
    assert "tells of objects that another model finds: classifier" in str(found)
    for head in ("classifier", "embedding"):
        build(source, BuildOptions(repository=tmp_path / "models", name=head, head=head))
        served = inspect(tmp_path / "models" / head)
        assert (served.head, served.runs, served.detects, served.engines) == (head, True, False, ("triton",))
        assert served.labels == (COLOURS if head == "classifier" else ())


def test_what_does_not_say_what_it_tells(tmp_path: Path) -> None:
    found = inspect(save_constant(tmp_path / "table.onnx", (1, 7, 5)))
    assert not found.runs
    assert found.engines == ()
    assert "--head classifier, ctc (texts) or embedding" in (found.problem or "")
    assert "cannot be run: model table: not supported" in str(found)


def test_names_that_cannot_be_read(tmp_path: Path) -> None:
    found = inspect(save_detector(tmp_path / "a.onnx", metadata={"names": "{nonsense"}))
    assert found.labels == ()
    assert "cannot be read" in (found.problem or "")


def test_served_models(tmp_path: Path) -> None:
    source, repository = save_detector(tmp_path / "tiny.onnx"), tmp_path / "models"
    build(source, BuildOptions(repository=repository))
    build(source, BuildOptions(repository=repository, name="fused", fuse_suppression=True, confidence=0.3))
    build(source, BuildOptions(repository=repository, name="plan", backend="tensorrt"))
    build(source, BuildOptions(repository=repository, name="whole", max_batch=0, fuse_intake=False))
    plain, fused, plan, whole = (inspect(repository / name) for name in ("tiny", "fused", "plan", "whole"))
    assert (plain.kind, plain.head, plain.engines) == ("served model", "yolo", ("triton",))
    assert plain.inputs[0].shape == (-1, 64, 64, 3)
    assert plain.suppression is None
    assert (fused.head, fused.labels) == ("yolo end-to-end", ("person", "car"))
    assert fused.suppression == "fused, confidence 0.3, iou 0.45, max_detections 300"
    assert "no complete version" in (plan.problem or "")
    assert "version 1 has no model.plan yet" in str(plan)
    assert whole.runs


def test_a_served_model_that_a_server_would_refuse(tmp_path: Path) -> None:
    source = save_detector(tmp_path / "tiny.onnx")
    options = BuildOptions(repository=tmp_path, version_policy=VersionPolicy(latest=None, versions=(2,)))
    build(source, options)
    assert "no complete version" in (inspect(tmp_path / "tiny").problem or "")
    (tmp_path / "tiny").rename(tmp_path / "moved")
    assert "its name is 'tiny'" in (inspect(tmp_path / "moved").problem or "")


def test_plans(tmp_path: Path) -> None:
    bare = inspect(write_plan(tmp_path / "bare.plan"))
    assert "its tensors are not known" in (bare.problem or "")
    assert "built with TensorRT 10.3.0.26" in str(bare)
    (tmp_path / "best.engine.json").write_text('{"compute_capability": "8.6"}')
    found = inspect(write_plan(tmp_path / "best.engine", metadata=METADATA))
    assert found.runs
    assert found.engines == ("triton",)
    assert found.outputs[0].shape == (1, 5, 126)
    assert "on compute capability 8.6" in str(found)
    pose = {**METADATA, "task": "pose", "kpt_shape": [17, 3]}
    found = inspect(write_plan(tmp_path / "pose.engine", metadata=pose))
    assert (found.head, found.outputs[0].shape) == ("yolo pose", (1, 56, 126))
    odd = inspect(write_plan(tmp_path / "odd.engine", metadata={**pose, "kpt_shape": "all"}))
    assert "kpt_shape in its metadata cannot be used" in (odd.problem or "")
    poor = inspect(write_plan(tmp_path / "poor.engine", metadata={"stride": 32}))
    assert "nothing tells its tensors" in (poor.problem or "")


@pytest.mark.parametrize(("batch", "expected"), [("1", 1), ("?", -1), ("1..8", -1)])
def test_openvino(tmp_path: Path, batch: str, expected: int) -> None:
    path = tmp_path / "tiny.xml"
    path.write_text(XML.format(batch=batch))
    assert "tiny.bin, are not beside it" in (inspect(path).problem or "")
    path.with_suffix(".bin").write_bytes(b"")
    found = inspect(path)
    assert (found.kind, found.head, found.engines) == ("OpenVINO", "yolo", ("openvino",))
    assert (found.inputs[0].name, found.inputs[0].shape) == ("images", (expected, 3, 64, 64))
    assert (found.outputs[0].name, found.outputs[0].dtype) == ("boxes", "float16")
    assert found.labels == ("person", "fire hydrant")


@pytest.mark.parametrize("text", ["no xml", "<net/>", '<net><layers><layer id="0" type="Result"/></layers></net>'])
def test_xml_that_is_no_openvino_model(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ModelError, match="OpenVINO model"):
        read_xml(tmp_path / "a.xml")


def test_what_is_no_model_at_all(tmp_path: Path) -> None:
    (tmp_path / "yolo.h5").write_bytes(b"")
    (tmp_path / "damaged.onnx").write_bytes(b"x")
    for name, said in (
        ("yolo.h5", "Export others to ONNX"),
        ("absent.onnx", "no such file"),
        ("damaged.onnx", "cannot be read as ONNX"),
        (".", "no model of a repository"),
    ):
        with pytest.raises(ModelError, match=said):
            inspect(tmp_path / name)
