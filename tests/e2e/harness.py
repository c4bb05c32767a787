"""Real processes and a plain MQTT client, for tests that see streamproc as its users do."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

TIMEOUT_S = 120


class Finished(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "streamproc.cli", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def streamproc(*args: str | Path, cwd: Path | None = None, timeout_s: float = TIMEOUT_S) -> Finished:
    """Run a streamproc command to its end."""
    done = subprocess.run(command(*args), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout_s)
    return Finished(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def started(*args: str | Path, log: Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A streamproc command in the background, its output in ``log``; killed at the end if it still runs."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(*args), cwd=cwd, env=environment(), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(TIMEOUT_S)


def wait_for_log(log: Path, text: str) -> None:
    """Wait until a background command has written this."""
    pause, deadline_s = threading.Event(), time.monotonic() + TIMEOUT_S
    while text not in log.read_text():
        assert time.monotonic() < deadline_s, f"{text!r} never came:\n{log.read_text()}"
        pause.wait(0.05)


def write_config(folder: Path, **content: Any) -> Path:
    """A configuration file; JSON is YAML."""
    path = folder / "cameras.yaml"
    path.write_text(json.dumps(content, default=str))
    return path


class Subscriber:
    """A plain MQTT client that keeps everything it hears, by topic, as decoded JSON."""

    def __init__(self, port: int, topic: str = "#") -> None:
        self.messages: dict[str, list[Any]] = defaultdict(list)
        self.retained: dict[str, Any] = {}
        self._news: queue.Queue[str] = queue.Queue()
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._keep
        self.port = port

    def __enter__(self) -> Subscriber:
        self._client.connect_async("127.0.0.1", self.port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_subscribed(self) -> None:
        assert self._ready.wait(TIMEOUT_S), "the broker never answered"

    def wait_for(self, condition: Callable[[Mapping[str, list[Any]]], bool]) -> None:
        """Wait until what was heard so far satisfies ``condition``."""
        while not condition(self.messages):
            try:
                self._news.get(timeout=TIMEOUT_S)
            except queue.Empty:
                raise AssertionError(f"gave up waiting; topics heard: {sorted(self.messages)}") from None

    def wait_for_end(self, site: str) -> None:
        """Wait for a run's last word; what was sent before it has been heard then."""
        self.wait_for(lambda topics: [m["state"] for m in topics.get(f"{site}/status", ())][-1:] == ["offline"])

    def _keep(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        payload = msgspec.json.decode(message.payload)
        if message.retain:
            self.retained[message.topic] = payload
        self.messages[message.topic].append(payload)
        self._news.put(message.topic)


_STAGES = (
    ("received", "decoded", ("corrupt", "no_picture", "skipped", "behind", "undecoded")),
    ("decoded", "inferred", ("overload", "stale", "engine", "shutdown")),
    ("inferred", "published", ("late", "sink", "unpublished")),
)


def assert_sums_close(report: Mapping[str, Any]) -> None:
    """Every frame of every camera is accounted for, stage by stage, and by a known reason."""
    known = {reason for *_, reasons in _STAGES for reason in reasons}
    for name, row in (*report["cameras"].items(), ("totals", report["totals"])):
        assert set(row["dropped"]) <= known, f"{name}: unknown reasons in {row['dropped']}"
        for entered, left, reasons in _STAGES:
            lost = sum(row["dropped"].get(reason, 0) for reason in reasons)
            assert row[entered] == row[left] + lost, f"{name}: {entered} {row[entered]} != {left} {row[left]} + {lost}"
