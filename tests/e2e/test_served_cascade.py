"""The same cameras with the cascade here and on the server: the same messages, from one request a picture."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamproc.app import run
from streamproc.check import check
from streamproc.config import Config, FileConfig, PixelsConfig, load_config
from streamproc.messages import ChildObject, DetectedObject, DetectionsMessage, decode_detections
from streamproc.repository.build import build
from streamproc.repository.options import BuildOptions
from tests.e2e.harness import assert_sums_close, streamproc, write_config
from tests.tiny_models import save_means
from tests.triton import RunningServer, running_server
from tests.viewers import program

pytestmark = pytest.mark.shared_data

CHINESE = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新0123456789ABCDEFGHJKLMNPQRSTUVWXYZIO"
CANVAS, SMALLER = (1280, 720), (960, 540)
CARS = ("cn_car_3", "cn_car_4", "single_green", "single_yellow")
FRAMES_EACH = 3
MODELS: dict[str, dict[str, Any]] = {
    "again": {"name": "plates", "crop": {"expand": 1.0}, "max_detections": 3, "every_s": 0.1},
    "text": {"name": "lprnet", "on": "again", "head": "ctc", "alphabet": CHINESE, "crop": {"straighten": True}},
    "colour": {"name": "means", "top": 3},
}
GRAPHS = {
    "plates": MODELS,
    "lines": {"text": MODELS["text"] | {"on": "detector", "max_waiting": 8}},
}
"""By the detector's name: one that branches and may end early, and a straight line."""
PIXELS = PixelsConfig(color="bgr", mean=(127.5, 127.5, 127.5), scale=(1 / 128, 1 / 128, 1 / 128))


def write_cars(path: Path, pictures: Path, size: tuple[int, int]) -> None:
    """A video of some pictures of cars, each of which moves a little."""
    width, height = size
    for index in range(len(CARS) * FRAMES_EACH):
        car = cv2.imread(str(pictures / f"{CARS[index // FRAMES_EACH]}.jpg"))
        assert car is not None
        scale = height / car.shape[0]
        shift = width / 3 + 3 * (index % FRAMES_EACH)
        frame = cv2.warpAffine(car, np.array([[scale, 0, shift], [0, scale, 0]]), size, flags=cv2.INTER_AREA)
        cv2.imwrite(str(path.with_name(f"{path.stem}-{index:02}.png")), frame)
    source = ("-framerate", "10", "-i", str(path.with_name(f"{path.stem}-%02d.png")))
    coding = ("-pix_fmt", "yuv420p", "-crf", "12", "-preset", "ultrafast")
    subprocess.run([program("ffmpeg"), "-nostdin", "-v", "error", *source, *coding, str(path)], check=True)


def configured(folder: Path, url: str, detector: str = "plates") -> Config:
    path = write_config(
        folder / detector,
        engine={"kind": "triton", "url": url},
        model={"name": detector},
        models=GRAPHS[detector],
        cameras={
            "gate": {"url": folder / "gate.mp4", "realtime": False},
            "yard": {"url": folder / "yard.mp4", "realtime": False},
        },
    )
    return load_config(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Two videos, and a repository with the models and the cascades of configurations of both."""
    folder, plates = tmp_path_factory.mktemp("cars"), shared_data / "plates"
    for name, size in ("gate", CANVAS), ("yard", SMALLER):
        write_cars(folder / f"{name}.mp4", plates / "images", size)
    shared: dict[str, Any] = {"repository": folder / "models", "backend": "python", "precision": "fp32", "instances": 1}
    build(plates / "models" / "lprnet_cn.onnx", BuildOptions(**shared, name="lprnet", head="ctc", pixels=PIXELS))
    build(save_means(folder / "means.onnx"), BuildOptions(**shared))
    canvas = f"{CANVAS[0]}x{CANVAS[1]}"
    for detector, said in (("plates", "that branches or ends early (BLS)"), ("lines", "in a straight line")):
        build(plates / "models" / "mnet_plate.onnx", BuildOptions(**shared, name=detector))
        (folder / detector).mkdir()
        configured(folder, "grpc://127.0.0.1:1", detector)
        config = folder / detector / "cameras.yaml"
        done = streamproc("models", "build", "--ensemble", config, "-r", folder / "models", "--size", canvas)
        assert done.code == 0, done.err
        assert f"cascade {said}" in done.out
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    with running_server(folder / "models") as running:
        yield running


async def played(folder: Path, config: Config, where: str) -> tuple[list[DetectionsMessage], dict[str, Any]]:
    """The messages of a run, camera by camera, and its report."""
    out = folder / f"{config.model.name}-{where}.jsonl"
    config = config.model_copy(update={"cascade": where, "file": FileConfig(path=str(out))})
    outcome = await run(config, stop=asyncio.Event(), workers=1)
    assert outcome.failures == ()
    assert_sums_close(outcome.report)
    every = [decode_detections(line) for line in out.read_bytes().splitlines()]
    return sorted(every, key=lambda message: (message.camera, message.seq)), outcome.report


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    width, height = (min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1))
    both = max(width, 0.0) * max(height, 0.0)
    return both / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - both)


def assert_same(one: DetectedObject | ChildObject, other: DetectedObject | ChildObject) -> int:
    """The same object, of which the same is said. How many texts that are."""
    assert iou(one.box, other.box) >= 0.99
    assert (one.label, len(one.children)) == (other.label, len(other.children))
    labels = [{name: [each.label for each in some] for name, some in each.attributes.items()} for each in (one, other)]
    texts = [{name: each.text for name, each in each.text.items()} for each in (one, other)]
    assert labels[0] == labels[1]
    assert texts[0] == texts[1]
    return bool(texts[0]) + sum(assert_same(*pair) for pair in zip(one.children, other.children, strict=True))


@pytest.mark.parametrize("detector", list(GRAPHS))
async def test_the_messages_are_the_same(folder: Path, server: RunningServer, detector: str) -> None:
    config = configured(folder, server.url, detector)
    (asked, mine), (served, theirs) = [await played(folder, config, where) for where in ("client", "server")]
    assert len(asked) == len(served) == 2 * len(CARS) * FRAMES_EACH
    texts = {"gate": 0, "yard": 0}
    for message, twin in zip(asked, served, strict=True):
        assert (message.camera, message.seq, message.model) == (twin.camera, twin.seq, twin.model)
        assert [one.track_id for one in message.detections] == [one.track_id for one in twin.detections]
        for one, other in zip(message.detections, twin.detections, strict=True):
            texts[message.camera] += assert_same(one, other)
    assert min(texts.values()) > len(CARS) * FRAMES_EACH / 2
    for name, counts in mine["models"].items():
        there = theirs["models"][name]
        assert (there["batches"], there["mean_size"], there["lost"]) == (0, None, {})
        assert there["crops"] == counts["crops"], name


async def test_it_is_checked(folder: Path, server: RunningServer) -> None:
    config = configured(folder, server.url).model_copy(update={"cascade": "server"})
    (told,) = [finding for finding in await check(config) if finding.subject == "model"]
    assert told.message.startswith(
        "plates_cascade: the whole cascade on the server, retinaface with corners, 1 classes"
    )
    assert "1280x720; kind triton" in told.message
    on_it = "again (retinaface with corners), text (ctc text), colour (classifier)"
    assert told.message.endswith(f"; and on what it finds: {on_it}")
    others = {"plates": config.models["again"], **config.models}
    (refused,) = [one for one in await check(config.model_copy(update={"models": others})) if not one.ok]
    assert "models.plates: found a model; expected again or colour or text" in refused.message
