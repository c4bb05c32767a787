"""Annotated and raw streams of a whole run, watched by clients that others wrote."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.e2e.harness import Finished, assert_sums_close, started, streamproc, wait_for_log, write_config

PASSWORD = "s3cr3t/p@ss"
LOGIN = "viewer:s3cr3t%2Fp%40ss@"


@contextmanager
def served(
    folder: Path, samples: Path, *, run: Mapping[str, Any] | None = None, **rtsp: Any
) -> Iterator[tuple[str, Path]]:
    """A run with two endless cameras; its address, and the file that its report is written to at the end.

    ``run`` takes the place of sections of its configuration.

    The gate is without B-pictures, as cameras are: over RTSP, which has no decoding times, ffmpeg complains of others.
    """
    gate = folder / "gate.mp4"
    options = ["-t", "6", "-bf", "0", "-preset", "ultrafast"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(samples / "gate.mp4"), *options, str(gate)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    usual = {
        "model": {"path": samples / "streetnet.onnx", "size": [640, 384]},
        "cameras": {"gate": {"url": gate, "loop": True}, "plaza": {"url": samples / "plaza.mp4", "loop": True}},
    }
    config = write_config(folder, **{**usual, **(run or {})}, rtsp={"listen": address, **rtsp})
    report, log = folder / "report.json", folder / "log"
    with started("run", config, "--report", report, log=log) as process:
        wait_for_log(log, "live streams at rtsp://")
        yield address, report
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    assert_sums_close(json.loads(report.read_text()))


def ffmpeg(url: str, transport: str, *output: str) -> Finished:
    """ffmpeg playing a stream; on its error output there are only errors."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-rtsp_transport", transport, "-i", url, *output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return Finished(done.returncode, done.stdout, done.stderr)


def test_anybody_can_watch(tmp_path: Path, samples: Path) -> None:
    with served(tmp_path, samples) as (address, report):
        for path, transport in (("gate", "tcp"), ("plaza", "udp"), ("gate/raw", "tcp")):
            assert ffmpeg(f"rtsp://{address}/{path}", transport, "-t", "3", "-f", "null", "-") == (0, "", "")
        with av.open(f"rtsp://{address}/plaza", options={"rtsp_transport": "tcp"}, timeout=10) as container:
            pictures = [frame for _, frame in zip(range(30), container.decode(video=0), strict=False)]
        assert {(picture.width, picture.height) for picture in pictures} == {(1280, 720)}
        capture = cv2.VideoCapture(f"rtsp://{address}/gate", cv2.CAP_FFMPEG)
        assert capture.isOpened()
        assert capture.read()[0]
        capture.release()
        missing = ffmpeg(f"rtsp://{address}/nobody", "tcp", "-f", "null", "-")
        assert missing.code != 0
        assert "404" in missing.err
    told = json.loads(report.read_text())["rtsp"]
    assert told["feeds"]["gate"]["sent"] > 30
    assert told["feeds"]["gate/raw"]["sent"] > 30
    assert told["feeds"]["plaza/raw"]["published"] == 0
    assert told["age_ms"]["p95"] is not None


def test_what_is_watched_is_drawn_and_smaller_if_asked_for(tmp_path: Path, samples: Path) -> None:
    with served(tmp_path, samples, height=360, fps=8) as (address, _):
        with av.open(f"rtsp://{address}/gate", options={"rtsp_transport": "tcp"}, timeout=10) as drawn:
            picture = next(drawn.decode(video=0)).to_ndarray(format="bgr24")
        with av.open(f"rtsp://{address}/gate/raw", options={"rtsp_transport": "tcp"}, timeout=10) as raw:
            own = next(raw.decode(video=0)).to_ndarray(format="bgr24")
    assert picture.shape == (360, 640, 3)
    assert own.shape == (720, 1280, 3)
    header = picture[2:8, 2:100]
    assert np.ptp(header.astype(int).mean(axis=2)) > 60, "the header's white text on its dark strip"


def test_without_a_viewer_nothing_is_encoded(tmp_path: Path, samples: Path) -> None:
    with served(tmp_path, samples) as (_, report):
        wait_for_log(tmp_path / "log", "published")
    told = json.loads(report.read_text())
    assert told["sinks"]["rtsp"]["taken"] == 0
    assert all(feed["published"] == 0 for feed in told["rtsp"]["feeds"].values())


@pytest.mark.shared_data
def test_the_picture_keeps_the_cameras_rate_when_inference_does_not(
    tmp_path: Path, samples: Path, shared_data: Path
) -> None:
    """One thread infers some twenty of 48 frames a second, two thirds of them of the other camera; and the machine may
    be busy with other things."""
    overload = {
        "engine": {"threads": 1, "precision": "fp32"},
        "model": {"path": shared_data / "models" / "yolov8n.onnx", "labels": "coco"},
        "budget": {"max_frame_age_ms": 400},
        "cameras": {
            "gate": {"url": samples / "gate.mp4", "loop": True},
            "plaza": {"url": samples / "plaza.mp4", "loop": True, "priority": 2},
        },
    }
    with (
        served(tmp_path, samples, run=overload, height=360) as (address, report),
        av.open(f"rtsp://{address}/gate", options={"rtsp_transport": "tcp"}, timeout=20) as container,
    ):
        pictures = [frame for _, frame in zip(range(200), container.decode(video=0), strict=False)]
    steps_s = np.diff([picture.time for picture in pictures[1:]])  # the first one's time is not known to the client
    told = json.loads(report.read_text())
    shown, carried = told["sinks"]["rtsp"]["taken"], told["rtsp"]["carried"]
    books = told["cameras"]["gate"]
    print(f"{1 / steps_s.mean():.1f} pictures a second, {carried} of {shown} carried; {told['sinks']['rtsp']['lost']}")
    assert np.median(steps_s) == pytest.approx(1 / 24, abs=0.001)
    assert 0.75 * 24 < 1 / steps_s.mean() < 1.05 * 24
    assert books["inferred"] < 0.6 * books["decoded"]
    assert 0.4 * shown < carried <= shown


def test_a_password_keeps_others_out_and_is_shown_nowhere(tmp_path: Path, samples: Path) -> None:
    with served(tmp_path, samples, username="viewer", password=PASSWORD) as (address, report):
        assert ffmpeg(f"rtsp://{LOGIN}{address}/gate", "tcp", "-t", "1", "-f", "null", "-") == (0, "", "")
        for login in ("", "viewer:wrong@"):
            refused = ffmpeg(f"rtsp://{login}{address}/gate", "tcp", "-f", "null", "-")
            assert refused.code != 0
            assert "401" in refused.err
    assert not re.search("s3cr3t", (tmp_path / "log").read_text() + report.read_text())


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
