"""Real models with their graphs changed, on real pictures: the same detections as by our own decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import pytest
from numpy.typing import NDArray

from streamproc.engines.onnxruntime import OnnxRuntimeEngine
from streamproc.engines.openvino import OpenVinoEngine
from streamproc.graphs.intake import IMAGES, add_uint8_intake
from streamproc.graphs.precision import to_fp16, to_int8
from streamproc.graphs.reading import inputs_of, outputs_of, read_onnx
from streamproc.graphs.suppression import DETECTIONS, Layout, Suppression, add_suppression
from streamproc.models.heads import Decoder, Thresholds
from streamproc.models.heads.yolo import EndToEndDecoder, ObjectnessDecoder, RawDecoder
from streamproc.models.spec import recognise
from streamproc.preprocess import letterbox_into
from streamproc.types import Detections, Letterbox, Picture, UInt8Array
from tests.detecting import agreement, detect_all
from tests.engines import open_model
from tests.pictures import frames_of, picture_of
from tests.scoring import box_iou

pytestmark = pytest.mark.shared_data

Kind: TypeAlias = type[OpenVinoEngine] | type[OnnxRuntimeEngine]

SUPPRESSION = Suppression(confidence=0.25, iou=0.45, max_detections=300)
USUAL = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)
MODELS: tuple[tuple[str, Layout], ...] = (("yolov8n", "raw"), ("yolov5n", "objectness"))


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[Picture]:
    """Two pictures that everybody knows, and ten of COCO's validation set."""
    images = [*sorted((shared_data / "images").glob("*.jpg")), *sorted(shared_data.glob("coco_val128/images/*.jpg"))]
    return [picture_of(next(frames_of(path))) for path in images[:12]]


@pytest.fixture(scope="module")
def letterboxed(pictures: list[Picture]) -> tuple[UInt8Array, list[Letterbox]]:
    """(n, 640, 640, 3) uint8 RGB, and how each picture got there."""
    images = np.empty((len(pictures), 640, 640, 3), dtype=np.uint8)
    return images, [letterbox_into(picture, image) for picture, image in zip(pictures, images, strict=True)]


def with_intake(path: Path) -> onnx.ModelProto:
    model = read_onnx(path)
    (tensor,) = inputs_of(model)
    add_uint8_intake(model, tensor=tensor.name, dtype="float32", channels_first=True, size=(640, 640), batch=None)
    return model


def fused(path: Path, layout: Layout) -> onnx.ModelProto:
    model = with_intake(path)
    add_suppression(model, output=outputs_of(model)[0].name, layout=layout, suppression=SUPPRESSION)
    return model


class Running:
    """A model in a runtime, without anything of ours around it."""

    def __init__(self, runtime: str, model: onnx.ModelProto) -> None:
        self._run: Any
        if runtime == "openvino":
            core = openvino.Core()
            read = core.read_model(model.SerializeToString())
            self._run = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        else:
            options = ort.SessionOptions()
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            self._run = lambda images: session.run(None, {IMAGES: images})

    def __call__(self, images: UInt8Array) -> NDArray[np.float32]:
        """The first output."""
        output: NDArray[np.float32] = self._run(images)[0].copy()
        return output


def detect(
    running: Running, decoder: Decoder, letterboxed: tuple[UInt8Array, list[Letterbox]], batch: int
) -> list[Detections]:
    """The detections in every picture, ``batch`` at a time."""
    images, letterboxes = letterboxed
    found = []
    for start in range(0, len(images), batch):
        outputs = {"out": running(images[start : start + batch])}
        found += [decoder.decode(outputs, row, letterboxes[start + row], USUAL) for row in range(len(outputs["out"]))]
    return found


def assert_equal(found: Detections, expected: Detections) -> None:
    """Every box with its own, by class and order of scores."""
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=0.01)
    overlaps = box_iou(found.boxes.astype(np.float64), expected.boxes.astype(np.float64))
    assert (np.diag(overlaps) >= 0.99).all()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("name", "layout"), MODELS)
def test_fused_equals_unfused(
    shared_data: Path, letterboxed: tuple[UInt8Array, list[Letterbox]], name: str, layout: Layout, runtime: str
) -> None:
    path = shared_data / "models" / f"{name}.onnx"
    plain: Decoder = RawDecoder("out", 80) if layout == "raw" else ObjectnessDecoder("out", 80)
    expected = detect(Running(runtime, with_intake(path)), plain, letterboxed, 3)
    assert sum(map(len, expected)) > 40
    running = Running(runtime, fused(path, layout))
    for batch in (1, 3):
        found = detect(running, EndToEndDecoder("out", 80), letterboxed, batch)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize("kind", [OpenVinoEngine, OnnxRuntimeEngine])
async def test_the_engines_run_a_fused_file(
    shared_data: Path, pictures: list[Picture], tmp_path: Path, kind: Kind
) -> None:
    plain = shared_data / "models" / "yolov8n.onnx"
    path = tmp_path / "fused.onnx"
    onnx.save_model(fused(plain, "raw"), str(path))
    results = []
    for file in (plain, path):
        engine = await open_model(kind, file, name=file.stem, precision="fp32")
        try:
            results.append(await detect_all(engine, recognise(engine.info), pictures[:4], USUAL))
        finally:
            await engine.close()
    for found, expected in zip(results[1], results[0], strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize(("name", "layout"), MODELS)
def test_half_precision(
    shared_data: Path, letterboxed: tuple[UInt8Array, list[Letterbox]], name: str, layout: Layout
) -> None:
    model = fused(shared_data / "models" / f"{name}.onnx", layout)
    halved = to_fp16(model)
    onnx.checker.check_model(halved)
    assert halved.ByteSize() < 0.55 * model.ByteSize()
    assert (inputs_of(halved), outputs_of(halved)) == (inputs_of(model), outputs_of(model))
    assert shares(model, halved, letterboxed) == 1


@pytest.mark.parametrize(("symmetric", "least"), [(False, 0.9), (True, 0.8)])
def test_int8(
    shared_data: Path, letterboxed: tuple[UInt8Array, list[Letterbox]], symmetric: bool, least: float
) -> None:
    model = fused(shared_data / "models" / "yolov8n.onnx", "raw")
    quantised = to_int8(model, (image[None] for image in letterboxed[0]), symmetric=symmetric)
    onnx.checker.check_model(quantised)
    assert quantised.ByteSize() < 0.35 * model.ByteSize()
    assert [tensor.name for tensor in (*inputs_of(quantised), *outputs_of(quantised))] == [IMAGES, DETECTIONS]
    assert shares(model, quantised, letterboxed) >= least


def shares(model: onnx.ModelProto, changed: onnx.ModelProto, letterboxed: tuple[UInt8Array, list[Letterbox]]) -> float:
    """Which part of the clear boxes of a model another one finds as well."""
    decoder = EndToEndDecoder("out", 80)
    expected, found = (detect(Running("onnxruntime", one), decoder, letterboxed, 3) for one in (model, changed))
    tally = np.array([agreement(*pair) for pair in zip(expected, found, strict=True)]).sum(axis=0)
    print(f"{tally[0]} of {tally[1]} clear boxes")
    return float(tally[0] / tally[1])
