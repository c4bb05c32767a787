"""Simulated cameras: a run reads them as it would read real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.harness import assert_sums_close, started, streamproc, wait_for_log, write_config


def test_a_run_reads_simulated_cameras(tmp_path: Path, samples: Path) -> None:
    log, report = tmp_path / "simulate.log", tmp_path / "report.json"
    cameras = ("simulate", samples / "gate.mp4", samples / "plaza.mp4", "--port", "0")
    with started(*cameras, "--username", "viewer", "--password", "p@ss/word", log=log) as simulator:
        wait_for_log(log, "/plaza")
        found = re.search(r"rtsp://(127\.0\.0\.1:\d+)/gate", log.read_text())
        assert found is not None
        address, login = found[1], {"username": "viewer", "password": "p@ss/word"}
        config = write_config(
            tmp_path,
            model={"path": samples / "streetnet.onnx", "size": [640, 384]},
            cameras={name: {"url": f"rtsp://{address}/{name}", **login} for name in ("gate", "plaza")},
        )
        checked = streamproc("check", config)
        assert checked.code == 0, checked.out
        ran = streamproc("run", config, "--duration", "6", "--report", report)
        assert ran.code == 0, ran.err
        simulator.terminate()
        assert simulator.wait(10) == 0
    told = json.loads(report.read_text())
    assert_sums_close(told)
    assert all(camera["decoded"] > 60 and not camera["reconnects"] for camera in told["cameras"].values())
    assert "p@ss/word" not in log.read_text() + ran.err + ran.out + checked.out + report.read_text()


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        (["no.mp4"], 1, "no.mp4: No such file"),
        (["notes.txt"], 1, "notes.txt"),
        (["a/x.mp4", "b/x.mp4"], 2, "two files are called x"),
        (["x.mp4", "--username", "a"], 2, "--username and --password go together"),
        (["x.mp4", "--fault", "stal:30"], 2, "--fault: found 'stal:30'; expected [CAMERA/]KIND[:SECONDS][@AT], where"),
        (["x.mp4", "--fault", "stall", "--fault", "y/stall"], 2, "found 'y/stall'; expected a camera of x."),
    ],
)
def test_what_cannot_be_served_is_said(tmp_path: Path, files: list[str], code: int, said: str) -> None:
    (tmp_path / "notes.txt").write_text("not a video")
    finished = streamproc("simulate", *files, "--port", "0", cwd=tmp_path)
    assert finished.code == code
    assert said in finished.err
    assert "Traceback" not in finished.err
