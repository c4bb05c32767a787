"""The books: sums, ages, logs."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.telemetry import (
    AgeHistogram,
    CameraLedger,
    DropReason,
    RateLimitedLog,
    RedactingFilter,
    Stage,
    StatusBoard,
    redact,
)
from streamproc.types import CameraState


def test_reasons_have_distinct_labels() -> None:
    assert len({reason.label for reason in DropReason}) == len(DropReason)


@given(st.lists(st.sampled_from(["received", "decoded", "inferred", "published", *DropReason]), max_size=200))
def test_closed_books_add_up_whatever_happened(events: list[str | DropReason]) -> None:
    """Only events that could happen are applied: a frame leaves a stage after it entered it."""
    ledger = CameraLedger("gate")
    for event in events:
        room = ledger.tally().in_flight()
        match event:
            case "received":
                ledger.received()
            case "decoded" if room[Stage.DECODE] > 0:
                ledger.decoded(1)
            case "inferred" if room[Stage.INFER] > 0:
                ledger.inferred()
            case "published" if room[Stage.PUBLISH] > 0:
                ledger.published(12.0, 2)
            case DropReason() if room[event.stage] > 0:
                ledger.dropped(event)
            case _:
                pass
    ledger.close()
    tally = ledger.tally()
    assert set(tally.in_flight().values()) == {0}
    assert tally.received == tally.published + sum(tally.dropped.values())


@given(st.lists(st.floats(0.2, 50_000), min_size=1, max_size=300))
def test_percentiles_are_within_a_bin_of_the_truth(ages: list[float]) -> None:
    histogram = AgeHistogram()
    for age in ages:
        histogram.add(age)
    for percent in (50, 95, 99):
        value = histogram.percentile(percent)
        exact = float(np.percentile(ages, percent, method="inverted_cdf"))
        assert value == pytest.approx(exact, rel=0.021, abs=0.01)
    assert histogram.max_ms == pytest.approx(max(ages), abs=0.01)


def test_an_empty_histogram_says_so() -> None:
    histogram = AgeHistogram()
    assert histogram.percentile(99) is None
    assert histogram.max_ms is None


def test_merged_histograms_hold_both() -> None:
    one, other = AgeHistogram(), AgeHistogram()
    one.add(10)
    other.add(1000)
    one.merge(other)
    assert one.max_ms == 1000
    assert one.percentile(50) == pytest.approx(10, rel=0.02)


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
