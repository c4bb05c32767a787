"""A pose model through the whole program: from a video to keypoints of tracked people."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from streamproc.messages import decode_detections
from tests.e2e.harness import streamproc, write_config
from tests.pictures import frames_of
from tests.schemas import faults

FRAMES = 6
SIZE = (540, 720)


def write_still(path: Path, picture: Path) -> Path:
    """A video of one picture."""
    (still,) = frames_of(picture)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "veryfast", "threads": "1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        frame = still.reformat(*SIZE, format="yuv420p", dst_color_range="MPEG")
        for index in range(FRAMES):
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.shared_data
def test_keypoints_of_tracked_people_are_published(tmp_path: Path, shared_data: Path) -> None:
    found = tmp_path / "found.jsonl"
    config = write_config(
        tmp_path,
        model={"path": shared_data / "models" / "openvino" / "yolov8n-pose_int8.xml", "confidence": 0.5},
        file={"path": str(found)},
        video={"path": str(tmp_path / "drawn.mp4")},
        cameras={
            "stop": {"url": write_still(tmp_path / "bus.mp4", shared_data / "images" / "bus.jpg"), "realtime": False}
        },
    )
    done = streamproc("run", config)
    assert done.code == 0, done.err
    lines = found.read_bytes().splitlines()
    schema = json.loads(streamproc("schema", "detections").out)
    assert len(lines) == FRAMES
    for line in lines:
        assert faults(json.loads(line), schema, schema["$defs"]) == []
        message = decode_detections(line)
        assert len(message.detections) >= 3
        for person in message.detections:
            assert person.label == "person"
            keypoints = np.array(person.keypoints)
            assert keypoints.shape == (17, 3)
            x1, y1, x2, y2 = person.box
            inside = (keypoints[:, :2] >= (x1 - 15, y1 - 15)) & (keypoints[:, :2] <= (x2 + 15, y2 + 15))
            assert inside[keypoints[:, 2] > 0.5].all()
    assert all(person.track_id for person in decode_detections(lines[-1]).detections)
    with av.open(str(tmp_path / "drawn.mp4")) as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == FRAMES
