"""What is on plates, found by one request to the real server: what its models say when asked one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput

from streamproc.config import PixelsConfig
from streamproc.models.heads import TextRead
from streamproc.models.secondary import WantedHead, recognise_secondary
from streamproc.packing import pack_into
from streamproc.repository.build import build
from streamproc.repository.from_cascade import build_cascade
from streamproc.repository.options import BuildOptions
from streamproc.serving.graph import Graph
from streamproc.serving.plan import PICTURES, Plan, served_name
from streamproc.types import UInt8Array
from tests.integration.test_plates import CHINESE, PIXELS, READ
from tests.pictures import read_picture
from tests.served import built_plan
from tests.triton import connected

pytestmark = pytest.mark.shared_data

CAR = {"expand": 0.05, "min_size": 48}
READER = {"name": "lprnet_cn", "head": "ctc", "alphabet": CHINESE, "crop": {"min_size": 8, "straighten": True}}
MODELS = {
    "plates": {"name": "mnet_plate", "classes": ["car", "truck", "bus"], "confidence": 0.5, "crop": CAR},
    "text": {**READER, "on": "plates"},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("plates")
    python: dict[str, Any] = {"repository": folder / "models", "instances": 1, "backend": "python", "precision": "fp32"}
    build(shared_data / "models" / "yolov8n.onnx", BuildOptions(**python))
    build(shared_data / "plates" / "models" / "mnet_plate.onnx", BuildOptions(**python))
    pixels = PixelsConfig.model_validate(PIXELS)
    text = shared_data / "plates" / "models" / "lprnet_cn.onnx"
    build(text, BuildOptions(**python, head="ctc", fit="stretch", pixels=pixels, max_batch=32))
    build(shared_data / "text" / "ppocr_det.onnx", BuildOptions(**python, size=(640, 640)))
    path = folder / "cameras.yaml"
    cameras = {"gate": {"url": "rtsp://127.0.0.1/"}}
    # A straight line has no instances of its own.
    for name, models, instances in (("yolov8n", MODELS, 1), ("ppocr_det", {"text": READER}, None)):
        config = {"engine": {"kind": "triton"}, "model": {"name": name}, "models": models, "cameras": cameras}
        path.write_text(yaml.safe_dump(config, allow_unicode=True))
        wanted: dict[str, Any] = {"repository": folder / "models", "backend": "ensemble"}
        build_cascade(path, BuildOptions(**wanted, instances=instances))
    return folder / "models"


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[InferenceServerClient]:
    with connected(repository) as client:
        yield client


def packed(plan: Plan, path: Path) -> UInt8Array:
    """A picture as a client sends what a camera gave."""
    rows = np.zeros((1, *plan.pictures.shape), np.uint8)
    pack_into(read_picture(path), rows[0])
    return rows


def ask(client: InferenceServerClient, model: str, pictures: UInt8Array, tensor: str) -> dict[str, NDArray[Any]]:
    given = InferInput(tensor, list(pictures.shape), "UINT8")
    given.set_data_from_numpy(pictures)
    answer = client.infer(model, [given], client_timeout=60)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def ask_both(client: InferenceServerClient, plan: Plan, path: Path) -> list[dict[str, NDArray[Any]]]:
    """What the cascade answers, and what its models do when they are asked one by one from here."""

    def call(name: str, rows: UInt8Array) -> dict[str, NDArray[Any]]:
        info = plan.model(name).info
        return ask(client, info.name, rows, info.inputs[0].name)

    picture = packed(plan, path)
    return [ask(client, served_name(plan.detector.info.name), picture, PICTURES), Graph(plan).run(picture, call)]


def texts(plan: Plan, answer: dict[str, NDArray[Any]]) -> list[str]:
    """What is read on each plate."""
    reader = recognise_secondary(plan.model("text").info, WantedHead(kind="ctc", alphabet=CHINESE))
    found = []
    for row in np.flatnonzero(answer["text.parent"][0] >= 0).tolist():
        read = reader.read({"logits": answer["text.logits"][0]}, row)  # type: ignore[union-attr]  # it is a reader
        assert isinstance(read, TextRead)
        found.append(read.text)
    return found


def calls(client: InferenceServerClient, model: str) -> int:
    count: int = client.get_inference_statistics(model).model_stats[0].execution_count
    return count


def test_plates_are_read_and_nothing_is_where_there_are_none(
    repository: Path, client: InferenceServerClient, shared_data: Path
) -> None:
    plan = built_plan(repository, "yolov8n")
    for name in ("cn_car_2", "single_green"):
        found, expected = ask_both(client, plan, shared_data / "plates" / "images" / f"{name}.jpg")
        assert texts(plan, found) == texts(plan, expected)
        assert set(texts(plan, found)) == {READ[name]}  # once on each car that it is on
        for tensor in ("plates.looked", "plates.parent", "text.looked", "text.parent"):
            assert np.array_equal(found[tensor], expected[tensor])
        for tensor in ("detections", "plates.objects", "plates.keypoints"):
            np.testing.assert_allclose(found[tensor], expected[tensor], atol=0.05)
    before = calls(client, "mnet_plate"), calls(client, "lprnet_cn")
    answer = ask(client, "yolov8n_cascade", packed(plan, shared_data / "images" / "bus.jpg"), PICTURES)
    assert answer["plates.looked"].sum() == 1  # the bus, on which no plate is found
    assert (calls(client, "mnet_plate"), calls(client, "lprnet_cn")) == (before[0] + 1, before[1])


@pytest.mark.parametrize("name", ["cn_car_2", "cn_car_4"])
def test_texts_are_found_and_read_in_a_straight_line(
    repository: Path, client: InferenceServerClient, shared_data: Path, name: str
) -> None:
    plan = built_plan(repository, "ppocr_det")
    found, expected = ask_both(client, plan, shared_data / "plates" / "images" / f"{name}.jpg")
    assert texts(plan, found) == texts(plan, expected) == [READ[name]]
    for tensor in ("text.looked", "text.parent"):
        assert np.array_equal(found[tensor], expected[tensor])
    for tensor in ("detections", "keypoints"):
        np.testing.assert_allclose(found[tensor], expected[tensor], atol=0.05)
