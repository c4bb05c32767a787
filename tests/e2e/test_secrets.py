"""No password is ever shown: one run and every command, with credentials wherever some can be given."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from streamproc.rtsp.auth import Credentials, Gatekeeper, Verdict
from tests.brokers import Mosquitto, free_port, mosquitto
from tests.e2e.harness import TIMEOUT_S, started, streamproc, wait_for_log, write_config

PLACES = ("camera", "wrong_camera", "refused_camera", "rtsp", "wrong_viewer", "push", "mqtt", "wrong_mqtt", "away_mqtt")
USERS = {place: f"us3r-{place}" for place in PLACES}
# mosquitto's file of passwords takes none with a colon.
PASSWORDS = {place: f"s3cr3t-{place}/p@ss{'' if place == 'mqtt' else ':'}w#rd?%" for place in PLACES}
TOKEN = "t0k3n-of-triton"


def login(place: str, *, password: str | None = None) -> str:
    """For a URL, with its reserved characters quoted."""
    return f"{USERS[place]}:{quote(password or PASSWORDS[place], safe='')}@"


def apart(place: str) -> dict[str, str]:
    return {"username": USERS[place], "password": PASSWORDS[place]}


def basic(place: str) -> str:
    return base64.b64encode(f"{USERS[place]}:{PASSWORDS[place]}".encode()).decode()


def assert_hidden(text: str, where: str) -> None:
    """Neither a password, whole or in parts or encoded, nor what is as good as one."""
    shown = re.findall(r".*(?:s3cr3t-|t0k3n-).*", text)
    for place, password in PASSWORDS.items():
        as_good = hashlib.md5(f"{USERS[place]}:streamproc:{password}".encode()).hexdigest()
        encoded = (
            base64.b64encode(part.encode()).decode().rstrip("=") for part in (password, f"{USERS[place]}:{password}")
        )
        shown += [f"{place}, encoded" for form in (as_good, *encoded) if form in text]
    assert shown == [], where


class Listener:
    """Topics and payloads as they are, of all that is published; ``detected`` once there were detections."""

    def __init__(self, broker: Mosquitto) -> None:
        self.heard: list[str] = []
        self.detected = Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(USERS["mqtt"], PASSWORDS["mqtt"])
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = lambda _client, _data, message: self._hear(message.topic, bytes(message.payload))
        self._client.connect("127.0.0.1", broker.port)

    def __enter__(self) -> Listener:
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _hear(self, topic: str, payload: bytes) -> None:
        self.heard.append(f"{topic} {payload.decode()}")
        if topic.endswith("/detections"):
            self.detected.set()


def answers(address: str, requests: list[str]) -> list[str]:
    """What the RTSP server says to these, each on a connection of its own."""
    host, port = address.split(":")
    told = []
    for request in requests:
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(f"{request}\r\nCSeq: 1\r\nConnection: close\r\n\r\n".encode())
            told.append(connection.recv(1 << 16).decode())
    return told


def all_asked(address: str) -> None:
    """Who gets in, and what they are told: viewers with the right password, a wrong one, none, and nonsense."""
    describe = f"DESCRIBE rtsp://{address}/gate RTSP/1.0"
    digest = 'Digest username="us3r-rtsp", realm="streamproc", nonce="n", uri="u", response="r"'
    requests = {
        f"{describe}\r\nAuthorization: Basic {basic('rtsp')}": 200,
        describe: 401,
        f"{describe}\r\nAuthorization: Basic {basic('wrong_viewer')}": 401,
        f"{describe}\r\nAuthorization: {digest}": 401,
        f"DESCRIBE rtsp://{login('wrong_viewer')}{address}/gate RTSP/1.0": 401,
        f"{login('wrong_viewer')} NONSENSE": 400,
    }
    told = answers(address, list(requests))
    assert [int(answer.split(" ")[1]) for answer in told] == list(requests.values())
    assert_hidden("".join(told), "the RTSP server's answers")


@pytest.fixture
def camera_address(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two simulated cameras that ask for a password."""
    monkeypatch.setenv("STREAMPROC_SIMULATE_PASSWORD", PASSWORDS["camera"])
    command = ("simulate", samples / "gate.mp4", samples / "plaza.mp4", "--port", "0", "--username", USERS["camera"])
    log = tmp_path / "simulate.log"
    with started(*command, log=log):
        wait_for_log(log, "/plaza")
        yield re.findall(r"rtsp://(127\.0\.0\.1:\d+)/gate", log.read_text())[0]
    assert_hidden(log.read_text(), "simulate's output")


def everywhere(samples: Path, address: str, broker_port: int, **other: Any) -> dict[str, Any]:
    """A configuration with credentials wherever it takes some: right, wrong, and of servers that are not there."""
    closed = f"127.0.0.1:{free_port()}"
    return {
        "model": {"path": samples / "streetnet.onnx", "size": [640, 384]},
        "mqtt": {"url": f"mqtt://127.0.0.1:{broker_port}", **apart("mqtt")},
        "rtsp": {
            "listen": f"127.0.0.1:{free_port()}",
            "push": f"rtsp://{login('push')}{closed}/{{camera}}",
            **apart("rtsp"),
        },
        "cameras": {
            "gate": {"url": f"rtsp://{login('camera')}{address}/gate"},
            "plaza": {"url": f"rtsp://{address}/plaza", **apart("camera")},
            "wrong": {"url": f"rtsp://{login('wrong_camera')}{address}/gate"},
            "refused": {"url": f"rtsp://{closed}/gate", **apart("refused_camera")},
        },
        **other,
    }


def said(folder: Path, config: Mapping[str, Any], *commands: str) -> list[tuple[int, str]]:
    """Exit code and all output of each command with this configuration, run side by side; no secret is in them."""
    folder.mkdir()
    path = write_config(folder, **config)

    def run(command: str) -> tuple[int, str]:
        name, *options = command.split()
        finished = streamproc(name, path, *options)
        assert_hidden(finished.out + finished.err, command)
        return finished.code, finished.out + finished.err

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, commands))


def test_a_run_shows_no_password(tmp_path: Path, samples: Path, camera_address: str) -> None:
    with mosquitto(tmp_path, users={USERS["mqtt"]: PASSWORDS["mqtt"]}) as broker, Listener(broker) as listener:
        config = everywhere(samples, camera_address, broker.port)
        log, report = tmp_path / "log", tmp_path / "report.json"
        with started("run", write_config(tmp_path, **config), "--report", report, log=log) as process:
            wait_for_log(log, "live streams at")
            all_asked(config["rtsp"]["listen"])
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            assert_hidden(str([member.cmdline() for member in family]), "what ps shows")
            for line in ("gate: online", "camera wrong: ", "camera refused: ", "gave a wrong password"):
                wait_for_log(log, line)
            assert listener.detected.wait(TIMEOUT_S), log.read_text()
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
    assert any('"reason":"auth"' in message for message in listener.heard)
    assert_hidden("\n".join(listener.heard), "MQTT")
    assert_hidden(log.read_text(), "the log")
    assert_hidden(report.read_text(), "the report")
    assert '"auth": 1' in report.read_text()


def test_commands_that_fail_show_no_password(tmp_path: Path, samples: Path, camera_address: str) -> None:
    def config(**other: Any) -> dict[str, Any]:
        return everywhere(samples, camera_address, free_port(), **other)

    away = {"url": f"mqtt://127.0.0.1:{free_port()}", **apart("away_mqtt")}
    ((code, text),) = said(tmp_path / "away", config(mqtt=away), "run --duration 1")
    assert code == 0
    assert f"{away['url']}: " in text
    engine = {
        "kind": "triton",
        "url": f"grpc://127.0.0.1:{free_port()}",
        "headers": {"authorization": f"Bearer {TOKEN}"},
        "ready_timeout_s": 1,
    }
    nobody = config(mqtt=away, engine=engine, model={"name": "streetnet", "labels": "coco"})
    told = said(tmp_path / "nobody", nobody, "check", "check --json", "run")
    assert [code for code, _ in told] == [1, 1, 1]
    with mosquitto(tmp_path, users={USERS["mqtt"]: PASSWORDS["mqtt"]}) as broker:
        denied = config(mqtt={"url": f"mqtt://127.0.0.1:{broker.port}", **apart("wrong_mqtt")})
        (checked, _), (ran, text) = said(tmp_path / "denied", denied, "check", "run --duration 1")
    assert (checked, ran) == (1, 0)
    assert "Correct mqtt.username and mqtt.password" in text
    half = {"password": PASSWORDS["rtsp"]}
    gate = {"url": f"rtsp://{login('camera')}{camera_address}/gate", **apart("wrong_camera"), "colour": "red"}
    bad = config(rtsp=half, mqtt={"url": "tcp://x", **half}, cameras={"gate": gate})
    told = said(tmp_path / "bad", bad, "check", "check --json")
    assert [code for code, _ in told] == [2, 2]


def test_a_password_is_compared_whole_and_in_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def recorded(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return compare(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", recorded)
    gatekeeper = Gatekeeper(Credentials(username="me", password="right"))
    header = base64.b64encode(b"me:wrong").decode()
    assert gatekeeper.judge("DESCRIBE", f"Basic {header}") is Verdict.WRONG
    assert compared == [(b"me:wrong", b"me:right")]
    compared.clear()
    answer = 'Digest username="you", realm="streamproc", nonce="n", uri="u", response="0"'
    assert gatekeeper.judge("DESCRIBE", answer) is Verdict.WRONG
    assert [given for given, _ in compared] == [b"you", b"0"], "the answer, too, where the user name is wrong"
