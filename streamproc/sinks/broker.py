"""A small MQTT broker for machines that have none, in a process of its own. The only module that knows amqtt.

The process is this module run as a program: it writes one line when it listens (or why it does not), and ends when
its standard input does, which happens however its parent ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib.util
import ipaddress
import logging
import random as _random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from types import TracebackType
from typing import Self

from streamproc.backoff import Backoff
from streamproc.errors import DependencyError, FatalError, SinkError
from streamproc.sinks.endpoint import Endpoint
from streamproc.telemetry import RateLimitedLog

__all__ = ["EmbeddedBroker"]

_log = logging.getLogger(__name__)

_READY = "ready"
_START_TIMEOUT_S = 20.0
"""Importing the broker takes a second; on a small board that is busy starting everything else, several."""
_STOP_TIMEOUT_S = 2.0
_DRAIN_TIMEOUT_S = 1.0
_HEALTHY_S = 60.0


class EmbeddedBroker:
    """A broker at ``host:port``, open to everybody who can reach that address, while the block lasts.

    It has a session of its own, so that Ctrl-C in the terminal does not end it before the last messages are out, and
    is asked to end only once they are: amqtt acknowledges first, passes on later, and drops what is left when it
    ends. It keeps nothing on disk: retained messages end with it. Should it die, it is started again.

    Raises (on entering):
        DependencyError: amqtt is not installed.
        FatalError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, *, random: Callable[[], float] = _random.random) -> None:
        self.host = host
        self.port = port
        self._random = random
        self._group = asyncio.TaskGroup()
        self._process: Process | None = None
        self._warnings = RateLimitedLog(_log)
        self._keeping: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Its process, or None while there is none."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> Self:
        if importlib.util.find_spec("amqtt") is None:
            raise DependencyError(
                "mqtt.url: embedded:// needs the package amqtt, which is not installed. "
                "Install it with: pip install 'streamproc[broker]'"
            )
        if not _is_local(self.host):
            _log.warning("the embedded broker asks for no password, and %s is open to the network", self.host)
        self._process = await self._start()
        await self._group.__aenter__()
        self._keeping = self._group.create_task(self._keep_running(self._process), name="embedded broker")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeping is not None
        self._keeping.cancel()
        try:
            await self._group.__aexit__(None, None, None)  # the block's own error goes on as it is, in no group
        finally:
            if self._process is not None:
                process, self._process = self._process, None
                try:
                    await self._drain()
                finally:
                    await _stop(process)

    async def _drain(self) -> None:
        from streamproc.sinks.mqtt import drained  # not needed in the broker's process, which is to start soon

        with contextlib.suppress(SinkError, TimeoutError):
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                await drained(Endpoint(host=self.host, port=self.port), "$streamproc/end")

    async def _keep_running(self, process: Process) -> None:
        """Relay what the process complains about, and start it again when it ends."""
        backoff = Backoff(0.5, 10.0, self._random)
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            await self._relay(process)
            self._process = None
            await _stop(process)
            if loop.time() - began_s > _HEALTHY_S:
                backoff.reset()
            _log.warning("the embedded broker ended (exit code %s); starting it again", process.returncode)
            self._process = process = await self._restart(backoff)
            self.restarts += 1

    async def _restart(self, backoff: Backoff) -> Process:
        while True:
            await asyncio.sleep(backoff.next_s())
            try:
                return await self._start()
            except FatalError as exc:
                self._warnings.warning("restart", "%s", exc)

    async def _start(self) -> Process:
        address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        command = (sys.executable, "-m", "streamproc.sinks.broker", "--bind", address)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                answer = (await process.stdout.readline()).decode(errors="replace").strip()
            if answer == _READY:
                return process
            # Without an answer it did not get as far as listening: its last words are on the other pipe.
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                words = answer or await _last_line(process)
        except TimeoutError:
            words = f"it was not ready within {_START_TIMEOUT_S:g} s"
        except BaseException:
            await _stop(process)
            raise
        await _stop(process)
        raise FatalError(f"the embedded broker cannot serve {address}: {words}")

    async def _relay(self, process: Process) -> None:
        assert process.stderr is not None
        while text := (await process.stderr.read(65_536)).decode(errors="replace").rstrip():
            self._warnings.warning("process", "embedded broker: %s", text)


async def _last_line(process: Process) -> str:
    assert process.stderr is not None
    lines = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


async def _stop(process: Process) -> None:
    """End the process in order, or by force after a while; no zombie and no open pipe stays behind."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.communicate()
    except TimeoutError:
        _log.warning("the embedded broker (process %d) does not end; killing it", process.pid)
        process.kill()
        await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(bind: str) -> None:
    """The broker process: listen, say so, and serve until standard input ends."""
    from amqtt.broker import Broker
    from amqtt.contexts import BrokerConfig, ListenerConfig
    from amqtt.errors import BrokerError

    config = BrokerConfig(
        listeners={"default": ListenerConfig(bind=bind)},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    )
    broker = Broker(config)
    try:
        await broker.start()
    except BrokerError as exc:
        _say(_why(exc))
        return
    _say(_READY)
    parent = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(parent), sys.stdin
    )
    await parent.read()
    pipe.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_TIMEOUT_S / 2):
            await broker.shutdown()


def _why(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError):
        if cause.errno == errno.EADDRINUSE:
            return "the address is in use. Stop what listens there, or choose another port in mqtt.url"
        # Since Python 3.13 asyncio tries the other addresses of the name first, and then raises without a number.
        if cause.errno in (errno.EADDRNOTAVAIL, None):
            return "it is no address of this machine. Use 127.0.0.1 in mqtt.url"
        if cause.errno == errno.EACCES:
            return "permission denied. Choose a port of 1024 or more in mqtt.url"
    return str(cause or error).replace("\n", " ")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="streamproc.sinks.broker", description="MQTT broker without persistence.")
    parser.add_argument("--bind", required=True, metavar="HOST:PORT")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # A start that fails is told in the one line on standard output.
    logging.getLogger("amqtt.broker").addFilter(lambda record: record.getMessage() != "Broker startup failed")
    asyncio.run(_serve(arguments.bind))


if __name__ == "__main__":
    _main()
