"""The reader on real files of every shape."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from streamproc.channel import Closed
from streamproc.ledger import CameraLedger, DropReason
from streamproc.sources.av_reader import AvReader
from streamproc.types import Frame
from tests.integration.sources.reading import assert_closed, read_files
from tests.media import concatenate, truncate, write_audio_only, write_video

SHARED_VIDEOS = {
    "vtest_480x360.avi": (795, 79.6),
    "pedestrians_street_1080p.mp4": (149, 5.92),
    "people_hall.mp4": (447, 14.88),
    "one-by-one-person-detection.mp4": (1394, 139.3),
    "car-detection.mp4": (377, 30.08),
    "bridge_traffic.mp4": (917, 30.5),
    "yard_ru_1.ts": (120, 7.93),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", SHARED_VIDEOS)
def test_real_videos_decode_to_the_last_picture(shared_data: Path, name: str) -> None:
    count, length_s = SHARED_VIDEOS[name]
    ledger, times = CameraLedger("cam"), list[float]()
    reader = AvReader(
        "cam",
        emit=lambda frame: times.append(frame.pts_s),
        ledger=ledger,
        on_online=lambda: None,
        stop=threading.Event(),
        realtime=False,
    )
    reader.read_file(shared_data / "videos" / name)
    assert len(times) == count
    tally = ledger.tally()
    assert (tally.received, tally.decoded, tally.dropped) == (count, count, {})
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert times[-1] == pytest.approx(length_s, abs=0.05)


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264 mp4": ("v.mp4", {}),
    "h264 ts with audio": ("v.ts", {"audio": True}),
    "h264 mkv": ("v.mkv", {}),
    "h264 avi with b-frames": ("v.avi", {"options": {"bf": "3"}}),
    "h264 ts with b-frames": ("v.ts", {"options": {"bf": "3"}}),
    "h264 mp4 with b-frames and audio": ("v.mp4", {"options": {"bf": "3"}, "audio": True}),
    "h264 intra refresh": ("v.ts", {"options": {"x264-params": "intra-refresh=1"}}),
    "h264 open gop": ("v.mp4", {"options": {"bf": "2", "x264-params": "open-gop=1"}}),
    "h264 interlaced": ("v.ts", {"options": {"x264-params": "interlaced=1"}}),
    "h264 elementary": ("v.h264", {}),
    "h264 10 bit": ("v.mp4", {"pix_fmt": "yuv420p10le"}),
    "h265 mp4": ("v.mp4", {"codec": "libx265"}),
    "h265 ts": ("v.ts", {"codec": "libx265"}),
    "mpeg4 avi": ("v.avi", {"codec": "mpeg4"}),
    "mpeg2 ts": ("v.ts", {"codec": "mpeg2video", "options": {"b": "2M"}}),
    "mjpeg avi 4:2:2": ("v.avi", {"codec": "mjpeg", "pix_fmt": "yuvj422p"}),
    "vp9 mkv": ("v.mkv", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "raw nv12": ("v.mkv", {"codec": "rawvideo", "pix_fmt": "nv12"}),
    "raw bgr avi": ("v.avi", {"codec": "rawvideo", "pix_fmt": "bgr24"}),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_picture_of_a_clean_file_comes_out_once_and_in_order(tmp_path: Path, kind: str) -> None:
    name, options = FORMATS[kind]
    reading = read_files(write_video(tmp_path / name, **options))
    assert reading.errors == []
    assert reading.numbers == list(range(50))
    assert [frame.seq for frame in reading.frames] == list(range(50))
    assert (reading.tally.received, reading.tally.decoded, reading.tally.dropped) == (50, 50, {})
    assert [frame.pts_s for frame in reading.frames] == pytest.approx([n / 25 for n in range(50)], abs=0.09)
    assert reading.online == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate_is_kept(tmp_path: Path, suffix: str) -> None:
    times_ms = [n * n * 10 for n in range(20)]
    reading = read_files(write_video(tmp_path / f"v{suffix}", frames=20, times_ms=times_ms))
    assert [frame.pts_s for frame in reading.frames] == pytest.approx([ms / 1000 for ms in times_ms])


def test_a_size_may_change_within_a_stream_and_between_files(tmp_path: Path) -> None:
    small = write_video(tmp_path / "a.h264", frames=20)
    large = write_video(tmp_path / "b.h264", frames=20, size=(320, 240), first_number=20)
    reading = read_files(concatenate([small, large], tmp_path / "c.h264"), small)
    assert reading.numbers == [*range(40), *range(20)]
    assert [f.picture.size for f in reading.frames] == [(160, 120)] * 20 + [(320, 240)] * 20 + [(160, 120)] * 20
    assert (reading.tally.received, reading.tally.decoded) == (60, 60)


def test_times_and_numbers_go_on_over_files_loops_and_jumps(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{n}.ts", frames=20, first_number=20 * n) for n in range(2)]
    joined = concatenate(parts, tmp_path / "joined.ts")
    reading = read_files(joined, parts[0], parts[0])
    times = [frame.pts_s for frame in reading.frames]
    assert all(0 < later - earlier < 0.2 for earlier, later in itertools.pairwise(times))
    assert [frame.seq for frame in reading.frames] == list(range(len(times)))
    assert_closed(reading.tally)
    # The seam is a break in the transport stream: the pictures at it count as damaged.
    assert reading.tally.received == 80
    assert reading.tally.dropped.get("corrupt", 0) <= 3


def test_the_books_balance_over_loops_of_reordered_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=30, options={"bf": "3"})
    reading = read_files(*[path] * 5)
    assert reading.numbers == [*range(30)] * 5
    assert (reading.tally.received, reading.tally.decoded, reading.tally.dropped) == (150, 150, {})


class PacedTime(threading.Event):
    """A stop event whose waits move a fake clock on instead of taking time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 10**15

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now_ns += round(timeout * 1e9)
        return self.is_set()

    def clock_ns(self) -> int:
        return self.now_ns


def test_a_realtime_file_is_paced_by_its_own_timestamps_over_its_loops(tmp_path: Path) -> None:
    times_ms = [n * n * 10 for n in range(10)]
    path = write_video(tmp_path / "v.mkv", frames=10, times_ms=times_ms)
    time = PacedTime()
    start_ns, released_ns = time.now_ns, list[int]()

    def released(frame: Frame) -> Frame:
        released_ns.append(time.now_ns)
        return frame

    reading = read_files(path, path, realtime=True, stop=time, clock_ns=time.clock_ns, keep=released)
    expected_ns = [start_ns + ms * 1_000_000 for ms in times_ms]
    assert [frame.captured_ns for frame in reading.frames[:10]] == expected_ns
    assert released_ns == [frame.captured_ns for frame in reading.frames]
    assert all(frame.live for frame in reading.frames)
    seam_s = reading.frames[10].pts_s - reading.frames[9].pts_s
    assert 0 < seam_s <= 1
    assert reading.frames[19].captured_ns - reading.frames[10].captured_ns == expected_ns[9] - expected_ns[0]


def test_a_file_read_at_full_speed_is_stamped_when_decoded_and_not_live(tmp_path: Path) -> None:
    reading = read_files(write_video(tmp_path / "v.mp4", frames=10))
    stamps = [frame.captured_ns for frame in reading.frames]
    assert stamps == sorted(stamps)
    assert not any(frame.live for frame in reading.frames)
    skews_ns = [frame.captured_utc_ns - frame.captured_ns for frame in reading.frames]
    assert max(skews_ns) - min(skews_ns) < 1e9


def test_stopping_leaves_what_is_in_the_decoder_for_the_ledger_to_close(tmp_path: Path) -> None:
    stop = threading.Event()

    def stop_at_seven(frame: Frame) -> Frame:
        if frame.seq == 7:
            stop.set()
        return frame

    path = write_video(tmp_path / "v.mp4", options={"bf": "3"})
    reading = read_files(path, stop=stop, keep=stop_at_seven)
    assert len(reading.frames) == 8
    assert reading.errors == []
    reading.ledger.close()
    tally = reading.tally
    assert tally.received == tally.decoded + tally.dropped[DropReason.UNDECODED.label]


def test_a_closed_channel_ends_the_reading_without_an_error(tmp_path: Path) -> None:
    def closed(frame: Frame) -> Frame:
        raise Closed

    reading = read_files(write_video(tmp_path / "v.mp4"), realtime=False, keep=closed)
    assert reading.errors == []
    assert reading.tally.decoded == 1


def no_such_file(folder: Path) -> Path:
    return folder / "absent.mp4"


def not_a_video(folder: Path) -> Path:
    path = folder / "notes.mp4"
    path.write_text("These are my notes.\n" * 100)
    return path


def empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def without_its_index(folder: Path) -> Path:
    return truncate(write_video(folder / "whole.mp4"), folder / "half.mp4", 0.5)


def without_a_keyframe(folder: Path) -> Path:
    whole = write_video(folder / "whole.h264", frames=10, gop=100)
    data = whole.read_bytes()
    path = folder / "tail.h264"
    path.write_bytes(data[data.index(b"\x00\x00\x01\x41") :])
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_such_file, "not_found"),
        (not_a_video, "corrupt"),
        (empty, "corrupt"),
        (without_its_index, "corrupt"),
        (without_a_keyframe, "corrupt"),
        (lambda folder: write_audio_only(folder / "sound.mp4"), "no_video"),
    ],
)
def test_a_hopeless_file_is_an_error_that_names_it(tmp_path: Path, make: object, reason: str) -> None:
    assert callable(make)
    path = make(tmp_path)
    reading = read_files(path)
    assert [error.reason for error in reading.errors] == [reason]
    assert str(path) in str(reading.errors[0])
    assert "camera cam" in str(reading.errors[0])
    assert reading.frames == []
    assert_closed(reading.tally)


def test_a_file_whose_name_looks_like_a_protocol(tmp_path: Path) -> None:
    reading = read_files(write_video(tmp_path / "v.mkv").rename(tmp_path / "http:evening.mkv"))
    assert len(reading.frames) == 50
