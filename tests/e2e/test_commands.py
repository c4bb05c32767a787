"""The other commands, and everything a user can get wrong."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.brokers import free_port, mosquitto
from tests.e2e.harness import Subscriber, started, streamproc, write_config


def test_version_and_help() -> None:
    assert streamproc("--version").out.strip() == "0.1.0"
    shown = streamproc("--help").out
    assert all(command in shown for command in ("run", "check", "watch", "schema"))


@pytest.mark.parametrize("which", ["config", "detections", "events", "status"])
def test_schema_prints_json_schema(which: str) -> None:
    done = streamproc("schema", which)
    assert done.code == 0
    schema = json.loads(done.out)
    assert "$schema" in schema
    assert "properties" in schema or "$ref" in schema or "anyOf" in schema


def test_all_that_is_wrong_is_told_at_once_with_exit_code_2(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        site="my site",
        model={"path": "nothing.onnx", "confidnce": 0.3},
        mqtt={"url": "http://broker", "password": "${NO_SUCH_VARIABLE}"},
        cameras={"gate 1": {"url": "missing.mp4"}, "yard": {"url": "rtsp://", "priority": "high"}},
    )
    for command in ("run", "check"):
        done = streamproc(command, config)
        assert done.code == 2, done.err
        for fragment in (
            "site",
            "model.path",
            "nothing.onnx",
            "confidence",
            "mqtt.url",
            "NO_SUCH_VARIABLE",
            "gate 1",
            "missing.mp4",
            "cameras.yard.url",
            "cameras.yard.priority",
        ):
            assert fragment in done.err, f"{fragment} is not in:\n{done.err}"
        assert "Traceback" not in done.err
    machine_readable = json.loads(streamproc("check", config, "--json").out)
    assert machine_readable["ok"] is False
    assert {"key", "found", "expected", "remedy"} <= set(machine_readable["config"][0])


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["run", "no/such/file.yaml"], "no/such/file.yaml"),
        (["run"], "CONFIG"),
        (["run", "{config}", "--duration", "-1"], "duration"),
        (["run", "{config}", "--report", "/no/such/folder/report.json"], "/no/such/folder"),
        (["schema", "nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    tmp_path: Path, samples: Path, arguments: list[str], fragment: str
) -> None:
    config = write_config(
        tmp_path, model={"path": samples / "streetnet.onnx"}, cameras={"gate": {"url": samples / "gate.mp4"}}
    )
    done = streamproc(*[argument.format(config=config) for argument in arguments])
    assert done.code == 2
    assert fragment in done.err
    assert "Traceback" not in done.err


def test_a_class_the_model_does_not_know_is_named(tmp_path: Path, samples: Path) -> None:
    config = write_config(
        tmp_path,
        model={"path": samples / "streetnet.onnx"},
        cameras={"gate": {"url": samples / "gate.mp4", "classes": ["persn"]}},
    )
    done = streamproc("run", config)
    assert done.code == 2
    assert "cameras.gate.classes" in done.err
    assert "persn" in done.err
    assert "person" in done.err


def test_a_file_that_is_no_model_is_told(tmp_path: Path, samples: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    config = write_config(tmp_path, model={"path": "broken.onnx"}, cameras={"gate": {"url": samples / "gate.mp4"}})
    done = streamproc("run", config)
    assert done.code == 1
    assert "broken.onnx" in done.err
    assert "Traceback" not in done.err


def test_check_tells_what_it_found(tmp_path: Path, samples: Path) -> None:
    with mosquitto(tmp_path) as broker:
        config = write_config(
            tmp_path,
            model={"path": samples / "streetnet.onnx"},
            mqtt={"url": f"mqtt://127.0.0.1:{broker.port}"},
            file={"path": str(tmp_path / "out.jsonl")},
            cameras={"gate": {"url": samples / "gate.mp4"}},
        )
        done = streamproc("check", config)
        assert done.code == 0, done.out + done.err
        for fragment in ("camera gate", "h264", "1280x720", "24", "model", "3 classes", "broker", "output file"):
            assert fragment in done.out, f"{fragment} is not in:\n{done.out}"
        findings = json.loads(streamproc("check", config, "--json").out)
        assert findings["ok"] is True
        assert [probe["ok"] for probe in findings["probes"]] == [True] * 4


def test_check_says_what_does_not_work(tmp_path: Path, samples: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = write_config(
            tmp_path,
            model={"path": samples / "streetnet.onnx"},
            mqtt={"url": f"embedded://127.0.0.1:{port}"},
            cameras={
                "empty": {"url": "empty.mp4"},
                "away": {"url": f"rtsp://127.0.0.1:{free_port()}/stream"},
                "gate": {"url": samples / "gate.mp4"},
            },
        )
        done = streamproc("check", config, "--json")
    assert done.code == 1
    findings = {probe["subject"]: probe for probe in json.loads(done.out)["probes"]}
    assert [findings[s]["ok"] for s in ("camera empty", "camera away", "camera gate", "broker")] == [
        False,
        False,
        True,
        False,
    ]
    assert "empty.mp4" in findings["camera empty"]["message"]
    assert str(port) in findings["broker"]["message"]


def test_watch_shows_detections_and_states(tmp_path: Path, samples: Path) -> None:
    with mosquitto(tmp_path) as broker, Subscriber(broker.port) as heard:
        heard.wait_subscribed()
        url = f"mqtt://127.0.0.1:{broker.port}"
        config = write_config(
            tmp_path,
            site="depot",
            model={"path": samples / "streetnet.onnx"},
            mqtt={"url": url},
            cameras={"gate": {"url": samples / "gate.mp4", "realtime": True, "loop": True}},
        )
        watched, log = tmp_path / "watched", tmp_path / "log"
        with started("watch", url, log=watched) as watching, started("run", config, log=log) as running:
            topic = "streamproc/depot/gate/detections"
            seen = 0
            while "depot/gate #" not in watched.read_text():
                assert watching.poll() is None, watched.read_text()
                seen += 10
                heard.wait_for(lambda topics, enough=seen: len(topics.get(topic, ())) >= enough)  # type: ignore[misc]
            running.terminate()
            assert running.wait(10) == 0, log.read_text()
    assert "person" in watched.read_text()


def test_watch_says_when_there_is_no_broker() -> None:
    done = streamproc("watch", f"mqtt://127.0.0.1:{free_port()}")
    assert done.code == 1
    assert "127.0.0.1" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("url", ["http://me:hunter2@x", "mqtt://me:hunter2@[::1", "mqtt://me:hunter2@x:99999"])
def test_watch_refuses_an_unusable_address_without_showing_its_password(url: str) -> None:
    done = streamproc("watch", url)
    assert done.code == 1
    assert "expected an address" in done.err
    assert "hunter2" not in done.err
