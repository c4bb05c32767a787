"""The embedded broker's process: how it begins, how it ends, and what it says. Its service is tested with the sink."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from streamproc.errors import DependencyError, FatalError
from streamproc.sinks.broker import EmbeddedBroker
from streamproc.sinks.endpoint import Endpoint
from streamproc.sinks.mqtt import connect, probe_broker
from tests.brokers import free_port
from tests.e2e.harness import Subscriber

ROOT = Path(__file__).resolve().parents[3]


def soonest() -> float:
    """Jitter that waits as little as it may."""
    return 0.0


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that rings no bell."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_it_serves_while_the_block_lasts_and_leaves_nothing_behind() -> None:
    endpoint = Endpoint(host="127.0.0.1", port=free_port())
    async with EmbeddedBroker(endpoint.host, endpoint.port) as broker:
        pid = broker.pid
        assert pid is not None
        await probe_broker(endpoint)
        assert os.getsid(pid) != os.getsid(0), "Ctrl-C in the terminal must not reach it"
        listening = {each.laddr.ip for each in psutil.Process(pid).net_connections("tcp") if each.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
    assert broker.pid is None
    assert not psutil.pid_exists(pid)
    async with EmbeddedBroker(endpoint.host, endpoint.port):  # the port is free again at once
        await probe_broker(endpoint)


async def test_it_passes_on_what_it_took_before_it_ends() -> None:
    endpoint = Endpoint(host="127.0.0.1", port=free_port())
    with contextlib.ExitStack() as stack:
        async with EmbeddedBroker(endpoint.host, endpoint.port):
            heard = stack.enter_context(Subscriber(endpoint.port))
            await asyncio.to_thread(heard.wait_subscribed)
            async with connect(endpoint) as speaker:
                for number in range(20):
                    await speaker.retain("words", b"%d" % number)
        await asyncio.to_thread(heard.wait_for, lambda topics: topics["words"] == list(range(20)))
    assert list(heard.messages) == ["words"]


async def test_it_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint(host="127.0.0.1", port=free_port())
    async with EmbeddedBroker(endpoint.host, endpoint.port):
        for _ in range(3):
            await probe_broker(endpoint)
    assert caplog.text == ""


async def test_a_port_in_use_is_fatal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FatalError, match=rf"cannot serve 127\.0\.0\.1:{port}: the address is in use.*mqtt\.url"):
            async with EmbeddedBroker("127.0.0.1", port):
                pass


async def test_an_address_of_somebody_else_is_fatal() -> None:
    with pytest.raises(FatalError, match=r"192\.0\.2\.1:\d+: it is no address of this machine"):
        async with EmbeddedBroker("192.0.2.1", free_port()):
            pass


async def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amqtt", None)
    with pytest.raises(DependencyError, match=r"streamproc\[broker\]"):
        async with EmbeddedBroker("127.0.0.1", free_port()):
            pass


async def test_a_killed_broker_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    endpoint = Endpoint(host="127.0.0.1", port=free_port())
    async with EmbeddedBroker(endpoint.host, endpoint.port, random=soonest) as broker:
        for count in (1, 2):
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            await eventually(lambda: broker.restarts == count and broker.pid is not None)  # noqa: B023
            await probe_broker(endpoint)
    assert caplog.text.count("starting it again") == 2


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(FatalError, match=r"^mine$"):
        async with EmbeddedBroker("127.0.0.1", free_port()):
            raise FatalError("mine")


async def test_a_hanging_broker_is_killed_at_the_end() -> None:
    async with EmbeddedBroker("127.0.0.1", free_port()) as broker:
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert not psutil.pid_exists(pid)


PARENT = """
import asyncio, sys
from streamproc.sinks.broker import EmbeddedBroker

async def main():
    async with EmbeddedBroker("127.0.0.1", int(sys.argv[1])) as broker:
        print(broker.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_ends_with_a_parent_that_was_killed() -> None:
    command = [sys.executable, "-c", PARENT, str(free_port())]
    parent = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    try:
        broker = psutil.Process(int(await parent.stdout.readline()))
    finally:
        parent.kill()
        await parent.communicate()
    await eventually(lambda: not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE)
