"""Cameras of a trial: repeated, in real time, without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamproc.bench.workload import Workload, look_around, with_engine
from streamproc.config import CameraConfig, Config, FileConfig, ModelConfig, MqttConfig, RtspConfig, VideoConfig
from streamproc.errors import SourceError
from tests.media import write_video

MODEL = ModelConfig(name="m")


def workload(rates: dict[str, float | None], **cameras: CameraConfig) -> Workload:
    return Workload(base=Config(model=MODEL, cameras=cameras), sends=dict.fromkeys(cameras, "h264"), rates=rates)


def file_camera(**settings: Any) -> CameraConfig:
    return CameraConfig(url="a.mp4", files=(Path("/a.mp4"),), **settings)


def test_cameras_are_taken_in_turn() -> None:
    work = workload({"gate": 24.0, "live": None}, gate=file_camera(), live=CameraConfig(url="rtsp://h/a"))
    config = work.with_cameras(5, 24)
    assert list(config.cameras) == ["gate", "live", "gate~2", "live~2", "gate~3"]
    assert [camera.url for camera in config.cameras.values()] == ["a.mp4", "rtsp://h/a"] * 2 + ["a.mp4"]
    gate = config.cameras["gate~2"]
    assert (gate.realtime, gate.loop, gate.files) == (True, True, (Path("/a.mp4"),))
    assert config.cameras["live"] == CameraConfig(url="rtsp://h/a", sample_fps=24)
    assert list(work.with_cameras(1, 24).cameras) == ["gate"]


@pytest.mark.parametrize(
    ("rate", "own", "fps", "sampled", "expected"),
    [
        (24.0, None, 24, None, 24),
        (25.0, None, 24, 24, 24),
        (10.0, None, 24, None, 10),
        (24.0, None, 5, 5, 5),
        (24.0, 8.0, 15, 8, 8),
        (24.0, 8.0, 5, 5, 5),
        (None, None, 15, 15, None),
    ],
)
def test_rates(rate: float | None, own: float | None, fps: float, sampled: float | None, expected: float) -> None:
    work = workload({"gate": rate}, gate=file_camera(sample_fps=own))
    config = work.with_cameras(2, fps)
    assert {camera.sample_fps for camera in config.cameras.values()} == {sampled}
    assert work.expected_fps("gate~2", fps) == expected
    assert config.budget.fps == fps


def test_nobody_knows_the_rate_of_keyframes() -> None:
    work = workload({"gate": 24.0}, gate=file_camera(decode="keyframes"))
    assert work.expected_fps("gate", 24) is None


def test_rates_beyond_the_fastest_camera_are_one() -> None:
    slow = workload({"gate": 12.5, "yard": 10.0}, gate=file_camera(), yard=file_camera())
    assert slow.reachable((24, 15, 10, 5)) == (12.5, 10, 5)
    unknown = workload({"gate": 12.5, "live": None}, gate=file_camera(), live=CameraConfig(url="rtsp://h/a"))
    assert unknown.reachable((24, 15)) == (24, 15)


async def test_outputs_are_left_out(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=3, rate=25, size=(64, 48))
    config = Config(
        model=MODEL,
        mqtt=MqttConfig(url="mqtt://127.0.0.1:1883"),
        video=VideoConfig(path="{camera}.mp4"),
        rtsp=RtspConfig(listen="127.0.0.1:8554"),
        cameras={"gate": CameraConfig(url=str(video), files=(video,))},
    )
    work = await look_around(config)
    assert (work.base.mqtt, work.base.video, work.base.rtsp) == (None, None, None)
    assert work.base.file == FileConfig(path="/dev/null")
    assert "mqtt, video, rtsp left out" in work.notes[0]
    assert (work.sends, work.rates) == ({"gate": "h264 64x48 at 25 FPS"}, {"gate": 25.0})
    plain = await look_around(Config(model=MODEL, cameras=config.cameras))
    assert (plain.base.file, plain.notes) == (None, ())


async def test_a_camera_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("no video")
    config = Config(model=MODEL, cameras={"gate": CameraConfig(url=str(path), files=(path,))})
    with pytest.raises(SourceError, match="camera gate"):
        await look_around(config)


def test_another_engine() -> None:
    config = Config(model=MODEL, cameras={"gate": file_camera(classes=("forklift",), priority=3)})
    null = with_engine(config, "null")
    assert (null.engine.kind, null.cameras["gate"].classes, null.cameras["gate"].priority) == ("null", None, 3)
    assert with_engine(config, "onnxruntime").cameras == config.cameras


async def test_short_files_are_made_to_last(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=10, rate=10, size=(64, 48))
    file = CameraConfig(url=str(video), files=(video,), loop=True)
    several = CameraConfig(url=str(video), files=(video, video))
    work = workload(dict.fromkeys("abc", 10.0), a=file, b=several, c=CameraConfig(url="rtsp://h/a"))
    with work.lasting(3.0) as lasting:
        (longer,) = lasting.base.cameras["a"].files
        assert longer != video
        assert longer.exists()
        assert (lasting.base.cameras["b"], lasting.base.cameras["c"]) == (several, work.base.cameras["c"])
        assert lasting.rates == work.rates
    assert not longer.exists()
    with work.lasting(0.5) as same:
        assert same.base == work.base


async def test_keyframes_of_copies_come_at_different_times(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=32, rate=16, gop=16)
    work = workload({"a": 16.0}, a=CameraConfig(url=str(video), files=(video,), loop=True))
    with work.lasting(2.0) as lasting:
        first, *others = lasting.with_cameras(9, 16).cameras.values()
        assert first.files == (video,)
        assert [camera.files[0].stem for camera in others] == [*"5274163", "a"]
        assert {camera.files[-1] for camera in others} == {video}
