"""Annotated and raw streams of a whole run, watched by clients that others wrote."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.e2e.harness import Finished, streamproc, wait_for_log, write_config
from tests.viewers import as_cameras_send, live_run


@pytest.fixture
def cameras(tmp_path: Path, samples: Path) -> dict[str, dict[str, Any]]:
    """Two endless cameras."""
    gate = as_cameras_send(samples / "gate.mp4", tmp_path)
    return {"gate": {"url": gate, "loop": True}, "plaza": {"url": samples / "plaza.mp4", "loop": True}}


def ffmpeg(url: str, transport: str, *output: str) -> Finished:
    """ffmpeg playing a stream; on its error output there are only errors."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-rtsp_transport", transport, "-i", url, *output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return Finished(done.returncode, done.stdout, done.stderr)


def test_the_report_tells_who_watched_what(tmp_path: Path, cameras: dict[str, dict[str, Any]]) -> None:
    with live_run(tmp_path, cameras, rtsp={}) as run:
        for path, transport in (("gate", "tcp"), ("plaza", "udp")):
            assert ffmpeg(run.url(path), transport, "-t", "2", "-f", "null", "-") == (0, "", "")
        missing = ffmpeg(run.url("nobody"), "tcp", "-f", "null", "-")
        assert missing.code != 0
        assert "404" in missing.err
    told = run.report["rtsp"]
    assert told["refused"] == {"path": 1}
    assert told["feeds"]["gate"]["sent"] > 20
    assert told["feeds"]["plaza"]["sent"] > 20
    assert told["feeds"]["plaza/raw"]["published"] == 0
    assert told["age_ms"]["p95"] is not None


def test_what_is_watched_is_drawn_and_smaller_if_asked_for(tmp_path: Path, cameras: dict[str, dict[str, Any]]) -> None:
    with live_run(tmp_path, cameras, rtsp={"height": 360, "fps": 8}) as run:
        with av.open(run.url("gate"), options={"rtsp_transport": "tcp"}, timeout=10) as drawn:
            picture = next(drawn.decode(video=0)).to_ndarray(format="bgr24")
        with av.open(run.url("gate/raw"), options={"rtsp_transport": "tcp"}, timeout=10) as raw:
            own = next(raw.decode(video=0)).to_ndarray(format="bgr24")
    assert picture.shape == (360, 640, 3)
    assert own.shape == (720, 1280, 3)
    header = picture[2:8, 2:100]
    assert np.ptp(header.astype(int).mean(axis=2)) > 60, "the header's white text on its dark strip"


def test_without_a_viewer_nothing_is_encoded(tmp_path: Path, cameras: dict[str, dict[str, Any]]) -> None:
    with live_run(tmp_path, cameras, rtsp={}) as run:
        wait_for_log(run.log, "published")
    assert run.report["sinks"]["rtsp"]["taken"] == 0
    assert all(feed["published"] == 0 for feed in run.report["rtsp"]["feeds"].values())


@pytest.mark.shared_data
def test_the_picture_keeps_the_cameras_rate_when_inference_does_not(
    tmp_path: Path, cameras: dict[str, dict[str, Any]], shared_data: Path
) -> None:
    """One thread infers some twenty of 48 frames a second, two thirds of them of the other camera; and the machine may
    be busy with other things."""
    cameras["plaza"]["priority"] = 2
    overload = {
        "engine": {"threads": 1, "precision": "fp32"},
        "model": {"path": shared_data / "models" / "yolov8n.onnx", "labels": "coco"},
        "budget": {"max_frame_age_ms": 400},
    }
    with (
        live_run(tmp_path, cameras, rtsp={"height": 360}, **overload) as run,
        av.open(run.url("gate"), options={"rtsp_transport": "tcp"}, timeout=20) as container,
    ):
        pictures = [frame for _, frame in zip(range(200), container.decode(video=0), strict=False)]
    steps_s = np.diff([picture.time for picture in pictures[1:]])  # the first one's time is not known to the client
    shown, carried = run.report["sinks"]["rtsp"]["taken"], run.report["rtsp"]["carried"]
    books = run.report["cameras"]["gate"]
    print(f"{1 / steps_s.mean():.1f} pictures a second, {carried} of {shown} carried; {run.report['sinks']['rtsp']}")
    assert np.median(steps_s) == pytest.approx(1 / 24, abs=0.001)
    assert 0.75 * 24 < 1 / steps_s.mean() < 1.05 * 24
    assert books["inferred"] < 0.6 * books["decoded"]
    assert 0.4 * shown < carried <= shown


def test_a_port_that_is_taken(tmp_path: Path, samples: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = write_config(
            tmp_path,
            model={"path": samples / "streetnet.onnx", "size": [640, 384]},
            rtsp={"listen": address},
            cameras={"gate": {"url": samples / "gate.mp4"}},
        )
        ran, checked = streamproc("run", config), streamproc("check", config)
    assert ran.code == checked.code == 1
    assert f"rtsp.listen: cannot listen on {address}" in ran.err
    assert f"cannot listen on {address}" in checked.out


@pytest.mark.parametrize(
    ("rtsp", "said"),
    [
        ({"listen": "8554"}, "rtsp.listen: found a port alone"),
        ({"listen": "rtsp://0.0.0.0:8554"}, "Remove what stands before the host"),
        ({"username": "viewer"}, "rtsp.password: found nothing; expected username and password together"),
        ({"password": "x"}, "rtsp.password: found a hidden value; expected username and password together"),
        ({"height": 361}, "a multiple of 2"),
    ],
)
def test_bad_configuration(tmp_path: Path, samples: Path, rtsp: dict[str, Any], said: str) -> None:
    config = write_config(
        tmp_path, model={"path": samples / "streetnet.onnx"}, rtsp=rtsp, cameras={"a": {"url": samples / "gate.mp4"}}
    )
    checked = streamproc("check", config)
    assert checked.code == 2
    assert said in checked.err
