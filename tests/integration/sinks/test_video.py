from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamproc.channel import Channel, Overflow
from streamproc.errors import FatalError, SinkError
from streamproc.ledger import CameraLedger
from streamproc.sinks import video
from streamproc.sinks.base import Delivery, Sink
from streamproc.sinks.video import VideoSink
from streamproc.sinks.video_file import VideoFile
from streamproc.types import Detections, Frame, FrameResult, Picture, Rotation, UInt8Array

ROOT = Path(__file__).parents[3]


def picture(size: tuple[int, int] = (320, 240), *, luma: int = 90, rotation: Rotation = 0) -> Picture:
    """Gray; the stored picture's top left quarter is white."""
    width, height = size
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    y = np.full((height, width), luma, np.uint8)
    y[: height // 2, : width // 2] = 235
    return Picture(planes=(y, chroma, chroma), layout="yuv420p", rotation=rotation)


def to_bgr(source: Picture) -> UInt8Array:
    """The gray of the picture, upright; enough for pictures without colour."""
    level = np.clip((source.planes[0].astype(np.float32) - 16) * (255 / 219), 0, 255).astype(np.uint8)
    turned = np.rot90(level, k=-(source.rotation // 90))
    return np.ascontiguousarray(np.repeat(turned[:, :, None], 3, axis=2))


def delivery(camera: str, pts_s: float, *, live: bool, shown: Picture | None = None) -> Delivery:
    frame = Frame(
        camera=camera,
        seq=0,
        pts_s=pts_s,
        captured_ns=0,
        captured_utc_ns=round(pts_s * 1e9),
        live=live,
        picture=shown or picture(),
    )
    detections = Detections.of(
        np.array([[100, 100, 200, 200]], np.float32), np.array([0.9], np.float32), np.array([0], np.int64)
    )
    result = FrameResult(frame=frame, detections=detections, labels=("person",), model="m")
    return Delivery(result, CameraLedger(camera), receivers=1, max_age_ms=100 if live else None)


async def feed(sink: Sink, deliveries: Iterable[Delivery]) -> None:
    """Run the sink as a pipeline does, over these deliveries."""
    await sink.start()
    inbox: Channel[Delivery] = Channel(sink.capacity, Overflow.BLOCK)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run(inbox))
        for item in deliveries:
            await inbox.send(item)
        inbox.close()


def probe(path: Path) -> list[float]:
    """Times of all frames, as ffprobe decodes them; no line of complaint from it or from ffmpeg."""
    play = ["-i", str(path), "-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "null", "-"]
    check = subprocess.run(["ffmpeg", "-v", "warning", *play], capture_output=True, text=True)
    assert (check.returncode, check.stderr) == (0, "")
    entries = ["-show_entries", "frame=best_effort_timestamp_time", "-of", "json"]
    shown = subprocess.run(["ffprobe", "-v", "warning", *entries, path], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    return [float(frame["best_effort_timestamp_time"]) for frame in json.loads(shown.stdout)["frames"]]


def stream_of(path: Path) -> dict[str, str]:
    shown = subprocess.run(
        ["ffprobe", "-v", "error", "-show_streams", "-of", "json", path], capture_output=True, text=True, check=True
    )
    stream: dict[str, str] = json.loads(shown.stdout)["streams"][0]
    return stream


def decoded(path: Path) -> UInt8Array:
    """All pictures as ffmpeg shows them, (n, h, w, 3) RGB."""
    stream = stream_of(path)
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, int(stream["height"]), int(stream["width"]), 3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
async def test_the_file_plays_with_every_frame_at_its_own_time(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    times = [round(float(time), 3) for time in 0.25 + np.cumsum(rng.uniform(0.01, 0.3, 60))]
    sink = VideoSink(str(tmp_path / f"new/dir/{{camera}}.{suffix}"), ["gate", "yard"], to_bgr=to_bgr)
    given = [delivery(camera, time, live=False) for time in times for camera in ("gate", "yard")]
    await feed(sink, given)
    assert probe(tmp_path / f"new/dir/gate.{suffix}") == pytest.approx(times, abs=0.0006)
    assert probe(tmp_path / f"new/dir/yard.{suffix}") == pytest.approx(times, abs=0.0006)
    assert (sink.counts.taken, sink.counts.lost) == (120, Counter())


async def test_it_counts_for_itself_and_answers_no_delivery(tmp_path: Path) -> None:
    ledger = CameraLedger("gate")
    given = delivery("gate", 0, live=False)
    sink = VideoSink(str(tmp_path / "{camera}.mp4"), ["gate"], to_bgr=to_bgr)
    await feed(sink, [Delivery(given.result, ledger, receivers=1, max_age_ms=None)])
    assert not sink.essential
    assert ledger.tally().published == 0
    assert sink.counts.taken == 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_that_repeat_or_step_back_are_moved_up(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gate.{suffix}"
    file = VideoFile(path)
    for pts_s in (0, 0.5, 0.5, 0.5001, 0.2, 1.0):
        file.write(np.zeros((64, 64, 3), np.uint8), pts_s)
    file.close()
    file.close()
    assert probe(path) == pytest.approx([0, 0.5, 0.501, 0.502, 0.503, 1.0], abs=0.0006)


def test_a_size_that_cannot_be_encoded_is_an_error_and_no_crash(tmp_path: Path) -> None:
    file = VideoFile(tmp_path / "gate.mp4")
    for pts_s in (0, 1):
        with pytest.raises(SinkError, match=str(tmp_path / "gate.mp4")):
            file.write(np.zeros((16, 20_000, 3), np.uint8), pts_s)
    file.close()


def test_there_is_a_keyframe_every_two_seconds_at_any_rate(tmp_path: Path) -> None:
    for fps in (1, 24, 120):
        path = tmp_path / f"{fps}.mp4"
        file = VideoFile(path)
        for index in range(7 * fps):
            file.write(np.full((64, 64, 3), 100, np.uint8), index / fps)
        file.close()
        entries = ["-skip_frame", "nokey", "-show_entries", "frame=best_effort_timestamp_time", "-of", "csv=p=0"]
        shown = subprocess.run(["ffprobe", "-v", "error", *entries, path], capture_output=True, text=True, check=True)
        keyframes = [float(line.strip(",")) for line in shown.stdout.split()]
        assert keyframes == pytest.approx([0, 2, 4, 6], abs=0.01)


KILLED = """
import sys
from pathlib import Path
import numpy as np
from streamproc.sinks.video_file import VideoFile
file = VideoFile(Path(sys.argv[1]))
noise = np.random.default_rng(1).integers(0, 255, (240, 320, 3), dtype=np.uint8)
for index in range(200):
    file.write(np.roll(noise, index, axis=1), index / 24)
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_killed_process_leaves_a_file_that_plays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gate.{suffix}"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
    times = probe(path)
    assert 200 - 2.5 * 24 <= len(times) <= 200
    assert times == pytest.approx([index / 24 for index in range(len(times))], abs=0.0006)


def test_later_pictures_of_another_size_are_letterboxed_into_the_first(tmp_path: Path) -> None:
    path = tmp_path / "gate.mp4"
    file = VideoFile(path)
    for index, (width, height) in enumerate([(320, 240), (640, 240), (100, 200), (320, 240)]):
        file.write(np.full((height, width, 3), 200, np.uint8), index)
    file.close()
    first, wide, tall, last = decoded(path)
    assert first.shape == (240, 320, 3)
    assert wide[:58].max() < 30
    assert wide[182:].max() < 30
    assert wide[64:176].min() > 180
    assert tall[:, :98].max() < 30
    assert tall[:, 222:].max() < 30
    assert tall[:, 104:216].min() > 180
    assert first.min() > 180
    assert last.min() > 180


@pytest.mark.parametrize(("size", "even"), [((321, 241), (320, 240)), ((321, 240), (320, 240)), ((1, 1), (2, 2))])
async def test_odd_sizes_are_made_even(tmp_path: Path, size: tuple[int, int], even: tuple[int, int]) -> None:
    sink = VideoSink(str(tmp_path / "gate.mp4"), ["gate"], to_bgr=to_bgr)
    await feed(sink, [delivery("gate", index / 10, live=False, shown=picture(size)) for index in range(3)])
    stream = stream_of(tmp_path / "gate.mp4")
    assert (int(stream["width"]), int(stream["height"])) == even
    assert len(probe(tmp_path / "gate.mp4")) == 3


async def test_a_turned_picture_is_written_upright(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "gate.mp4"), ["gate"], to_bgr=to_bgr)
    await feed(sink, [delivery("gate", 0, live=False, shown=picture((320, 240), rotation=90))])
    [shown] = decoded(tmp_path / "gate.mp4")
    assert shown.shape == (320, 240, 3)
    assert shown[30:75, 130:230].min() > 230  # the white quarter, turned from the top left to the top right
    assert shown[210:310, 10:90].max() < 120
    edge = shown[170:195, 200].astype(int)  # the box's right edge, in upright coordinates, on gray
    assert np.ptp(edge, axis=1).min() > 30


@pytest.mark.parametrize(("size", "matrix"), [((320, 240), "bt470bg"), ((1280, 720), "bt709")])
def test_colours_are_shown_as_they_were_drawn(tmp_path: Path, size: tuple[int, int], matrix: str) -> None:
    bgr = np.zeros((size[1], size[0], 3), np.uint8)
    colors = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255), (0, 0, 0), (52, 211, 153), (251, 146, 60)]
    stripe = size[0] // len(colors)
    for index, color in enumerate(colors):
        bgr[:, index * stripe : (index + 1) * stripe] = color[::-1]
    path = tmp_path / "gate.mp4"
    file = VideoFile(path)
    file.write(bgr, 0)
    file.close()
    [shown] = decoded(path)
    for index, color in enumerate(colors):
        middle = shown[size[1] // 2, index * stripe + stripe // 2].astype(int)
        assert np.abs(middle - color).max() <= 8
    stream = stream_of(path)
    assert (stream["pix_fmt"], stream["color_range"], stream["color_space"]) == ("yuv420p", "tv", matrix)


class Gate:
    """A ``to_bgr`` that holds one camera's thread until it is opened; cameras are told apart by their luma."""

    HELD, LAST = 60, 70

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.last = threading.Event()
        self.opened = threading.Event()

    def __call__(self, source: Picture) -> UInt8Array:
        luma = source.planes[0][-1, -1]
        if luma == self.HELD:
            self.entered.set()
            assert self.opened.wait(60)
        elif luma == self.LAST:
            self.last.set()
        return to_bgr(source)


async def test_a_live_camera_behind_loses_its_oldest_pictures_and_holds_back_nobody(tmp_path: Path) -> None:
    gate = Gate()
    sink = VideoSink(str(tmp_path / "{camera}.mp4"), ["slow", "quick"], to_bgr=gate)
    await sink.start()
    inbox: Channel[Delivery] = Channel(sink.capacity, Overflow.BLOCK)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run(inbox))
        await inbox.send(delivery("slow", 0, live=True, shown=picture(luma=Gate.HELD)))
        assert await asyncio.to_thread(gate.entered.wait, 60)
        for index in range(1, 11):
            await inbox.send(delivery("slow", index, live=True, shown=picture(luma=Gate.HELD)))
        for index in range(20):
            luma = Gate.LAST if index == 19 else 90
            await inbox.send(delivery("quick", index / 10, live=False, shown=picture(luma=luma)))
        assert await asyncio.to_thread(gate.last.wait, 60)  # while the slow one stands still
        assert sink.counts.lost == {"overload": 6}
        gate.opened.set()
        inbox.close()
    assert probe(tmp_path / "slow.mp4") == pytest.approx([0, 7, 8, 9, 10])
    assert len(probe(tmp_path / "quick.mp4")) == 20
    assert sink.counts.taken == 25


async def test_a_file_source_waits_for_its_writer_and_loses_nothing(tmp_path: Path) -> None:
    gate = Gate()
    sink = VideoSink(str(tmp_path / "{camera}.mp4"), ["slow"], to_bgr=gate)
    await sink.start()
    inbox: Channel[Delivery] = Channel(sink.capacity, Overflow.BLOCK)
    waiting = [delivery("slow", index / 10, live=False, shown=picture(luma=Gate.HELD)) for index in range(40)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run(inbox))
        await inbox.send(waiting.pop(0))
        assert await asyncio.to_thread(gate.entered.wait, 60)
        for _ in range(500):  # turns of the loop, many more than it takes to fill what can be filled
            if inbox.offer(waiting[0]):
                waiting.pop(0)
            await asyncio.sleep(0)
        # One in the writer's hands, four in its inbox, one in the sink's hands, and the sink's inbox.
        assert 40 - len(waiting) == 1 + 4 + 1 + sink.capacity
        gate.opened.set()
        for item in waiting:
            await inbox.send(item)
        inbox.close()
    assert len(probe(tmp_path / "slow.mp4")) == 40
    assert (sink.counts.taken, sink.counts.lost) == (40, Counter())


async def test_a_writer_that_hangs_is_left_behind_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video, "_CLOSE_TIMEOUT_S", 0.2)
    gate = Gate()
    path = tmp_path / "slow.mp4"
    sink = VideoSink(str(path), ["slow"], to_bgr=gate)
    times = [0.0, 0.1, 0.2, 0.3]
    with caplog.at_level(logging.WARNING):
        await feed(sink, [delivery("slow", time, live=True, shown=picture(luma=Gate.HELD)) for time in times])
    [message] = caplog.messages
    assert "camera slow" in message
    assert str(path) in message
    assert sink.counts.lost == {"shutdown": 3}
    [thread] = [thread for thread in threading.enumerate() if thread.name == "video-slow"]
    gate.opened.set()
    thread.join(60)
    assert probe(path) == [0]


async def test_a_disk_that_hangs_stops_neither_the_loop_nor_the_other_cameras(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "stuck.mp4")
    reader = os.open(tmp_path / "stuck.mp4", os.O_RDONLY | os.O_NONBLOCK)  # opens it, and reads nothing
    noise = np.random.default_rng(1).integers(0, 255, (720, 960, 3), dtype=np.uint8)
    sink = VideoSink(str(tmp_path / "{camera}.mp4"), ["stuck", "good"], to_bgr=lambda _: noise.copy())
    given = [delivery(camera, index / 10, live=True) for index in range(4) for camera in ("stuck", "good")]
    with caplog.at_level(logging.WARNING):
        await feed(sink, given)  # the stuck one's fragment is larger than a pipe, so its trailer waits for ever
    [message] = caplog.messages
    assert "camera stuck" in message
    assert len(probe(tmp_path / "good.mp4")) == 4
    [thread] = [thread for thread in threading.enumerate() if thread.name == "video-stuck"]
    os.close(reader)
    thread.join(60)


async def test_a_full_disk_ends_one_file_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    sink = VideoSink(str(tmp_path / "{camera}.mp4"), ["full", "good"], to_bgr=to_bgr)
    given = [delivery(camera, index / 10, live=False) for index in range(30) for camera in ("full", "good")]
    with caplog.at_level(logging.WARNING):
        await feed(sink, given)
    assert len(probe(tmp_path / "good.mp4")) == 30
    assert sink.counts.lost["encoder"] == 60 - sink.counts.taken
    assert sink.counts.lost["encoder"] > 0
    [message] = caplog.messages
    assert "camera full" in message
    assert str(tmp_path / "full.mp4") in message
    assert "No space left" in message


async def test_a_bug_in_a_writer_ends_the_sink(tmp_path: Path) -> None:
    def broken(_: Picture) -> UInt8Array:
        raise ZeroDivisionError("a bug")

    sink = VideoSink(str(tmp_path / "gate.mp4"), ["gate"], to_bgr=broken)
    with pytest.RaisesGroup(ZeroDivisionError):
        await feed(sink, [delivery("gate", 0, live=False)])


async def test_an_existing_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "gate.mp4"
    path.write_bytes(b"x" * 1_000_000)
    sink = VideoSink(str(path), ["gate"], to_bgr=to_bgr)
    await feed(sink, [delivery("gate", index / 10, live=False) for index in range(3)])
    assert len(probe(path)) == 3


async def test_a_camera_that_never_delivers_leaves_no_file(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "{camera}.mp4"), ["gate"], to_bgr=to_bgr)
    await feed(sink, [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["file/{camera}.mp4", "folder.mp4", "/proc/none/{camera}.mp4"])
async def test_a_path_that_cannot_be_written_is_fatal_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    path = tmp_path / name
    with pytest.raises(FatalError, match=r"camera gate: .*Set video\.path to") as caught:
        await VideoSink(str(path), ["gate"], to_bgr=to_bgr).start()
    assert str(path).replace("{camera}", "gate") in str(caught.value)


@pytest.mark.parametrize("name", ["gate", "gate.avi"])
async def test_a_file_of_unknown_kind_is_fatal_at_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(FatalError, match=r"expected a name ending in \.mp4 or \.mkv"):
        await VideoSink(str(tmp_path / name), ["gate"], to_bgr=to_bgr).start()


@pytest.mark.shared_data
async def test_boxes_stand_where_they_were_found_in_real_video(tmp_path: Path, shared_data: Path) -> None:
    source = cv2.VideoCapture(str(shared_data / "videos/people_hall.mp4"))
    frames = [source.read()[1] for _ in range(10)]
    shown = iter(frames)
    sink = VideoSink(str(tmp_path / "gate.mp4"), ["gate"], to_bgr=lambda _: np.array(next(shown), np.uint8))
    await feed(sink, [delivery("gate", index / 10, live=False, shown=picture((640, 360))) for index in range(10)])
    for drawn, plain in zip(decoded(tmp_path / "gate.mp4"), frames, strict=True):
        difference = np.abs(drawn[:, :, ::-1].astype(int) - plain).mean(axis=2)
        edges = np.concatenate([difference[102:199, 100], difference[102:199, 200], difference[200, 102:199]])
        assert edges.mean() > 4 * difference[110:190, 110:190].mean()
