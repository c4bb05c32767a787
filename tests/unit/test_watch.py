"""What `streamproc watch` makes of a message."""

from __future__ import annotations

import json

import pytest

from streamproc.watch import _line

MESSAGE = {
    "schema": "streamproc.detections/1",
    "site": "depot",
    "camera": "gate",
    "seq": 12,
    "pts_s": 0.5,
    "captured_at": "2026-11-20T15:04:05.123Z",
    "age_ms": 38.2,
    "width": 64,
    "height": 36,
    "model": "m",
    "detections": [{"track_id": 7, "class_id": 0, "label": "person", "confidence": 0.9, "box": [1, 2, 3, 4]}],
}


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ({}, "depot/gate #12 15:04:05.123 38 ms: 1 person (tracks 7)"),
        ({"predicted": True}, "depot/gate #12 15:04:05.123 38 ms, predicted: 1 person (tracks 7)"),
        ({"detections": [], "predicted": True}, "depot/gate #12 15:04:05.123 38 ms, predicted: nothing"),
    ],
)
def test_a_line_says_whether_it_is_predicted(added: dict[str, object], line: str) -> None:
    assert _line("streamproc/depot/gate/detections", json.dumps(MESSAGE | added).encode()) == line
