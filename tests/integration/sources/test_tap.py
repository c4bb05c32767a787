"""A camera's packets passed on: bit by bit, with parameter sets before every keyframe, while they are wanted."""

from __future__ import annotations

import itertools
import subprocess
import threading
from pathlib import Path
from typing import Any

import av
import pytest

from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader
from streamproc.sources.nal import annex_b
from streamproc.sources.tap import PacketOutlet
from streamproc.types import AccessUnit, Frame
from tests.cameras import serve
from tests.integration.sources.reading import read_files
from tests.media import damage, write_video

H265: dict[str, Any] = {"codec": "libx265"}
FRAMES = 30


class Tap:
    """A reader whose packets are wanted for some of the frames."""

    def __init__(self, wanted: range = range(1000), stop_after: int = 1000) -> None:
        self.units: list[AccessUnit] = []
        self._wanted, self._stop_after = wanted, stop_after
        self._stop = threading.Event()
        self.outlet = PacketOutlet(self.units.append)
        self.frames: list[Frame] = []
        self.reader = AvReader(
            "cam",
            emit=self._keep,
            ledger=CameraLedger("cam"),
            on_online=lambda: None,
            stop=self._stop,
            realtime=False,
            packets=self.outlet,
        )
        self.outlet.wanted = 0 in wanted

    def _keep(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.outlet.wanted = len(self.frames) in self._wanted
        if len(self.frames) == self._stop_after:
            self._stop.set()

    @property
    def stream(self) -> bytes:
        return b"".join(unit.data for unit in self.units)


def copied_by_ffmpeg(path: Path, form: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-c", "copy", "-bsf:v", f"{form}_mp4toannexb", "-f", form, "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def units_in(stream: bytes) -> list[bytes]:
    """NAL units without start codes, whose length is the packer's choice."""
    return [nal.rstrip(b"\x00") for nal in annex_b(stream)]


def assert_every_keyframe_stands_alone(tap: Tap, tmp_path: Path) -> None:
    keyframes = [index for index, unit in enumerate(tap.units) if unit.keyframe]
    assert keyframes
    for index in keyframes:
        (tmp_path / "tail").write_bytes(b"".join(unit.data for unit in tap.units[index:]))
        with av.open(str(tmp_path / "tail"), format=tap.units[0].codec) as container:
            assert len(list(container.decode(video=0))) == len(tap.units) - index


@pytest.mark.parametrize(("codec", "form"), [({}, "h264"), (H265, "hevc")], ids=["h264", "h265"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_packets_are_passed_on_to_the_bit(tmp_path: Path, suffix: str, codec: dict[str, Any], form: str) -> None:
    path = write_video(tmp_path / f"v{suffix}", frames=FRAMES, **codec)
    tap = Tap()
    tap.reader.read_file(path)
    assert len(tap.frames) == len(tap.units) == FRAMES
    assert units_in(tap.stream) == units_in(copied_by_ffmpeg(path, form))
    assert {unit.codec for unit in tap.units} == {form}
    assert [unit.pts_s for unit in tap.units] == pytest.approx([n / 25 for n in range(FRAMES)], abs=0.002)
    assert_every_keyframe_stands_alone(tap, tmp_path)


@pytest.mark.parametrize("sets", ["in the stream", "in the description"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_cameras_keyframes_have_their_parameter_sets(tmp_path: Path, codec: str, sets: str) -> None:
    path = write_video(tmp_path / "v.mkv", frames=60, **(H265 if codec == "h265" else {}))
    options = ["--codec", codec, *(["--sets-once"] if sets == "in the description" else [])]
    tap = Tap(stop_after=FRAMES)
    with serve(path, options=options) as port:
        tap.reader.read_stream(f"rtsp://127.0.0.1:{port}/cam", "tcp")
    assert len(tap.units) >= FRAMES
    assert [unit.keyframe for unit in tap.units[:21]] == [n % 10 == 0 for n in range(21)]
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(tap.units))
    # The same capture time read off two clocks that are not read at once.
    slack_ns = 10_000_000
    steps_ns = [later.captured_utc_ns - earlier.captured_utc_ns for earlier, later in itertools.pairwise(tap.units)]
    assert min(steps_ns) > -slack_ns
    assert_every_keyframe_stands_alone(tap, tmp_path)


def test_it_is_switched_while_running_and_its_time_goes_on(tmp_path: Path) -> None:
    tap = Tap(wanted=range(10, 15))
    path = write_video(tmp_path / "v.ts", frames=FRAMES)
    tap.reader.read_file(path)
    assert len(tap.units) == 5
    tap.outlet.wanted = True
    tap.frames.clear()
    tap.reader.read_file(path)
    assert len(tap.units) > 5
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(tap.units))


def test_whoever_begins_between_two_keyframes_gets_what_came_since_the_last(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", frames=FRAMES, gop=100)
    whole, late = Tap(), Tap(wanted=range(17, 1000))
    for tap in (whole, late):
        tap.reader.read_file(path)
    assert [unit.keyframe for unit in late.units] == [True] + [False] * (FRAMES - 1)
    assert late.stream == whole.stream
    assert [unit.pts_s for unit in late.units] == [unit.pts_s for unit in whole.units]


@pytest.mark.parametrize(("limit", "value"), [("_MOST_KEPT", 5), ("_MOST_KEPT_BYTES", 2000)])
def test_what_is_kept_for_them_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(f"streamproc.sources.tap.{limit}", value)
    late = Tap(wanted=range(17, 1000))
    late.reader.read_file(write_video(tmp_path / "v.ts", frames=FRAMES, gop=20))
    assert 0 < len(late.units) < FRAMES - 15
    assert not late.units[0].keyframe, "it goes on from the present; the feed waits for the next keyframe"
    assert any(unit.keyframe for unit in late.units)


def test_what_cannot_be_passed_on_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tap = Tap()
    tap.reader.read_file(write_video(tmp_path / "v.avi", codec="mjpeg", pix_fmt="yuvj420p", frames=5))
    assert (len(tap.frames), tap.units) == (5, [])
    assert caplog.text.count("mjpeg cannot be passed on") == 1


def test_damage_in_a_packet_ends_neither_reading_nor_passing_on(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mp4", frames=FRAMES)
    for seed in range(10):
        path = damage(whole, tmp_path / "hurt.mp4", seed=seed, count=3)
        tap = Tap()
        plain = read_files(path)
        if not plain.errors:
            tap.reader.read_file(path)
            assert len(tap.frames) == len(plain.frames)
