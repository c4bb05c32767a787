"""When a reader that has fallen behind leaves pictures out, and when it does not."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import cast

import pytest
from av.packet import Packet
from av.video.stream import VideoStream

from streamproc.sources.backlog import Backlog

MS = 1_000_000
PERIOD_MS = 40
LIMIT_MS = 30
PATIENCE_MS = Backlog.PATIENCE_NS // MS


def make_packet() -> Packet[VideoStream]:
    return cast("Packet[VideoStream]", Packet(1))


class Reader:
    """A reader with a clock of its own, of a camera whose pictures take ``step_ms`` by its own timestamps."""

    def __init__(self, limit_ms: float | None = LIMIT_MS, step_ms: float = PERIOD_MS) -> None:
        self.now_ns = 5_000_000_000
        self._step_ms = step_ms
        self._sent = 0
        self.backlog = Backlog("cam", None if limit_ms is None else limit_ms / 1e3, clock_ns=lambda: self.now_ns)
        self.backlog.begin(PERIOD_MS / 1e3, held=False)

    def file(self, lag_ms: float, took_ms: float = PERIOD_MS) -> int:
        """A picture of a file, decoded so late; what to leave out then."""
        self.now_ns += round(took_ms * MS)
        self.backlog.decoded(self.now_ns - round(lag_ms * MS))
        return self.backlog.excess()

    def camera(self, *, waited_ms: float, busy_ms: float) -> int:
        """A packet that was waited for, after so much other work; what to leave out then."""
        self.now_ns += round(busy_ms * MS)
        asked_ns = self.now_ns
        self.now_ns += round(waited_ms * MS)
        packet = make_packet()
        packet.time_base = Fraction(1, 90_000)
        packet.dts = packet.pts = round(self._sent * self._step_ms * 90)
        self._sent += 1
        self.backlog.arrived(packet, asked_ns, self.now_ns)
        return self.backlog.excess()


def test_a_moment_of_lateness_is_left_to_be_made_up_for() -> None:
    reader = Reader()
    assert [reader.file(lag_ms) for lag_ms in (0, 120, 80, 40, 20, 90, 0)] == [0] * 7


def test_a_reader_that_stays_behind_leaves_out_what_it_is_behind_by() -> None:
    reader = Reader()
    assert [reader.file(lag_ms) for lag_ms in (35, 40, 50, 60)] == [0, 0, 0, 2]


def test_after_that_it_has_time_to_catch_up_again() -> None:
    reader = Reader()
    answers = [reader.file(90) for _ in range(8)]
    assert answers == [0, 0, 0, 3, 0, 0, 0, 3]


def test_without_a_limit_nothing_is_ever_left_out() -> None:
    reader = Reader(limit_ms=None)
    assert [reader.file(5_000) for _ in range(50)] == [0] * 50


def test_a_camera_whose_packets_are_waited_for_has_no_backlog() -> None:
    reader = Reader()
    assert [reader.camera(waited_ms=30, busy_ms=10) for _ in range(50)] == [0] * 50


def test_nor_has_one_whose_timestamps_are_wrong() -> None:
    """Its clock says 20 ms a picture, and they come every 40: by that alone it would look later and later."""
    reader = Reader(step_ms=20)
    assert [reader.camera(waited_ms=30, busy_ms=10) for _ in range(50)] == [0] * 50


def test_a_camera_read_more_slowly_than_it_sends_has_one() -> None:
    reader = Reader()
    answers = [reader.camera(waited_ms=0.1, busy_ms=60) for _ in range(12)]
    first = next(index for index, answer in enumerate(answers) if answer)
    behind_ms = first * (60.1 - PERIOD_MS)
    assert behind_ms > LIMIT_MS
    assert behind_ms / PERIOD_MS <= answers[first] <= behind_ms / PERIOD_MS + 1


def test_a_packet_without_a_timestamp_tells_nothing() -> None:
    reader = Reader()
    reader.camera(waited_ms=0, busy_ms=60)
    for _ in range(20):
        reader.now_ns += 60 * MS
        reader.backlog.arrived(make_packet(), reader.now_ns, reader.now_ns)
        assert reader.backlog.excess() == 0


def test_a_new_connection_begins_without_a_backlog() -> None:
    reader = Reader()
    reader.file(90)
    reader.backlog.begin(PERIOD_MS / 1e3, held=False)
    assert reader.file(90, took_ms=PATIENCE_MS) == 0


def test_the_log_says_so_with_a_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="streamproc"):
        reader = Reader()
        assert sum(reader.file(90) for _ in range(8)) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "camera cam: decoding is 0.09 s behind; pictures are left out up to a keyframe. Use fewer cameras, a smaller "
        "picture or frame rate, or decode: nonref."
    ]
