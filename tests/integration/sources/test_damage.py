"""Damaged streams: no crash, closed books, and no picture that differs from the undamaged one.

Losses (of whole pictures, of transport packets, of the rest of a file) are always noticed. A bit that flips inside a
coded picture may decode to other pixels without any contradiction: what libav notices is left out, and the rest no
decoder can know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from streamproc.types import UInt8Array
from tests.integration.sources.reading import Reading, assert_closed, read_files
from tests.media import damage, lose_access_units, lose_transport_packets, truncate, write_video

FRAMES, GOP = 60, 15
CODINGS: dict[str, dict[str, Any]] = {
    "h264": {},
    "h264 b-frames": {"options": {"bf": "3"}},
    "h265": {"codec": "libx265"},
}


def luma_by_number(reading: Reading) -> dict[int, UInt8Array]:
    return {number: frame.picture.planes[0] for number, frame in zip(reading.numbers, reading.frames, strict=True)}


def assert_sound(damaged: Reading, clean: Reading) -> None:
    """Every picture is the undamaged one to the last pixel, none comes twice, and the books close."""
    expected = luma_by_number(clean)
    assert damaged.numbers == sorted(set(damaged.numbers))
    for number, luma in luma_by_number(damaged).items():
        assert np.array_equal(luma, expected[number]), f"picture {number}"
    assert_closed(damaged.tally)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
@pytest.mark.parametrize("lost", [[20], [15], [16], [14, 15, 16], [3, 33, 50], [0], [59]], ids=str)
def test_lost_pictures_leave_a_gap_up_to_the_next_keyframe(
    tmp_path: Path, coding: str, suffix: str, lost: list[int]
) -> None:
    whole = write_video(tmp_path / f"whole{suffix}", frames=FRAMES, gop=GOP, **CODINGS[coding])
    damaged = read_files(lose_access_units(whole, tmp_path / f"lossy{suffix}", lost))
    assert_sound(damaged, read_files(whole))
    gaps = {index // GOP for index in lost}
    untouched = [number for number in range(FRAMES) if number // GOP not in gaps]
    # With reordering, the last pictures before a damaged group are still inside the decoder.
    reordered = 3 if "b-frames" in coding else 0
    missing = [number for number in untouched if number not in damaged.numbers]
    assert len(missing) <= reordered * len(gaps)
    assert damaged.errors == []


@pytest.mark.parametrize("coding", CODINGS)
def test_lost_transport_packets_cost_pictures_but_show_none_that_is_damaged(tmp_path: Path, coding: str) -> None:
    whole = write_video(tmp_path / "whole.ts", frames=FRAMES, gop=GOP, size=(320, 240), **CODINGS[coding])
    clean = read_files(whole)
    for seed in range(20):
        damaged = read_files(lose_transport_packets(whole, tmp_path / "lossy.ts", seed=seed))
        assert_sound(damaged, clean)
        assert damaged.tally.dropped.get("corrupt", 0) > 0 or damaged.tally.received < FRAMES


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_a_file_that_breaks_off_shows_what_is_whole(tmp_path: Path, fraction: float) -> None:
    whole = write_video(tmp_path / "whole.mp4", frames=FRAMES, gop=GOP, container_options={"movflags": "faststart"})
    damaged = read_files(truncate(whole, tmp_path / "half.mp4", fraction))
    assert_sound(damaged, read_files(whole))
    assert 0 < len(damaged.frames) < FRAMES


@pytest.mark.parametrize("how", ["flip", "zero"])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", {}),
        (".mp4", {"options": {"bf": "3"}}),
        (".ts", {}),
        (".mkv", {"codec": "libx265"}),
        (".avi", {"codec": "mpeg4"}),
        (".avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        (".mkv", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ],
    ids=["h264 mp4", "h264 b-frames", "h264 ts", "h265", "mpeg4", "mjpeg", "vp9"],
)
def test_no_damage_upsets_the_reader_or_its_books(
    tmp_path: Path, how: Literal["flip", "zero"], suffix: str, options: dict[str, Any]
) -> None:
    whole = write_video(tmp_path / f"whole{suffix}", frames=FRAMES, gop=GOP, **options)
    for seed in range(12):
        damaged = read_files(damage(whole, tmp_path / f"hurt{suffix}", seed=seed, count=3, how=how))
        assert_closed(damaged.tally)
        assert all(error.reason == "corrupt" for error in damaged.errors)
        assert len(damaged.frames) == damaged.tally.decoded


def test_a_camera_that_breaks_the_standard_everywhere_is_read_leniently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_video(tmp_path / "whole.h264", frames=FRAMES, gop=GOP).read_bytes()
    truncated_sei = b"\x00\x00\x01\x06\x05\xff\x01\x02\x03"
    for start_of_slice in (b"\x00\x00\x01\x65", b"\x00\x00\x01\x41"):
        whole = whole.replace(start_of_slice, truncated_sei + start_of_slice)
    (tmp_path / "odd.h264").write_bytes(whole)
    reading = read_files(tmp_path / "odd.h264", tmp_path / "odd.h264")
    assert reading.numbers == [*range(FRAMES)] * 2
    assert reading.errors == []
    assert caplog.text.count("leniently") == 1
    assert_closed(reading.tally)
