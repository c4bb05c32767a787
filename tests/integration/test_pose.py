"""YOLOv8-pose from a picture to keypoints in its pixels: people are where they are, and the right way up."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.engines.openvino import OpenVinoEngine
from streamproc.models.heads import Thresholds
from streamproc.models.heads.pose import PoseLayout
from streamproc.models.spec import recognise
from streamproc.repository.inspection import inspect
from streamproc.types import Detections
from tests.detecting import detect_all
from tests.engines import open_model
from tests.pictures import frames_of, picture_of

pytestmark = pytest.mark.shared_data

FILE = Path("models") / "openvino" / "yolov8n-pose_int8.xml"
SURE = Thresholds(confidence=0.5, iou=0.45, class_ids=None, max_detections=300)
CLEAR = 0.5
NOSE, EYES, SHOULDERS, HIPS, KNEES, ANKLES = (0,), (1, 2), (5, 6), (11, 12), (13, 14), (15, 16)
DOWNWARDS = (EYES, NOSE, SHOULDERS, HIPS, KNEES, ANKLES)


async def people_in(shared_data: Path, *pictures: str) -> list[Detections]:
    engine = await open_model(OpenVinoEngine, shared_data / FILE, name=FILE.stem)
    try:
        head = recognise(engine.info)
        assert (head.labels, head.pose) == (("person",), PoseLayout(classes=1, keypoints=17, values=3))
        frames = [next(frames_of(shared_data / "images" / name)) for name in pictures]
        return await detect_all(engine, head, [picture_of(frame) for frame in frames], SURE)
    finally:
        await engine.close()


def heights(keypoints: NDArray[np.float32]) -> list[float]:
    """The y of each part of a person that is clear to see, from the eyes down."""
    parts = [keypoints[list(part)] for part in DOWNWARDS]
    return [float(part[:, 1].mean()) for part in parts if (part[:, 2] > CLEAR).all()]


async def test_keypoints_of_people(shared_data: Path) -> None:
    bus, zidane = await people_in(shared_data, "bus.jpg", "zidane.jpg")
    assert (len(bus), len(zidane)) == (3, 2)
    for found, (width, height) in ((bus, (810, 1080)), (zidane, (1280, 720))):
        assert found.keypoints is not None
        assert found.keypoints.shape == (len(found), 17, 3)
        assert ((found.keypoints >= 0) & (found.keypoints <= (width, height, 1))).all()
        for box, keypoints in zip(found.boxes, found.keypoints, strict=True):
            clear = keypoints[keypoints[:, 2] > CLEAR, :2]
            assert len(clear) >= 9
            margin = 0.05 * (box[2:] - box[:2])
            assert ((clear >= box[:2] - margin) & (clear <= box[2:] + margin)).all()
            assert heights(keypoints) == sorted(heights(keypoints))


async def test_left_and_right_are_those_of_the_person(shared_data: Path) -> None:
    bus, zidane = await people_in(shared_data, "bus.jpg", "zidane.jpg")
    assert bus.keypoints is not None
    assert zidane.keypoints is not None
    # All who face the camera: their left is on the right of the picture.
    for keypoints in (*bus.keypoints[np.argsort(bus.boxes[:, 0])[:2]], *zidane.keypoints):
        for left, right in (EYES, SHOULDERS):
            if (keypoints[[left, right], 2] > CLEAR).all():
                assert keypoints[left, 0] > keypoints[right, 0]
    # And where they are in zidane.jpg, as seen by eye: the noses of both, and the wrist of the arm that points.
    ancelotti, zinedine = zidane.keypoints[np.argsort(-zidane.boxes[:, 0])]
    np.testing.assert_allclose(ancelotti[0, :2], (1000, 200), atol=15)
    np.testing.assert_allclose(zinedine[0, :2], (655, 350), atol=15)
    np.testing.assert_allclose(zinedine[9, :2], (965, 490), atol=25)


def test_the_file_is_taken_for_what_it_is(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = inspect(shared_data / FILE)
    assert (found.head, found.labels, found.engines) == ("yolo pose", ("person",), ("openvino",))
    assert "taken for that of a pose model" in caplog.text
