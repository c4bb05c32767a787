"""Real detectors through build and inspect, verified on real pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamproc.errors import ModelError
from streamproc.repository.build import build
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions

pytestmark = pytest.mark.shared_data


@pytest.mark.parametrize(
    ("file", "head", "max_batch"),
    [
        ("yolov8n.onnx", "yolo", 8),
        ("yolov5n.onnx", "yolo with objectness", 8),
        ("yolov5n_fp16.onnx", "yolo with objectness", 8),
        ("yolo11n_int8_320.onnx", "yolo", 0),
        ("yolox_nano.onnx", "yolox", 0),
        ("yolov8n_int8_qdq.onnx", "yolo", 0),
        ("yolov8n_int8_dynamic.onnx", "yolo", 0),
    ],
)
def test_fused_equals_unfused_on_real_pictures(
    shared_data: Path, tmp_path: Path, file: str, head: str, max_batch: int
) -> None:
    options = BuildOptions(repository=tmp_path, verify=(shared_data / "images",), labels="coco", fuse_suppression=True)
    built = build(shared_data / "models" / file, options)
    assert (built.head, built.max_batch) == (head, max_batch)
    assert all("on 2 pictures" in line for line in built.verified)
    found = inspect(built.folder.parent)
    assert found.runs
    assert found.inputs[0].dtype == "uint8"
    assert len(found.labels) == 80
    assert found.suppression is not None


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions(shared_data: Path, tmp_path: Path, backend: Any, precision: Any) -> None:
    options = BuildOptions(
        repository=tmp_path,
        backend=backend,
        precision=precision,
        calibration=shared_data / "images" if precision == "int8" else None,
        verify=(shared_data / "images" / "bus.jpg",),
    )
    source = shared_data / "models" / "yolov8n.onnx"
    built = build(source, options)
    assert json.loads((built.folder / "build.json").read_text())["precision"] == precision
    assert (built.folder / "model.onnx").stat().st_size < 0.6 * source.stat().st_size
    assert "boxes matched on 1 picture" in built.verified[0]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_is_quantised_is_not_converted_again(shared_data: Path, tmp_path: Path, precision: Any) -> None:
    calibration = shared_data / "images" if precision == "int8" else None
    options = BuildOptions(repository=tmp_path, precision=precision, calibration=calibration)
    with pytest.raises(ModelError, match=f"quantised already .static., and it cannot be made {precision}"):
        build(shared_data / "models" / "yolov8n_int8_qdq.onnx", options)
    options = BuildOptions(repository=tmp_path, backend="tensorrt")
    with pytest.raises(ModelError, match="TensorRT does not know dynamic quantisation"):
        build(shared_data / "models" / "yolov8n_int8_dynamic.onnx", options)
    assert list(tmp_path.iterdir()) == []


def test_a_float16_file_is_not_made_larger(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "models" / "yolov5n_fp16.onnx"
    with pytest.raises(ModelError, match="the file is float16, and precision asks for fp32"):
        build(source, BuildOptions(repository=tmp_path, labels="coco", precision="fp32"))
    built = build(source, BuildOptions(repository=tmp_path, labels="coco", backend="tensorrt", name="plan"))
    assert built.to_do is not None
    assert "--fp16" in built.to_do


def test_a_quantised_model_for_tensorrt(shared_data: Path, tmp_path: Path) -> None:
    options = BuildOptions(repository=tmp_path, backend="tensorrt")
    built = build(shared_data / "models" / "yolov8n_int8_qdq.onnx", options)
    assert built.to_do is not None
    assert built.to_do.endswith("--int8 --fp16")


def test_two_sizes_of_one_file_side_by_side(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "models" / "yolov5n.onnx"
    build(source, BuildOptions(repository=tmp_path, name="yolov5n-640", labels="coco"))
    with pytest.raises(ModelError, match=r"cannot run it on float32 \(1, 3, 320, 320\).*Leave the size out"):
        build(source, BuildOptions(repository=tmp_path, name="yolov5n-320", labels="coco", size=(320, 320)))
    with pytest.raises(ModelError, match="multiples of 32"):
        build(source, BuildOptions(repository=tmp_path, labels="coco", size=(300, 300)))
    small = build(shared_data / "models" / "yolo11n_int8_320.onnx", BuildOptions(repository=tmp_path))
    assert inspect(small.folder.parent).inputs[0].shape == (1, 320, 320, 3)
    assert inspect(tmp_path / "yolov5n-640").inputs[0].shape == (-1, 640, 640, 3)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("models/osnet_x0_25_msmt17.onnx", "looks like a classifier or an embedding"),
        ("plates/models/lprnet_ru.onnx", "not supported"),
        ("plates/models/stn_ru.onnx", "not supported"),
    ],
)
def test_what_is_not_supported_says_why(shared_data: Path, tmp_path: Path, file: str, said: str) -> None:
    found = inspect(shared_data / file)
    assert not found.runs
    assert found.inputs
    assert found.outputs
    assert said in str(found.problem)
    with pytest.raises(ModelError, match=said):
        build(shared_data / file, BuildOptions(repository=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "head", "classes"),
    [
        ("models/yolov8n.onnx", "yolo", 80),
        ("models/openvino/yolov8n_int8.xml", "yolo", 80),
        ("models/openvino/yolov8n-pose_int8.xml", "yolo pose", 1),
    ],
)
def test_inspecting(shared_data: Path, file: str, head: str, classes: int) -> None:
    found = inspect(shared_data / file)
    assert found.head == head
    assert len(found.labels) == classes
    assert found.inputs[0].shape[1:] == (3, 640, 640)
