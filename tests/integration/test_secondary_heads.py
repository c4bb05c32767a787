"""The heads of secondary models on real models: plates, their texts, the way up of a text, and persons."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.engines.factory import open_engine
from streamproc.errors import ModelError
from streamproc.models.heads import Thresholds
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.heads.ctc import CtcReader
from streamproc.models.heads.embedding import EmbeddingReader, similarities
from streamproc.models.secondary import SecondaryHead, WantedHead, recognise_secondary
from streamproc.models.spec import Head, recognise
from streamproc.preprocess import letterbox_into
from streamproc.repository.build import build
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from streamproc.types import Detections, UInt8Array
from tests.detecting import detect_all
from tests.pictures import frames_of, picture_of
from tests.tiny_models import save_means

real = pytest.mark.shared_data

Floats = NDArray[np.float32]

CHINESE = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新0123456789ABCDEFGHJKLMNPQRSTUVWXYZIO"
RUSSIAN = "0123456789ABEKMHOPCTYX"
IMAGENET_MEAN: Floats = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
IMAGENET_DEVIATION: Floats = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
PLATES = Thresholds(confidence=0.5, iou=0.45, class_ids=None, max_detections=300)
# Three persons in bus.jpg, xyxy.
PERSONS = ((50, 399, 245, 903), (223, 407, 345, 858), (670, 395, 810, 878))


class Model:
    """A model in ONNX Runtime, without any of our own engines in between."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, images: Floats) -> dict[str, NDArray[Any]]:
        """The outputs for pictures (n, 3, height, width)."""
        names = [tensor.name for tensor in self._session.get_outputs()]
        (source,) = self._session.get_inputs()
        found = zip(names, self._session.run(names, {source.name: images}), strict=True)
        # Models that take one picture and no more may leave the batch out.
        return {name: values if len(values) == len(images) else values[None] for name, values in found}

    def head(self, images: Floats, wanted: WantedHead) -> SecondaryHead:
        """The head for the shapes that a picture's outputs really have."""
        found = self.run(images[:1])
        outputs = tuple(TensorInfo(name=name, dtype=str(v.dtype), shape=v.shape) for name, v in found.items())
        size = (images.shape[3], images.shape[2])
        return recognise_secondary(ModelInfo(name="m", size=size, inputs=(), outputs=outputs, metadata={}), wanted)


def planes(images: Sequence[UInt8Array]) -> Floats:
    """(n, 3, height, width) of as many (height, width, 3)."""
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)


def read_bgr(path: Path) -> UInt8Array:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture.astype(np.uint8, copy=False)


def resized(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Stretched to (width, height) bicubically, as the plate readers were trained."""
    return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def plates_in(folder: Path, column: str) -> tuple[Floats, list[str]]:
    """Plates as the readers want them, and what they say."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    crops = [resized(read_bgr(folder / row["file"]), (94, 24)) for row in rows]
    return (planes(crops) - np.float32(127.5)) / np.float32(128), [row[column] for row in rows]


def texts(reader: CtcReader, outputs: dict[str, NDArray[Any]], count: int) -> list[str]:
    return [reader.read(outputs, row).text for row in range(count)]


@real
@pytest.mark.parametrize(("beam_width", "exact"), [(1, 54), (10, 54)])
def test_chinese_plates(shared_data: Path, beam_width: int, exact: int) -> None:
    model = Model(shared_data / "plates" / "models" / "lprnet_cn.onnx")
    images, truth = plates_in(shared_data / "plates" / "crops_cn", "plate")
    reader = model.head(images, WantedHead(alphabet=CHINESE, beam_width=beam_width))
    assert isinstance(reader, CtcReader)
    read = texts(reader, model.run(images), len(images))
    assert sum(one == other for one, other in zip(read, truth, strict=True)) == exact
    singly = [texts(reader, model.run(images[row : row + 1]), 1)[0] for row in range(0, len(images), 7)]
    assert singly == read[::7]


@real
@pytest.mark.parametrize(("beam_width", "exact"), [(1, 7), (10, 6)])  # of O and 0 on one, the wrong one is likelier
def test_russian_plates_set_straight_first(shared_data: Path, beam_width: int, exact: int) -> None:
    folder = shared_data / "plates" / "models"
    images, truth = plates_in(shared_data / "plates" / "crops_ru", "plate_read_by_eye")
    straight = next(iter(Model(folder / "stn_ru.onnx").run(images).values()))
    model = Model(folder / "lprnet_ru.onnx")
    reader = model.head(straight, WantedHead(alphabet=RUSSIAN, beam_width=beam_width))
    assert isinstance(reader, CtcReader)
    read = texts(reader, model.run(straight), len(straight))
    assert sum(one == other for one, other in zip(read, truth, strict=True)) == exact


def find_plates(model: Model, head: Head, path: Path) -> Detections:
    image: UInt8Array = np.empty((640, 640, 3), dtype=np.uint8)
    letterbox = letterbox_into(picture_of(next(frames_of(path))), image)
    outputs = model.run(planes([image[:, :, ::-1]]) - np.array([104, 117, 123], np.float32).reshape(3, 1, 1))
    return head.decode(outputs, 0, letterbox, PLATES)


@real
def test_plates_are_found_with_their_corners(shared_data: Path) -> None:
    model = Model(shared_data / "plates" / "models" / "mnet_plate.onnx")
    head = model.head(np.zeros((1, 3, 640, 640), np.float32), WantedHead())
    assert isinstance(head, Head)
    assert head.labels == ("plate",)
    for path in sorted((shared_data / "plates" / "images").glob("*.jpg")):
        found = find_plates(model, head, path)
        assert len(found) >= 1, path.name
        assert found.keypoints is not None
        for box, corners in zip(found.boxes, found.keypoints[:, :, :2], strict=True):
            tolerance = 0.1 * float((box[2:] - box[:2]).max())
            np.testing.assert_allclose(corners.min(axis=0), box[:2], atol=tolerance, err_msg=path.name)
            np.testing.assert_allclose(corners.max(axis=0), box[2:], atol=tolerance, err_msg=path.name)
            top_left, top_right, bottom_right, bottom_left = corners
            assert top_left[0] < top_right[0]
            assert bottom_left[0] < bottom_right[0]
            assert top_left[1] < bottom_left[1]
            assert top_right[1] < bottom_right[1]
    for name in ("images/bus.jpg", "videos/yard_ru_1.ts"):
        assert len(find_plates(model, head, shared_data / name)) == 0, name


@real
@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
async def test_plates_in_an_engine(shared_data: Path, kind: Literal["onnxruntime", "openvino"]) -> None:
    """It says itself which pixels it wants, and lacks the batch in front of its outputs."""
    path = shared_data / "plates" / "models" / "mnet_plate.onnx"
    pictures = [shared_data / "plates" / "images" / name for name in ("police.jpg", "cn_car_4.jpg")]
    model = Model(path)
    engine = await open_engine(EngineConfig(kind=kind), ModelConfig(path=path))
    head = recognise(engine.info)
    found = await detect_all(engine, head, (picture_of(next(frames_of(path))) for path in pictures), PLATES)
    await engine.close()
    for one, path in zip(found, pictures, strict=True):
        expected = find_plates(model, head, path)
        np.testing.assert_allclose(one.boxes, expected.boxes, atol=2)
        np.testing.assert_allclose(one.confidence, expected.confidence, atol=0.01)


@real
def test_a_plate_detector_is_built_for_a_server(shared_data: Path, tmp_path: Path) -> None:
    options = BuildOptions(repository=tmp_path, verify=(shared_data / "plates" / "images" / "police.jpg",))
    source = shared_data / "plates" / "models" / "mnet_plate.onnx"
    built = build(source, options)
    assert built.head == "retinaface with corners"
    found = inspect(built.folder.parent)
    assert [tensor.shape for tensor in found.outputs] == [(1, 16800, 4), (1, 16800, 2), (1, 16800, 8)]
    assert found.labels == ("plate",)
    with pytest.raises(ModelError, match="keypoints would be lost"):
        build(source, replace(options, fuse_suppression=True))


@real
def test_persons_are_told_apart(shared_data: Path) -> None:
    model = Model(shared_data / "models" / "osnet_x0_25_msmt17.onnx")
    picture = read_bgr(shared_data / "images" / "bus.jpg")[:, :, ::-1]
    boxes = [*PERSONS, *((x1 + 8, y1 + 6, x2 + 8, y2 + 6) for x1, y1, x2, y2 in PERSONS)]
    crops = [resized(picture[y1:y2, x1:x2], (128, 256)) for x1, y1, x2, y2 in boxes]
    images = (planes(crops) / np.float32(255) - IMAGENET_MEAN) / IMAGENET_DEVIATION
    reader = model.head(images, WantedHead(kind="embedding"))
    assert isinstance(reader, EmbeddingReader)
    outputs = model.run(images)
    embeddings = np.stack([reader.read(outputs, row).embedding for row in range(len(images))])
    cosines = similarities(embeddings[:3], embeddings)
    same, different = cosines[:, 3:].diagonal(), cosines[:, :3][~np.eye(3, dtype=bool)]
    assert same.min() >= 0.9
    assert different.max() <= 0.6


@real
def test_which_way_up_a_text_is(shared_data: Path) -> None:
    model = Model(shared_data / "text" / "ppocr_cls.onnx")
    upright: UInt8Array = np.full((48, 192, 3), 255, dtype=np.uint8)
    cv2.putText(upright, "GATE 4 left", (6, 33), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2, cv2.LINE_AA)
    images = planes([upright, upright[::-1, ::-1]]) / 127.5 - 1
    reader = model.head(images, WantedHead(labels=("0", "180"), top=2))
    assert isinstance(reader, ClassifierReader)
    outputs = model.run(images)
    read = [reader.read(outputs, row).labels for row in range(2)]
    assert [labels[0][0] for labels in read] == ["0", "180"]
    assert all(sum(confidence for _, confidence in labels) == pytest.approx(1, abs=1e-3) for labels in read)


async def test_a_classifier_in_an_engine(tmp_path: Path) -> None:
    path = save_means(tmp_path / "colours.onnx")
    engine = await open_engine(EngineConfig(kind="onnxruntime"), ModelConfig(path=path))
    reader = recognise_secondary(engine.info, WantedHead(top=2))
    assert isinstance(reader, ClassifierReader)
    async with engine.lease() as slot:
        slot.images[0] = (10, 250, 90)
        read = reader.read(await engine.infer(slot, 1), 0)
    await engine.close()
    assert [name for name, _ in read.labels] == ["green", "blue"]
