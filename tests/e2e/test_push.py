"""A whole run that pushes its annotated streams to a media server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import av

from tests.brokers import free_port
from tests.e2e.harness import TIMEOUT_S, assert_sums_close, started, streamproc, wait_for_log, write_config
from tests.recorders import record

PASSWORD = "s3cr3t/p@ss"
LOGIN = "me:s3cr3t%2Fp%40ss"


def config_in(folder: Path, samples: Path, **rtsp: Any) -> Path:
    """A configuration of two endless cameras."""
    return write_config(
        folder,
        model={"path": samples / "streetnet.onnx", "size": [640, 384]},
        rtsp=rtsp,
        cameras={name: {"url": samples / f"{name}.mp4", "loop": True} for name in ("gate", "plaza")},
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    pause = Event()
    for _ in range(round(TIMEOUT_S / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it never came")


def has_grown(folder: Path, least_bytes: int = 50_000) -> Callable[[], bool]:
    """Whether both recordings in a folder have so many bytes."""
    paths = [folder / f"{name}.h264" for name in ("gate", "plaza")]
    return lambda: all(path.exists() and path.stat().st_size >= least_bytes for path in paths)


def test_streams_are_pushed_with_and_without_a_server_of_our_own(tmp_path: Path, samples: Path) -> None:
    report, log = tmp_path / "report.json", tmp_path / "log"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    port, login = free_port(), ("--login", "me", PASSWORD, "--digest")
    config = config_in(tmp_path, samples, listen=None, push=f"rtsp://{LOGIN}@127.0.0.1:{port}/{{camera}}", height=360)
    with (
        record(first, "gate", "plaza", port=port, options=login) as (_, pid),
        started("run", config, "--report", report, log=log) as process,
    ):
        wait_for_log(log, f"live streams pushed to rtsp://***@127.0.0.1:{port}/CAMERA")
        wait_for_log(log, f"camera gate: pushed to rtsp://127.0.0.1:{port}/gate")
        wait_until(has_grown(first))
        os.kill(pid, signal.SIGKILL)
        wait_for_log(log, "connection refused: nothing listens there. Start the server")
        with record(second, "gate", "plaza", port=port, options=login):
            wait_until(has_grown(second))
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
    for path in (first / "gate.h264", second / "gate.h264", second / "plaza.h264"):
        with av.open(str(path)) as container:
            picture = next(container.decode(video=0))
            assert (picture.width, picture.height) == (640, 360)
    told = json.loads(report.read_text())
    assert_sums_close(told)
    for name in ("gate", "plaza"):
        push = told["rtsp"]["push"][name]
        assert push["state"] == "pushing"
        assert push["began"] >= 2
        assert sum(push["failures"].values()) >= 1
        assert push["sent"] > 0
        assert told["rtsp"]["feeds"][name]["published"] >= push["sent"]
    assert "s3cr3t" not in log.read_text() + report.read_text()


def test_a_server_that_never_answers_changes_nothing_for_the_cameras(tmp_path: Path, samples: Path) -> None:
    report = tmp_path / "report.json"
    script = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); sys.stdin.read()"
    )
    silent = subprocess.Popen(["python3", "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with silent as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        config = config_in(
            tmp_path, samples, listen=f"127.0.0.1:{free_port()}", push=f"rtsp://127.0.0.1:{port}/{{camera}}"
        )
        ran = streamproc("run", config, "--duration", "3", "--report", report)
        process.kill()
    assert ran.code == 0, ran.err
    told = json.loads(report.read_text())
    assert_sums_close(told)
    assert {push["state"] for push in told["rtsp"]["push"].values()} == {"connecting"}
    assert told["sinks"]["rtsp"]["taken"] == 0
    assert all(camera["published"] > 10 for camera in told["cameras"].values())


def test_check_asks_the_media_server(tmp_path: Path, samples: Path) -> None:
    port = free_port()
    checked = streamproc(
        "check", config_in(tmp_path, samples, listen=None, push=f"rtsp://{LOGIN}@127.0.0.1:{port}/{{camera}}")
    )
    assert checked.code == 1
    assert "connection refused: nothing listens there" in checked.out
    assert "s3cr3t" not in checked.out + checked.err
