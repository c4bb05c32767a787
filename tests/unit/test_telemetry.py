"""The books: sums, ages, logs."""

from __future__ import annotations

import logging

import pytest

from streamproc.telemetry import RateLimitedLog, RedactingFilter, StatusBoard, redact
from streamproc.types import CameraState


async def test_the_board_keeps_since_until_something_changes() -> None:
    times = iter(range(1, 100))
    board = StatusBoard(["gate", "yard"], utc_ns=lambda: next(times))
    board.set("gate", CameraState.ONLINE)
    since = board.statuses()["gate"].since_utc_ns
    board.set("gate", CameraState.ONLINE)
    assert board.statuses()["gate"].since_utc_ns == since
    board.set("gate", CameraState.OFFLINE, "timeout")
    assert board.statuses()["gate"].reason == "timeout"
    assert board.statuses()["yard"].state is CameraState.CONNECTING


def test_a_repeated_warning_is_one_line_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = RateLimitedLog(logging.getLogger("streamproc.test"), clock=lambda: now[0])
    for _ in range(5):
        log.warning("gate", "camera %s: damaged packet", "gate")
    now[0] = 1.5
    log.warning("gate", "camera %s: damaged packet", "gate")
    assert [record.getMessage() for record in caplog.records] == [
        "camera gate: damaged packet",
        "camera gate: damaged packet (and 4 more like it)",
    ]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("rtsp://u:p@h/s", "rtsp://***@h/s"),
        ("rtsp://u:p@h/s and mqtt://a:b@c", "rtsp://***@h/s and mqtt://***@c"),
        ("rtsp://h/s?mail=a@b", "rtsp://h/s?mail=a@b"),
        ("rtsp://u:p@ss@h/s", "rtsp://***@h/s"),
        ("rtsp://u:p/w@h/s", "rtsp://***@h/s"),
    ],
)
def test_credentials_are_redacted(text: str, safe: str) -> None:
    assert redact(text) == safe


def test_credentials_never_reach_a_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("streamproc.test.redact")
    caplog.handler.addFilter(RedactingFilter())
    logger.warning("cannot open %s", "rtsp://admin:hunter2@10.0.0.5/")
    assert "hunter2" not in caplog.text
