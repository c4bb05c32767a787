"""The MQTT sink against real brokers that come late, die, hang, and refuse."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streamproc.channel import Channel, Overflow
from streamproc.errors import SinkError
from streamproc.sinks import mqtt as client
from streamproc.sinks import mqtt_sink
from streamproc.sinks.base import Delivery
from streamproc.sinks.broker import EmbeddedBroker
from streamproc.sinks.endpoint import Endpoint, tls_context
from streamproc.sinks.mqtt import probe_broker, watch
from streamproc.sinks.mqtt_sink import MqttSink
from streamproc.telemetry import StatusBoard
from streamproc.types import CameraState
from tests.brokers import Certificates, Mosquitto, free_port, make_certificates, mosquitto
from tests.deliveries import Deliveries

ROOT = Path(__file__).resolve().parents[3]
Message = tuple[str, dict[str, Any]]


def soonest() -> float:
    """Jitter that waits as little as it may."""
    return 0.0


def local(port: int) -> Endpoint:
    return Endpoint(host="127.0.0.1", port=port)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that rings no bell."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Rig:
    """A sink that runs, with its inbox, its board, and one camera's deliveries."""

    def __init__(self, endpoint: Endpoint, *, max_age_ms: float | None = None, capacity: int | None = None) -> None:
        self.board = StatusBoard(["gate", "yard"])
        self.fps = 24.0
        self.sink = MqttSink(endpoint, site="depot", board=self.board, fps_of=lambda _: self.fps, random=soonest)
        overflow = Overflow.BLOCK if max_age_ms is None else Overflow.DROP_OLDEST
        self.inbox: Channel[Delivery] = Channel(capacity or self.sink.capacity, overflow, on_drop=Delivery.lost)
        self.deliveries = Deliveries("gate", max_age_ms=max_age_ms)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.sink.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sink.run(self.inbox))
            try:
                yield
            finally:
                self.inbox.close()

    async def answered(self) -> None:
        """Wait until every delivery made so far has its answer."""
        await eventually(lambda: not self.deliveries.unanswered)

    @property
    def published(self) -> int:
        return self.deliveries.ledger.tally().published

    @property
    def dropped(self) -> dict[str, int]:
        return self.deliveries.ledger.tally().dropped


class Listener:
    """What a subscriber to everything has seen."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self._news = asyncio.Condition()

    async def listen(self, endpoint: Endpoint) -> None:
        async for topic, payload in watch(endpoint, ["streamproc/#"], random=soonest):
            async with self._news:
                self.seen.append((topic, json.loads(payload)))
                self._news.notify_all()

    async def until(self, condition: Callable[[list[Message]], bool]) -> list[Message]:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: condition(self.seen))
            return list(self.seen)

    async def state(self, topic: str, **expected: object) -> None:
        """Wait until the last message of ``streamproc/depot/<topic>`` carries the expected values."""
        await self.until(lambda seen: expected.items() <= last(seen, topic).items())


def last(seen: list[Message], topic: str) -> dict[str, Any]:
    return next((payload for where, payload in reversed(seen) if where == f"streamproc/depot/{topic}"), {})


@asynccontextmanager
async def listening(endpoint: Endpoint) -> AsyncIterator[Listener]:
    listener = Listener()
    task = asyncio.create_task(listener.listen(endpoint))
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task.exception()


async def retained(endpoint: Endpoint, count: int) -> dict[str, dict[str, Any]]:
    """The ``count`` retained messages that a new subscriber is given."""
    found: dict[str, dict[str, Any]] = {}
    async with asyncio.timeout(10), aclosing(watch(endpoint, ["streamproc/#"], random=soonest)) as messages:
        async for topic, payload in messages:
            found[topic.removeprefix("streamproc/depot/")] = json.loads(payload)
            if len(found) == count:
                break
    return found


@dataclass(frozen=True)
class Broker:
    """A broker of either kind; ``restart`` kills it with -9 and has it back on the same port."""

    endpoint: Endpoint
    restart: Callable[[], object]


@pytest.fixture(params=["mosquitto", "embedded"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    if request.param == "mosquitto":
        with mosquitto(tmp_path) as real:

            def restart() -> None:
                real.kill()
                real.start()

            yield Broker(local(real.port), restart)
    else:
        port = free_port()
        async with EmbeddedBroker("127.0.0.1", port, random=soonest) as embedded:

            def kill() -> None:
                assert embedded.pid is not None
                os.kill(embedded.pid, signal.SIGKILL)

            yield Broker(local(port), kill)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as real:
        yield real


# --- the contract with every broker -----------------------------------------------------------------------------------


async def test_states_and_detections(broker: Broker) -> None:
    rig = Rig(broker.endpoint)
    async with listening(broker.endpoint) as listener:
        async with rig.running():
            await listener.state("status", state="online")
            await listener.state("gate/status", state="connecting", fps=24.0)
            rig.board.set("gate", CameraState.ONLINE)
            rig.board.set("yard", CameraState.OFFLINE, "eof")
            await listener.state("gate/status", state="online", reason=None)
            for _ in range(100):
                await rig.inbox.send(rig.deliveries.make(age_ms=30))
            await listener.state("gate/detections", seq=99)
            standing = await retained(broker.endpoint, 3)
            assert {topic: payload["state"] for topic, payload in standing.items()} == {
                "status": "online",
                "gate/status": "online",
                "yard/status": "offline",
            }
        seen = await listener.until(lambda seen: last(seen, "status").get("state") == "offline")
    detections = [payload for topic, payload in seen if topic.endswith("/detections")]
    assert [payload["seq"] for payload in detections] == list(range(100))
    assert all(payload["age_ms"] >= 30 and len(payload["detections"]) == 10 for payload in detections)
    assert (rig.published, rig.dropped) == (100, {})
    assert (rig.sink.counts.taken, rig.sink.counts.lost) == (100, Counter())
    standing = await retained(broker.endpoint, 3)
    assert {topic: (payload["state"], payload.get("reason")) for topic, payload in standing.items()} == {
        "status": ("offline", None),
        "gate/status": ("offline", "shutdown"),
        "yard/status": ("offline", "eof"),
    }


PUBLISHER = """
import asyncio, sys
from streamproc.channel import Channel, Overflow
from streamproc.sinks.endpoint import Endpoint
from streamproc.sinks.mqtt_sink import MqttSink
from streamproc.telemetry import StatusBoard

async def main():
    endpoint = Endpoint(host="127.0.0.1", port=int(sys.argv[1]))
    sink = MqttSink(endpoint, site="depot", board=StatusBoard(["gate"]), fps_of=lambda camera: 24.0)
    await sink.run(Channel(1, Overflow.BLOCK))

asyncio.run(main())
"""


async def test_a_killed_publisher_leaves_its_will(broker: Broker) -> None:
    command = [sys.executable, "-c", PUBLISHER, str(broker.endpoint.port)]
    async with listening(broker.endpoint) as listener:
        publisher = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
        try:
            await listener.state("gate/status", state="connecting")
        finally:
            publisher.kill()
            await publisher.wait()
        await listener.state("status", state="offline")
    assert (await retained(broker.endpoint, 2))["status"]["state"] == "offline"


async def test_a_broker_killed_under_load_comes_back(broker: Broker) -> None:
    rig = Rig(broker.endpoint)
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            await rig.inbox.send(rig.deliveries.make())
            await asyncio.sleep(0.001)

    async with listening(broker.endpoint) as listener, rig.running(), asyncio.TaskGroup() as group:
        group.create_task(load())
        await listener.state("status", state="online")
        before = last(await listener.until(lambda seen: bool(last(seen, "gate/detections"))), "gate/detections")["seq"]
        listener.seen.clear()
        broker.restart()
        await listener.state("status", state="online")
        await listener.state("gate/status", state="connecting")
        await listener.state("yard/status", state="connecting")
        await listener.until(lambda seen: last(seen, "gate/detections").get("seq", 0) > before)
        stop.set()
    tally = rig.deliveries.ledger.tally()
    assert rig.deliveries.unanswered == 0
    assert tally.published + sum(tally.dropped.values()) == tally.inferred
    assert tally.published == rig.sink.counts.taken
    assert tally.dropped == dict(rig.sink.counts.lost)


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_live_frames_are_lost_at_once_while_the_broker_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mosquitto(tmp_path, start=False) as late:
        rig = Rig(local(late.port), max_age_ms=10_000)
        async with listening(local(late.port)) as listener, rig.running():
            for _ in range(5):
                rig.inbox.offer(rig.deliveries.make())
            await rig.answered()
            assert rig.dropped == {"sink": 5}
            late.start()
            await listener.state("status", state="online")
            rig.inbox.offer(rig.deliveries.make())
            await listener.state("gate/detections", seq=5)
    assert rig.published == 1
    refusals = [record.message for record in caplog.records if record.name == mqtt_sink.__name__]
    assert any("connection refused" in line and "Start the broker" in line for line in refusals)
    assert len([line for line in refusals if "refused" in line]) == 1, "said once, however often it is tried"


async def test_frames_that_never_age_wait_for_the_first_connect(tmp_path: Path) -> None:
    with mosquitto(tmp_path, start=False) as late:
        rig = Rig(local(late.port))
        async with listening(local(late.port)) as listener, rig.running():
            for _ in range(rig.inbox.capacity):
                await rig.inbox.send(rig.deliveries.make())
            late.start()
            await listener.state("status", state="online")
            await rig.answered()
    assert (rig.published, rig.dropped) == (rig.inbox.capacity, {})


async def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_sink, "_PATIENCE_S", 0.1)
    rig = Rig(local(free_port()))
    async with rig.running():
        for _ in range(40):
            await rig.inbox.send(rig.deliveries.make())
        await rig.answered()
    assert rig.dropped == {"sink": 40}


async def test_what_is_too_old_is_not_published(plain: Mosquitto) -> None:
    rig = Rig(local(plain.port), max_age_ms=60_000)
    async with listening(local(plain.port)) as listener, rig.running():
        await listener.state("status", state="online")
        rig.inbox.offer(rig.deliveries.make(age_ms=70_000))
        rig.inbox.offer(rig.deliveries.make())
        seen = await listener.until(lambda seen: bool(last(seen, "gate/detections")))
    assert [payload["seq"] for topic, payload in seen if topic.endswith("detections")] == [1]
    assert (rig.published, rig.dropped, rig.sink.counts.lost) == (1, {"late": 1}, Counter(late=1))


async def test_a_broker_that_hangs_is_left_and_found_again(plain: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PUBLISH_TIMEOUT_S", 0.3)
    rig = Rig(local(plain.port), max_age_ms=600_000)
    async with rig.running():
        async with listening(local(plain.port)) as listener:
            await listener.state("status", state="online")
        plain.pause()
        async with asyncio.timeout(30):
            while not rig.sink.counts.lost:  # the system's buffers fill up first
                for _ in range(64):
                    rig.inbox.offer(rig.deliveries.make())
                await asyncio.sleep(0)
        plain.resume()
        async with listening(local(plain.port)) as listener:
            await listener.state("status", state="online")
            await rig.answered()
            listener.seen.clear()

            def shown() -> bool:  # with so short a deadline a busy machine may lose the new connection, too
                rig.inbox.offer(rig.deliveries.make())
                return bool(last(listener.seen, "gate/detections"))

            await eventually(shown)
    assert rig.deliveries.unanswered == 0


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_a_broker_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, certificates: Certificates, secure: bool
) -> None:
    with mosquitto(tmp_path, certificates=certificates if secure else None) as broker:
        endpoint = secured(broker, certificates.ca) if secure else local(broker.port)
        rig = Rig(endpoint, capacity=20_000)
        async with asyncio.timeout(20) as limit, rig.running():
            async with listening(endpoint) as listener:
                await listener.state("status", state="online")
            broker.pause()
            for _ in range(20_000):
                assert rig.inbox.offer(rig.deliveries.make())
            # The promise is 2 s; the rest is for a busy machine, and far from any other time-out (30 s of keepalive).
            limit.reschedule(asyncio.get_running_loop().time() + 6)
    assert rig.deliveries.unanswered == 0
    assert rig.dropped
    assert rig.dropped.keys() <= {"sink", "unpublished"}


async def test_a_short_run_waits_for_its_first_connect(plain: Mosquitto) -> None:
    rig = Rig(local(plain.port))
    async with rig.running():
        for _ in range(3):
            rig.inbox.offer(rig.deliveries.make())
    assert (rig.published, rig.dropped) == (3, {})


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13, 21, 100, 1000])
@pytest.mark.parametrize("present", [True, False], ids=["broker", "no broker"])
async def test_cancelling_answers_everything(plain: Mosquitto, present: bool, turns: int) -> None:
    """Whatever it is doing: connecting, greeting, publishing, waiting."""
    rig = Rig(local(plain.port if present else free_port()))
    task = asyncio.create_task(rig.sink.run(rig.inbox))
    for _ in range(turns):
        if not rig.inbox.offer(delivery := rig.deliveries.make()):
            delivery.lost()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert rig.deliveries.unanswered == 0
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_moving_frame_rate_is_shown(plain: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_sink, "_REFRESH_S", 0.05)
    rig = Rig(local(plain.port))
    async with listening(local(plain.port)) as listener, rig.running():
        await listener.state("gate/status", fps=24.0)
        rig.fps = 12.34
        await listener.state("gate/status", fps=12.3)


# --- getting in -------------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_named_and_a_right_one_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mosquitto(tmp_path, users={"camera": "right horse"}) as broker:
        good = Endpoint(host="127.0.0.1", port=broker.port, username="camera", password="right horse")
        bad = Endpoint(host="127.0.0.1", port=broker.port, username="camera", password="wrong horse")
        await probe_broker(good)
        with pytest.raises(SinkError, match=r"login as 'camera' refused.*mqtt\.username and mqtt\.password"):
            await probe_broker(bad)
        with pytest.raises(SinkError, match="login without a user name refused"):
            await probe_broker(local(broker.port))
        rig = Rig(bad, max_age_ms=1000)
        async with rig.running():
            rig.inbox.offer(rig.deliveries.make())
            await eventually(lambda: bool(caplog.records))
        assert rig.dropped == {"sink": 1}
    assert "horse" not in caplog.text + repr(bad)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def secured(broker: Mosquitto, ca: Path | None = None, *, host: str = "localhost", **files: Any) -> Endpoint:
    return Endpoint(host=host, port=broker.port, tls=tls_context(ca=ca, **files), ca=ca)


async def test_tls_with_an_authority_of_ones_own(tmp_path: Path, certificates: Certificates) -> None:
    with mosquitto(tmp_path, certificates=certificates) as broker:
        endpoint = secured(broker, certificates.ca)
        rig = Rig(endpoint)
        async with listening(endpoint) as listener, rig.running():
            await listener.state("status", state="online")
            for _ in range(1000):  # more than a TLS record and a socket buffer hold
                await rig.inbox.send(rig.deliveries.make())
            await listener.state("gate/detections", seq=999)
            assert (rig.published, rig.dropped) == (1000, {})
            listener.seen.clear()
            broker.kill()
            broker.start()
            await listener.state("status", state="online")
        await probe_broker(secured(broker, insecure=True, host="127.0.0.1"))


async def test_tls_failures_say_what_to_change(tmp_path: Path, certificates: Certificates) -> None:
    other = make_certificates(tmp_path / "other")
    with mosquitto(tmp_path, certificates=certificates) as broker:
        with pytest.raises(
            SinkError, match=rf"not accepted by the CA in {other.ca} for host 'localhost'.*mqtt\.tls\.ca"
        ):
            await probe_broker(secured(broker, other.ca))
        with pytest.raises(SinkError, match="not accepted by the system's certificate authorities"):
            await probe_broker(secured(broker))
    elsewhere = make_certificates(tmp_path / "elsewhere", names="DNS:elsewhere.test")
    with (
        mosquitto(tmp_path, certificates=elsewhere) as broker,
        pytest.raises(SinkError, match=r"for host 'localhost': Hostname mismatch"),
    ):
        await probe_broker(secured(broker, elsewhere.ca))


async def test_a_client_certificate(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mosquitto(tmp_path, certificates=certificates, ask_certificate=True) as broker:
        await probe_broker(
            secured(broker, certificates.ca, certificate=certificates.client, key=certificates.client_key)
        )
        monkeypatch.setattr(client, "_ANSWER_TIMEOUT_S", 0.5)
        with pytest.raises(SinkError, match=r"hung up without an answer.*mqtt\.tls\.certificate"):
            await probe_broker(secured(broker, certificates.ca))


async def test_tls_on_one_side_only(
    plain: Mosquitto, tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_ANSWER_TIMEOUT_S", 0.5)
    with pytest.raises(SinkError, match="TLS handshake failed"):
        await probe_broker(secured(plain, certificates.ca))
    with (
        mosquitto(tmp_path, certificates=certificates) as broker,
        pytest.raises(SinkError, match=r"mqtts://|no MQTT answer"),
    ):
        await probe_broker(local(broker.port))


async def test_a_probe_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SinkError, match=r"mqtt://127\.0\.0\.1:\d+: connection refused"):
        await probe_broker(local(free_port()))
    for host in ("nowhere.invalid", "a..b"):
        with pytest.raises(SinkError, match=f"cannot resolve the name '{re.escape(host)}'"):
            await probe_broker(Endpoint(host=host, port=1883))
    monkeypatch.setattr(client, "_ANSWER_TIMEOUT_S", 0.2)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        with pytest.raises(SinkError, match="no MQTT answer"):
            await probe_broker(local(server.sockets[0].getsockname()[1]))


async def test_watching_goes_on_after_a_restart(plain: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    rig = Rig(local(plain.port))
    async with listening(local(plain.port)) as listener, rig.running():
        for _ in range(3):
            await listener.state("status", state="online")
            listener.seen.clear()
            plain.kill()
            plain.start()
        await listener.state("status", state="online")
    assert "the connection was lost" in caplog.text
