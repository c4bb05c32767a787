"""A machine that decodes too slowly: what comes is sound and in time, and what is left out is in the books."""

from __future__ import annotations

import threading
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader
from streamproc.types import Frame
from tests.cameras import serve
from tests.integration.sources.reading import Reading, assert_closed, read_files
from tests.integration.sources.test_partial import CODINGS, assert_same_pictures
from tests.media import write_video

FRAMES, GOP, RATE = 120, 12, 25
LATE_S = 0.03
MS = 1_000_000


class Machine(threading.Event):
    """A clock that stands still but for what is waited, and ``cost_ms`` a picture."""

    def __init__(self, cost_ms: float) -> None:
        super().__init__()
        self.now_ns = 5_000_000_000
        self.ages_ms: list[float] = []
        self._cost_ns = round(cost_ms * MS)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now_ns += round(timeout * 1e9)
        return self.is_set()

    def keep(self, frame: Frame) -> Frame:
        self.ages_ms.append(frame.age_ms(self.now_ns))
        self.now_ns += self._cost_ns
        return frame

    def play(self, path: Path, late_s: float | None) -> Reading:
        return read_files(path, realtime=True, stop=self, clock_ns=lambda: self.now_ns, keep=self.keep, late_s=late_s)


@pytest.mark.parametrize("coding", [*CODINGS, "mjpeg"])
def test_what_is_decoded_is_sound_and_the_rest_is_left_out(tmp_path: Path, coding: str) -> None:
    options: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p"} if coding == "mjpeg" else CODINGS[coding]
    path = write_video(tmp_path / "v.mkv", frames=FRAMES, gop=GOP, **options)
    played = Machine(cost_ms=1.5e3 / RATE).play(path, LATE_S)
    assert played.errors == []
    assert_closed(played.tally)
    assert_same_pictures(played, read_files(path))
    assert played.tally.received == FRAMES
    lost = played.tally.dropped
    assert sum(lost.values()) == FRAMES - len(played.frames)
    # Behind the keyframe of an open group come pictures that need those before it.
    assert lost["behind"] > GOP
    assert coding == "h264 pyramid" or lost["behind"] == sum(lost.values())
    assert FRAMES / 4 < len(played.frames) < FRAMES * 0.8


def test_pictures_are_younger_for_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames=FRAMES, gop=GOP)
    with_limit, without = Machine(1.5e3 / RATE), Machine(1.5e3 / RATE)
    with_limit.play(path, LATE_S)
    without.play(path, None)
    assert median(with_limit.ages_ms) <= 1.5e3 * LATE_S
    assert median(without.ages_ms) > 3e3 * LATE_S


def test_a_machine_that_is_fast_enough_leaves_nothing_out(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames=FRAMES, gop=GOP)
    played = Machine(cost_ms=0.9e3 / RATE).play(path, LATE_S)
    assert len(played.frames) == FRAMES
    assert set(Machine(cost_ms=0.9e3 / RATE).ages_ms) <= {0.0}


def test_nor_does_one_that_stood_still_for_a_moment(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames=FRAMES, gop=GOP)
    machine = Machine(cost_ms=5)
    keep = machine.keep

    def stumble(frame: Frame) -> Frame:
        if frame.seq == FRAMES // 2:
            machine.now_ns += 150 * MS
        return keep(frame)

    machine.keep = stumble  # type: ignore[method-assign]
    assert len(machine.play(path, LATE_S).frames) == FRAMES


def test_of_a_camera_on_the_network_no_backlog_grows(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=FRAMES, gop=GOP)
    frames, ledger, stop, busy = list[Frame](), CameraLedger("cam"), threading.Event(), threading.Event()

    def emit(frame: Frame) -> None:
        frames.append(frame)
        busy.wait(1.5 / RATE)
        if frame.pts_s > 0.8 * FRAMES / RATE:
            stop.set()

    reader = AvReader("cam", emit=emit, ledger=ledger, on_online=lambda: None, stop=stop, late_s=LATE_S)
    with serve(path) as port:
        reader.read_stream(f"rtsp://127.0.0.1:{port}/cam", "tcp")
    ledger.close()
    assert_closed(ledger.tally())
    assert ledger.tally().dropped["behind"] > GOP
    assert GOP < len(frames) < FRAMES * 0.8
