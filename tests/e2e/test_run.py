"""`streamproc run` as its users see it: real processes, a plain MQTT client, signals."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from streamproc.messages import decode_detections, decode_status
from tests.brokers import free_port, mosquitto
from tests.cameras import start_server
from tests.e2e.harness import Subscriber, assert_sums_close, started, streamproc, write_config

SIGINT_LIMIT_S = 10.0
"""Generous for a loaded machine: that it ends at all is tested here; `make bench` prints how fast."""


def sample_config(folder: Path, samples: Path, url: str, **camera: object) -> Path:
    return write_config(
        folder,
        site="test",
        model={"path": samples / "streetnet.onnx"},
        mqtt={"url": url},
        cameras={name: {"url": samples / f"{name}.mp4", **camera} for name in ("gate", "yard", "crossing", "plaza")},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_runs_publishes_and_ends_when_asked(tmp_path: Path, samples: Path, number: int) -> None:
    port = free_port()
    config = sample_config(tmp_path, samples, f"embedded://127.0.0.1:{port}", loop=True)
    report, log = tmp_path / "report.json", tmp_path / "log"
    with started("run", config, "--report", report, log=log) as process, Subscriber(port) as heard:
        heard.wait_for(
            lambda topics: all(len(topics.get(f"streamproc/test/{c}/detections", ())) >= 10 for c in ("gate", "plaza"))
        )
        process.send_signal(number)
        code = process.wait(SIGINT_LIMIT_S)
        heard.wait_for_end("streamproc/test")
    assert code == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    states = {topic: [m["state"] for m in messages] for topic, messages in heard.messages.items() if "status" in topic}
    for camera in ("gate", "yard", "crossing", "plaza"):
        assert "online" in states[f"streamproc/test/{camera}/status"]
        assert states[f"streamproc/test/{camera}/status"][-1] == "offline"
    for topic, messages in heard.messages.items():
        for message in messages:
            payload = json.dumps(message).encode()
            decode_detections(payload) if topic.endswith("detections") else decode_status(payload)
    books = json.loads(report.read_text())
    assert books["schema"] == "streamproc.report/1"
    assert_sums_close(books)
    assert books["totals"]["published"] >= 20


def test_every_frame_of_a_file_is_published_once_and_in_order(tmp_path: Path, samples: Path) -> None:
    with mosquitto(tmp_path) as broker, Subscriber(broker.port) as heard:
        heard.wait_subscribed()
        config = sample_config(tmp_path, samples, f"mqtt://127.0.0.1:{broker.port}", realtime=False)
        report = tmp_path / "report.json"
        done = streamproc("run", config, "--report", report)
        assert done.code == 0, done.err
        heard.wait_for_end("streamproc/test")
    books = json.loads(report.read_text())
    assert_sums_close(books)
    for camera, row in books["cameras"].items():
        assert row["dropped"] == {}
        sequence = [m["seq"] for m in heard.messages[f"streamproc/test/{camera}/detections"]]
        assert sequence == list(range(row["received"]))
        media = [m["pts_s"] for m in heard.messages[f"streamproc/test/{camera}/detections"]]
        assert media == sorted(media)


def test_duration_ends_a_run_cleanly(tmp_path: Path, samples: Path) -> None:
    config = sample_config(tmp_path, samples, f"embedded://127.0.0.1:{free_port()}", loop=True)
    report = tmp_path / "report.json"
    done = streamproc("run", config, "--duration", "3", "--report", report)
    assert done.code == 0, done.err
    assert_sums_close(json.loads(report.read_text()))
    assert "published" in done.out, "the end-of-run table"
    assert "FPS out" in done.err, "periodic lines, since this is no terminal"


def test_the_pipeline_keeps_running_while_the_broker_is_away(tmp_path: Path, samples: Path) -> None:
    report, log = tmp_path / "report.json", tmp_path / "log"
    topic = "streamproc/test/gate/detections"
    with mosquitto(tmp_path, start=False) as broker:
        config = sample_config(tmp_path, samples, f"mqtt://127.0.0.1:{broker.port}", loop=True)
        with started("run", config, "--report", report, log=log) as process:
            for _ in range(2):
                broker.start()
                with Subscriber(broker.port) as heard:
                    heard.wait_for(lambda topics: len(topics.get(topic, ())) >= 5)
                broker.kill()
            process.send_signal(signal.SIGINT)
            assert process.wait(SIGINT_LIMIT_S) == 0, log.read_text()
    books = json.loads(report.read_text())
    assert_sums_close(books)
    assert books["totals"]["dropped"]["sink"] > 0, "what was lost meanwhile is counted"
    assert books["totals"]["published"] > 0


def test_neither_a_hung_camera_nor_a_hung_broker_keeps_a_run_alive(tmp_path: Path, samples: Path) -> None:
    report, log = tmp_path / "report.json", tmp_path / "log"
    with start_server(samples / "gate.mp4") as (camera, port), mosquitto(tmp_path) as broker:
        config = write_config(
            tmp_path,
            site="test",
            model={"path": samples / "streetnet.onnx"},
            mqtt={"url": f"mqtt://127.0.0.1:{broker.port}"},
            cameras={
                "gate": {"url": f"rtsp://127.0.0.1:{port}/cam"},
                "yard": {"url": samples / "yard.mp4", "loop": True},
            },
        )
        with started("run", config, "--report", report, log=log) as process:
            with Subscriber(broker.port) as heard:
                heard.wait_for(lambda topics: len(topics.get("streamproc/test/gate/detections", ())) >= 5)
            camera.send_signal(signal.SIGSTOP)
            broker.pause()
            process.send_signal(signal.SIGINT)
            assert process.wait(SIGINT_LIMIT_S) == 0, log.read_text()
    assert_sums_close(json.loads(report.read_text()))
    assert "does not answer" in log.read_text()


def test_outputs_to_file_and_video_agree_with_the_report(tmp_path: Path, samples: Path) -> None:
    clip = tmp_path / "clip.mp4"
    shutil.copy(samples / "gate.mp4", clip)
    config = write_config(
        tmp_path,
        model={"path": samples / "streetnet.onnx"},
        file={"path": str(tmp_path / "out" / "{camera}.jsonl")},
        video={"path": str(tmp_path / "out" / "{camera}.mp4")},
        cameras={"gate": {"url": "clip.mp4", "realtime": False}},
    )
    report = tmp_path / "report.json"
    done = streamproc("run", config, "--report", report, cwd=Path("/"))
    assert done.code == 0, done.err
    row = json.loads(report.read_text())["cameras"]["gate"]
    lines = (tmp_path / "out" / "gate.jsonl").read_text().splitlines()
    assert [decode_detections(line.encode()).seq for line in lines] == list(range(row["published"]))
    counted = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0",
         "-show_entries", "stream=nb_read_frames,width", "-of", "json", tmp_path / "out" / "gate.mp4"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert counted.stderr == ""
    stream = json.loads(counted.stdout)["streams"][0]
    assert (stream["width"], int(stream["nb_read_frames"])) == (1280, row["published"])


def test_an_unreadable_camera_fails_the_run_and_not_the_others(tmp_path: Path, samples: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"this is no video" * 100)
    config = write_config(
        tmp_path,
        model={"path": samples / "streetnet.onnx"},
        cameras={
            "broken": {"url": "broken.mp4", "realtime": False},
            "gate": {"url": samples / "gate.mp4", "realtime": False},
        },
    )
    report = tmp_path / "report.json"
    done = streamproc("run", config, "--report", report)
    assert done.code == 1
    assert "broken.mp4" in done.err
    assert "Traceback" not in done.err
    books = json.loads(report.read_text())
    assert_sums_close(books)
    assert books["cameras"]["gate"]["published"] > 0
