"""More cameras than the engine has time for, with ``tracking.fill``: every frame has its message, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from streamproc.messages import decode_detections
from tests.e2e.harness import TIMEOUT_S
from tests.viewers import as_cameras_send, live_run

NAMES = ("gate", "plaza", "yard", "crossing")
MESSAGES = 100
PREDICTED = 20
"""Of each camera, at least: one thread infers a third of what comes, and the machine may be busy with other things."""


def wait_for_lines(paths: Sequence[Path]) -> None:
    pause, deadline_s = threading.Event(), time.monotonic() + TIMEOUT_S
    while not all(path.exists() and len(path.read_bytes().splitlines()) > MESSAGES for path in paths):
        assert time.monotonic() < deadline_s, "too few messages came"
        pause.wait(0.1)


def test_what_is_not_inferred_is_predicted(tmp_path: Path, samples: Path) -> None:
    clips = {name: as_cameras_send(samples / f"{name}.mp4", tmp_path, "-s", "640x360") for name in NAMES}
    cameras = {name: {"url": clip, "loop": True} for name, clip in clips.items()}
    overload: dict[str, Any] = {"engine": {"threads": 1, "precision": "fp32"}, "budget": {"max_frame_age_ms": 400}}
    out = str(tmp_path / "{camera}.jsonl")
    with live_run(tmp_path, cameras, tracking={"fill": True}, file={"path": out}, **overload) as run:
        wait_for_lines([Path(out.replace("{camera}", name)) for name in NAMES])
    for name, row in run.report["cameras"].items():
        lines = Path(out.replace("{camera}", name)).read_bytes().splitlines()
        messages = [decode_detections(line) for line in lines]
        predicted = [message for message in messages if message.predicted]
        assert all(one.seq < other.seq and one.pts_s < other.pts_s for one, other in pairwise(messages)), name
        assert row["predicted"] == len(predicted) > PREDICTED, name
        assert row["published"] == len(messages) - len(predicted)
        assert any(message.detections for message in predicted), name
        assert all(found.track_id for message in predicted for found in message.detections)
        assert max(message.age_ms for message in messages) <= 400
