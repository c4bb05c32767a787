"""Built models in the real server: it takes their configurations, and they answer what their source answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray

from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, PixelsConfig, SecondaryConfig
from streamproc.engines.onnxruntime import OnnxRuntimeEngine
from streamproc.engines.triton import TritonEngine
from streamproc.graphs.openvino_int8 import OpenVinoGraph, OpenVinoSession
from streamproc.models.heads import Answer, Classified, TextRead, Thresholds
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.heads.yolo import RawDecoder
from streamproc.models.spec import Head, recognise
from streamproc.preprocess import crop_into
from streamproc.repository.build import build
from streamproc.repository.options import BuildOptions
from streamproc.repository.policy import VersionPolicy
from streamproc.repository.session import Session
from streamproc.repository.versions import serve_versions
from streamproc.secondary import Secondary, open_secondaries
from streamproc.types import Detections, Picture
from tests.detecting import detect_all
from tests.engines import open_model
from tests.pictures import frames_of, make_picture, picture_of
from tests.tiny_models import save_means
from tests.triton import RunningServer, running_server
from tests.unit.repository.detectors import save_convolutional, save_detector, save_picture

_MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "suppressed": {"fuse_suppression": True, "max_detections": 20, "runtime": "onnxruntime"},
    "suppressed-openvino": {"fuse_suppression": True, "max_detections": 20},
    "floats": {"fuse_intake": False},
    "alone": {"max_batch": 0, "runtime": "onnxruntime"},
    "queued": {"priority_levels": 3, "queue_delay_us": 200, "queue_timeout_ms": 5000, "queue_size": 4, "max_batch": 2},
    "several": {"version_policy": VersionPolicy(latest=None)},
}


# YOLOX takes blue, green and red up to 255, in the top left corner: by its graph, by its outputs, by its parameters.
_GRIDS: dict[str, dict[str, Any]] = {
    "grid": {},
    "grid-floats": {"fuse_intake": False},
    "grid-suppressed": {"fuse_suppression": True},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    source = save_detector(folder / "tiny.onnx")
    brighter = save_detector(folder / "brighter.onnx", brighter=0.5)
    for name, options in _MODELS.items():
        shared: dict[str, Any] = {"repository": folder / "models", "name": name, "backend": "python", "instances": 1}
        build(source, BuildOptions(**shared, precision="auto" if "runtime" in options else "fp32", **options))
    for _ in range(2):
        build(brighter, BuildOptions(**shared, precision="fp32"))
    save_picture(folder / "calibration.png")
    small = save_convolutional(folder / "small.onnx")
    shared["name"] = "int8"
    build(small, BuildOptions(**shared, precision="int8", calibration=folder / "calibration.png"))
    grid = save_detector(folder / "grid.onnx", layout="grid")
    for name, options in _GRIDS.items():
        shared["name"] = name
        build(grid, BuildOptions(**shared, precision="fp32", **options))
    return folder / "models"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[RunningServer]:
    with running_server(repository) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as opened:
        yield opened


def ask(client: triton.InferenceServerClient, name: str, values: NDArray[Any], *, version: str = "") -> NDArray[Any]:
    config = client.get_model_config(name, version).config
    dtype = {"TYPE_UINT8": "UINT8", "TYPE_FP32": "FP32"}[
        type(config).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[config.input[0].data_type].name
    ]
    tensor = triton.InferInput(config.input[0].name, values.shape, dtype)
    tensor.set_data_from_numpy(values)
    answer = client.infer(name, [tensor], model_version=version, client_timeout=30)
    result: NDArray[Any] = answer.as_numpy(config.output[0].name)
    return result


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("plain", 1),
        ("plain", 8),
        ("suppressed", 5),
        ("suppressed-openvino", 5),
        ("alone", 1),
        ("queued", 2),
        ("floats", 3),
    ],
)
def test_answers_equal_those_of_the_graph(
    repository: Path, client: triton.InferenceServerClient, name: str, count: int
) -> None:
    values: NDArray[Any] = pictures(count)
    if name == "floats":
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    graph = Session((repository / name / "1" / "model.onnx").read_bytes(), name)
    (expected,) = graph.run(values).values()
    assert np.allclose(ask(client, name, values), expected, rtol=1e-3, atol=1e-3)


def test_int8_answers_as_in_process(repository: Path, client: triton.InferenceServerClient) -> None:
    folder = repository / "int8" / "1"
    graph = OpenVinoGraph(xml=(folder / "model.xml").read_bytes(), weights=(folder / "model.bin").read_bytes())
    images = pictures(3)
    (expected,) = OpenVinoSession(graph).run(images).values()
    found = ask(client, "int8", images)
    assert np.abs(found[:, 4:] - expected[:, 4:]).mean() < 0.01  # the server computes the rest in bfloat16
    assert np.abs(found[:, :4] - expected[:, :4]).mean() < 0.5


def test_every_version_of_a_policy_is_served(repository: Path, client: triton.InferenceServerClient) -> None:
    images = pictures(1)
    first, second = (ask(client, "several", images, version=version)[:, 4:].sum() for version in "12")
    assert second == pytest.approx(first / 2, rel=1e-3)


def test_rolling_back(repository: Path, client: triton.InferenceServerClient) -> None:
    for policy, versions in (("1", {"1"}), ("latest:2", {"2", "3"}), ("all", {"1", "2", "3"})):
        serve_versions(repository, "several", VersionPolicy.parse(policy))
        client.load_model("several")
        ready = {
            model.version for model in client.get_model_repository_index().models
            if model.name == "several" and model.state == "READY"
        }  # fmt: skip
        assert ready == versions


def test_a_new_version_is_loaded_beside_others(repository: Path, client: triton.InferenceServerClient) -> None:
    source = repository.parent / "tiny.onnx"
    shared: dict[str, Any] = {"repository": repository, "backend": "python", "instances": 1, "precision": "fp32"}
    built = build(source, BuildOptions(**shared, name="plain"))
    client.load_model("plain")
    assert client.is_model_ready("plain", str(built.version))
    shutil.rmtree(built.folder)


@pytest.mark.parametrize("name", _GRIDS)
async def test_a_served_model_gets_the_pictures_it_wants(repository: Path, server: RunningServer, name: str) -> None:
    local = await open_model(OnnxRuntimeEngine, repository.parent / "grid.onnx", name="grid")
    served = await TritonEngine.open(EngineConfig(kind="triton", url=server.url), ModelConfig(name=name))
    picture = make_picture(*(np.full(shape, 160, np.uint8) for shape in ((90, 120), (45, 60), (45, 60))))
    usual = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)
    try:
        assert served.info.fit == local.info.fit == "top_left"
        (expected,) = await detect_all(local, recognise(local.info), [picture], usual)
        (found,) = await detect_all(served, recognise(served.info), [picture], usual)
    finally:
        await served.close()
        await local.close()
    assert len(expected) > 2
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-3)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.1)


CHINESE = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新0123456789ABCDEFGHJKLMNPQRSTUVWXYZIO"
DETECTOR = Head(labels=("car",), decoder=RawDecoder("output0", 1))


def cascade(engine: EngineConfig, **models: dict[str, Any]) -> Config:
    return Config(
        engine=engine,
        model=ModelConfig(name="any"),
        models={name: SecondaryConfig(**keys) for name, keys in models.items()},
        cameras={"gate": CameraConfig(url="rtsp://127.0.0.1/")},
    )


def turned(picture: Picture) -> Picture:
    """The same, upside down."""
    return replace(picture, rotation=180)


async def look(secondary: Secondary, pictures: Sequence[Picture]) -> list[Answer]:
    """What a model says of whole pictures, as many at a time as its engine takes."""
    answers: list[Answer] = []
    most = secondary.engine.max_batch
    for batch in (pictures[start : start + most] for start in range(0, len(pictures), most)):
        async with secondary.engine.lease() as slot:
            boxes = [
                crop_into(picture, (0, 0, *picture.size), row, fit=secondary.engine.info.fit)
                for picture, row in zip(batch, slot.images, strict=False)
            ]
            outputs = await secondary.engine.infer(slot, len(batch))
            answers += [secondary.read(outputs, row, box) for row, box in enumerate(boxes)]
    return answers


async def test_a_served_classifier_tells_its_classes_and_how_its_pictures_lie(
    repository: Path, server: RunningServer, client: triton.InferenceServerClient
) -> None:
    source = save_means(repository.parent / "colours.onnx")
    options = BuildOptions(repository=repository, backend="python", instances=1, precision="fp32", fit="letterbox")
    build(source, replace(options, labels=("rouge", "vert", "bleu")))
    client.load_model("colours")
    config = cascade(EngineConfig(kind="triton", url=server.url), colour={"name": "colours", "top": 3})
    green = make_picture(np.full((32, 32), 150, np.uint8), *np.full((2, 16, 16), 50, np.uint8))
    async with open_secondaries(config, DETECTOR) as secondaries:
        assert secondaries["colour"].engine.info.fit == "letterbox"
        assert isinstance(secondaries["colour"].head, ClassifierReader)
        (answer,) = await look(secondaries["colour"], [green])
    assert isinstance(answer, Classified)
    assert [label for label, _ in answer.labels] == ["vert", "rouge", "bleu"]


@pytest.mark.shared_data
async def test_plates_are_found_and_read_as_in_process(
    shared_data: Path, repository: Path, server: RunningServer, client: triton.InferenceServerClient
) -> None:
    plates = shared_data / "plates"
    detector, reader = (plates / "models" / name for name in ("mnet_plate.onnx", "lprnet_cn.onnx"))
    pixels = PixelsConfig(color="bgr", mean=(127.5,) * 3, scale=(1 / 128,) * 3)
    options = BuildOptions(repository=repository, backend="python", instances=1, precision="fp32", max_batch=4)
    build(detector, options)
    build(reader, replace(options, head="ctc", pixels=pixels))
    for name in ("mnet_plate", "lprnet_cn"):
        client.load_model(name)
    text = {"on": "plates", "head": "ctc", "alphabet": CHINESE, "max_batch": 4}
    served = cascade(
        EngineConfig(kind="triton", url=server.url), plates={"name": "mnet_plate"}, text={"name": "lprnet_cn", **text}
    )
    local = cascade(
        EngineConfig(kind="openvino", precision="fp32"),
        plates={"path": detector},
        text={"path": reader, "pixels": pixels, **text},
    )
    crops = [picture_of(next(frames_of(path))) for path in sorted((plates / "crops_cn").glob("*.jpg"))[:10]]
    car = picture_of(next(frames_of(plates / "images" / "police.jpg")))
    found, texts = [], []
    for config in (local, served):
        async with open_secondaries(config, DETECTOR) as secondaries:
            found += await look(secondaries["plates"], [car])
            texts.append([one.text for one in await look(secondaries["text"], crops) if isinstance(one, TextRead)])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 10
    expected, other = (one for one in found if isinstance(one, Detections))
    assert len(expected) >= 1
    np.testing.assert_allclose(other.boxes, expected.boxes, atol=0.5)


@pytest.mark.shared_data
async def test_texts_and_their_direction_are_told_as_in_process(
    shared_data: Path, repository: Path, server: RunningServer, client: triton.InferenceServerClient
) -> None:
    lines, direction = (shared_data / "text" / f"ppocr_{name}.onnx" for name in ("det", "cls"))
    pixels = PixelsConfig(color="bgr", mean=(127.5,) * 3, scale=(1 / 127.5,) * 3)
    options = BuildOptions(repository=repository, backend="python", instances=1, precision="fp32")
    assert build(lines, replace(options, size=(640, 384))).head == "text regions"
    way: dict[str, Any] = {"labels": ("0", "180"), "size": (192, 48), "pixels": pixels}
    build(direction, replace(options, head="classifier", **way))
    for name in ("ppocr_det", "ppocr_cls"):
        client.load_model(name)
    served = cascade(
        EngineConfig(kind="triton", url=server.url), lines={"name": "ppocr_det"}, way={"name": "ppocr_cls"}
    )
    local = cascade(
        EngineConfig(kind="openvino", precision="fp32"),
        lines={"path": lines, "size": (640, 384)},
        way={"path": direction, "head": "classifier", **way},
    )
    y = np.full((192, 320), 150, np.uint8)
    cv2.putText(y, "GATE 4 NORTH", (40, 100), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 20, 2, cv2.LINE_AA)
    picture = make_picture(y, *np.full((2, 96, 160), 128, np.uint8))
    upright = make_picture(y[66:114].copy(), *np.full((2, 24, 160), 128, np.uint8))
    answers = []
    for config in (local, served):
        async with open_secondaries(config, DETECTOR) as secondaries:
            found = await look(secondaries["lines"], [picture])
            answers.append((found[0], await look(secondaries["way"], [upright, turned(upright)])))
    (expected, ways), (other, served_ways) = answers
    assert isinstance(expected, Detections)
    assert isinstance(other, Detections)
    assert len(expected) == 1
    assert expected.keypoints is not None
    assert other.keypoints is not None
    np.testing.assert_allclose(other.keypoints, expected.keypoints, atol=0.5)
    for told in (ways, served_ways):
        assert [one.labels[0][0] for one in told if isinstance(one, Classified)] == ["0", "180"]
