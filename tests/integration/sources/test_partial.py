"""Only part of a camera's pictures: the right ones come out, sound, and the books tell of the others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader
from streamproc.sources.decoder import DecodeMode
from streamproc.sources.supervisor import CameraSource
from streamproc.telemetry import StatusBoard
from streamproc.types import Frame
from tests.integration.sources.reading import Reading, assert_closed, read_files
from tests.media import damage, lose_access_units, write_video

FRAMES, GOP = 60, 15
CODINGS: dict[str, dict[str, Any]] = {
    "h264": {},
    "h264 b-frames": {"options": {"bf": "3", "x264-params": "b-adapt=0"}},
    "h264 pyramid": {"options": {"bf": "3", "x264-params": "b-pyramid=normal:open-gop=1"}},
    "h265": {"codec": "libx265"},
    "h265 b-frames": {"codec": "libx265", "options": {"x265-params": "bframes=3:b-adapt=0:log-level=none"}},
    "mpeg4": {"codec": "mpeg4"},
}


def assert_same_pictures(part: Reading, whole: Reading) -> None:
    expected = dict(zip(whole.numbers, whole.frames, strict=True))
    for number, frame in zip(part.numbers, part.frames, strict=True):
        assert np.array_equal(frame.picture.planes[0], expected[number].picture.planes[0]), f"picture {number}"


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("mode", ["nonref", "keyframes"])
def test_what_is_decoded_is_sound_and_the_rest_is_skipped(
    tmp_path: Path, coding: str, suffix: str, mode: DecodeMode
) -> None:
    path = write_video(tmp_path / f"v{suffix}", frames=FRAMES, gop=GOP, **CODINGS[coding])
    part = read_files(path, decode=mode)
    assert part.errors == []
    assert part.numbers == sorted(part.numbers)
    assert_same_pictures(part, read_files(path))
    assert_closed(part.tally)
    assert part.tally.received == FRAMES
    assert part.tally.dropped.get("skipped", 0) == FRAMES - len(part.frames)
    if mode == "keyframes":
        assert part.numbers[0] == 0
        assert FRAMES // GOP <= len(part.frames) <= FRAMES // GOP + 1
    elif "b-frames" in coding:
        assert len(part.frames) < FRAMES * 2 // 3


def test_a_keyframe_comes_out_before_the_next_packet_goes_in(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames=FRAMES, gop=GOP, options={"bf": "3"})
    received, ledger = list[int](), CameraLedger("cam")
    reader = AvReader(
        "cam",
        emit=lambda frame: received.append(ledger.tally().received),
        ledger=ledger,
        on_online=lambda: None,
        stop=threading.Event(),
        realtime=False,
        decode="keyframes",
    )
    reader.read_file(path)
    assert received == [1, 16, 31, 46]


@pytest.mark.parametrize("mode", ["nonref", "keyframes"])
def test_damage_is_told_from_what_is_left_out(tmp_path: Path, mode: DecodeMode) -> None:
    whole = write_video(tmp_path / "v.mkv", frames=FRAMES, gop=GOP, options={"bf": "3"})
    lossy = read_files(lose_access_units(whole, tmp_path / "lossy.mkv", [15, 33]), decode=mode)
    assert_same_pictures(lossy, read_files(whole))
    assert_closed(lossy.tally)
    for seed in range(8):
        hurt = read_files(damage(whole, tmp_path / "hurt.mkv", seed=seed, count=3), decode=mode, sample_fps=7.0)
        assert_closed(hurt.tally)


@pytest.mark.parametrize("coding", ["h264", "h264 b-frames", "h265"])
@pytest.mark.parametrize(("fps", "every"), [(5.0, 5), (12.5, 2), (25.0, 1), (100.0, 1)])
def test_sampling_takes_pictures_evenly(tmp_path: Path, coding: str, fps: float, every: int) -> None:
    path = write_video(tmp_path / "v.ts", frames=FRAMES, gop=GOP, **CODINGS[coding])
    part = read_files(path, sample_fps=fps)
    assert part.numbers == list(range(0, FRAMES, every))
    assert [frame.seq for frame in part.frames] == list(range(len(part.frames)))
    assert_same_pictures(part, read_files(path))
    assert_closed(part.tally)
    assert part.tally.dropped.get("skipped", 0) == FRAMES - len(part.frames)


async def test_a_looped_file_shorter_than_the_sampling_period_is_neither_broken_nor_over(tmp_path: Path) -> None:
    frames: list[Frame] = []

    def keep(frame: Frame) -> None:
        frames.append(frame)
        if len(frames) == 3:
            source.request_stop()

    ledger = CameraLedger("cam")
    source = CameraSource(
        "cam",
        files=[write_video(tmp_path / "v.mp4", frames=10)],
        emit=keep,
        realtime=False,
        loop=True,
        sample_fps=0.5,
        ledger=ledger,
        status=StatusBoard(["cam"]),
    )
    outcome = await source.run()
    assert (outcome.ended, outcome.error) == (False, None)
    assert [frame.pts_s for frame in frames] == pytest.approx([0.0, 2.0, 4.0])
    ledger.close()
    assert_closed(ledger.tally())
