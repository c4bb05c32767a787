"""MQTT connections: one that is used, a probe, and a subscription that lasts. The only module that knows aiomqtt.

A connection that failed is thrown away with whatever was inside, and the next one is a new client: nothing is ever
published from a queue that survived an outage, and whoever connects is the one owner of retries.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random as _random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import aiomqtt

from streamproc.backoff import Backoff
from streamproc.errors import SinkError
from streamproc.sinks.endpoint import Endpoint, dial, remedy
from streamproc.telemetry import RateLimitedLog

__all__ = ["Connection", "LoginError", "connect", "drained", "probe_broker", "watch"]

_log = logging.getLogger(__name__)
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.CRITICAL)  # every failure reaches us as an exception, and is said once, with a remedy

_ANSWER_TIMEOUT_S = 5.0
"""From CONNECT to the broker's CONNACK."""
_PUBLISH_TIMEOUT_S = 2.0
"""A connection that does not take a message for so long is dead."""
_LOGIN_REFUSED = frozenset({4, 5, 134, 135})
"""Bad user name or password, not authorized: MQTT 3.1.1 (3.2.2.3) and MQTT 5 (3.2.2.2), to which the library maps."""


class LoginError(SinkError):
    """The broker knows us and does not let us in: asking again soon would only fill its log."""


class Connection:
    """One MQTT session over one socket, from CONNACK to its loss; never used again after that."""

    def __init__(self, client: aiomqtt.Client, sock: socket.socket, endpoint: Endpoint) -> None:
        self._client = client
        self._sock = sock
        self._endpoint = endpoint
        self._writing: asyncio.Timeout | None = None

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Write (topic, payload) messages at QoS 0; how many, counted from the first, the kernel took.

        Fewer than were given means that the connection is dead, and it is closed. aiomqtt waits for each message on
        its own; the client beneath it writes in order, so that waiting for the last one is enough.
        """
        beneath = self._client._client
        *most, (last_topic, last_payload) = messages
        receipts = [beneath.publish(topic, payload) for topic, payload in most]
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S) as self._writing:
                await self._client.publish(last_topic, last_payload)
        except (aiomqtt.MqttError, TimeoutError):
            self.abort()
            return sum(receipt.rc == 0 and receipt.is_published() for receipt in receipts)
        finally:
            self._writing = None
        return len(messages)

    async def retain(self, topic: str, payload: bytes) -> None:
        """Publish a retained message at QoS 1 and wait for the broker's acknowledgement."""
        async with self._acknowledged(topic):
            await self._client.publish(topic, payload, qos=1, retain=True)

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe at QoS 1."""
        async with self._acknowledged("the subscription"):
            await self._client.subscribe([(topic, 1) for topic in topics])

    async def farewell(self) -> None:
        """Leave in order, so that the broker drops the will."""
        async with self._acknowledged("the farewell"):
            await self._client.__aexit__(None, None, None)

    @asynccontextmanager
    async def _acknowledged(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                yield
        except (aiomqtt.MqttError, TimeoutError) as exc:
            raise SinkError(f"{self._endpoint}: {what} was not acknowledged. Is the broker hanging?") from exc

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        """(topic, payload) of what comes in; ends only by SinkError, when the connection is lost."""
        try:
            async for message in self._client.messages:
                assert isinstance(message.payload, bytes)
                yield message.topic.value, message.payload
        except aiomqtt.MqttError as exc:
            raise SinkError(f"{self._endpoint}: the connection was lost. Is the broker still running?") from exc

    async def until_lost(self) -> None:
        """Wait for the end of the connection, which is a SinkError; a message being written then fails at once."""
        try:
            async for _ in self.messages():
                pass
        finally:
            if self._writing is not None and not self._writing.expired():
                self._writing.reschedule(asyncio.get_running_loop().time())

    def abort(self) -> None:
        """End the connection without a farewell, so that the broker publishes the will.

        The library has no call for this: it learns of it as if the broker had hung up, and lets go of the socket.
        """
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    async def let_go(self) -> None:
        """Abort, and wait until the library knows."""
        self.abort()
        with suppress(SinkError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self.until_lost()


@asynccontextmanager
async def connect(
    endpoint: Endpoint, client_id: str | None = None, *, will: tuple[str, bytes] | None = None, keepalive_s: int = 30
) -> AsyncIterator[Connection]:
    """A connection for the length of the block; leaving it by an exception skips the farewell to the broker, which then
    publishes ``will`` (topic and payload, retained, QoS 1).

    Raises:
        SinkError: no connection came about, or the farewell failed; the message says why and what to do.
    """
    try:
        sock = await dial(endpoint)
    except OSError as exc:
        raise SinkError(f"{endpoint}: {remedy(exc, endpoint)}") from exc
    try:
        client = aiomqtt.Client(
            endpoint.host,
            endpoint.port,
            username=endpoint.username,
            password=endpoint.password,
            identifier=client_id,
            will=aiomqtt.Will(*will, qos=1, retain=True) if will else None,
            keepalive=keepalive_s,
            # Deadlines are set here: the library's own swallow a cancellation that comes together with the answer
            # (asyncio.wait_for before Python 3.12).
            timeout=math.inf,
            max_queued_incoming_messages=10_000,
            logger=_library_log,
        )
        # The library would connect on a thread that cannot be cancelled, and a client that was given up meanwhile
        # would go on in the background. It gets a socket that is connected already.
        client._client._create_socket = lambda: sock  # type: ignore[method-assign]
        await _enter(client, sock, endpoint)
        assert client._client.socket() is sock, "the MQTT library opened a socket of its own"
        connection = Connection(client, sock, endpoint)
        try:
            yield connection
        except BaseException:
            await connection.let_go()
            raise
        await connection.farewell()
    finally:
        await _close(sock)


async def _enter(client: aiomqtt.Client, sock: socket.socket, endpoint: Endpoint) -> None:
    """Log in. The library must not see a cancellation before it has let go of the socket."""
    entering = asyncio.create_task(client.__aenter__(), name="mqtt login")
    try:
        await asyncio.wait({entering}, timeout=_ANSWER_TIMEOUT_S)
        if not entering.done():
            raise _silence(endpoint, hung_up=sock.fileno() < 0)
        entering.result()
    except aiomqtt.MqttError as exc:
        raise _refusal(exc, endpoint) from exc
    finally:
        if not entering.done():
            await _close(sock)
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)


async def _close(sock: socket.socket) -> None:
    """Have the library let go of the socket, as it does within a few turns of the loop once that was shut down."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    for _ in range(100):
        if sock.fileno() < 0:
            return
        await asyncio.sleep(0.001)
    sock.close()  # the library never got it


def _refusal(error: aiomqtt.MqttError, endpoint: Endpoint) -> SinkError:
    code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
    if getattr(code, "value", code) in _LOGIN_REFUSED:
        who = f"as {endpoint.username!r}" if endpoint.username is not None else "without a user name"
        return LoginError(f"{endpoint}: login {who} refused: {code}. Correct mqtt.username and mqtt.password")
    return SinkError(f"{endpoint}: the broker refused the connection: {code or error}")


def _silence(endpoint: Endpoint, *, hung_up: bool) -> SinkError:
    if hung_up:
        return SinkError(
            f"{endpoint}: the broker hung up without an answer. Does the port speak TLS (mqtts://) or not (mqtt://), "
            f"and does it ask for a client certificate (mqtt.tls.certificate)?"
        )
    return SinkError(f"{endpoint}: no MQTT answer within {_ANSWER_TIMEOUT_S:g} s. Is it a broker, and is it running?")


async def probe_broker(endpoint: Endpoint) -> None:
    """Connect, log in, and leave.

    Raises:
        SinkError: it did not work; the message says why and what to do.
    """
    async with connect(endpoint):
        pass


async def drained(endpoint: Endpoint, topic: str) -> None:
    """Wait until a broker that passes messages on in order has sent out what it had taken before this call: what we
    publish to ``topic`` last comes back last. A topic that begins with ``$`` is heard by nobody who did not name it
    (MQTT 3.1.1, 4.7.2).

    Raises:
        SinkError: the broker cannot be asked; the message says why.
    """
    async with connect(endpoint) as connection:
        await connection.subscribe([topic])
        await connection.send([(topic, b"")])
        async for _ in connection.messages():
            return


async def watch(
    endpoint: Endpoint, topics: Sequence[str], *, random: Callable[[], float] = _random.random
) -> AsyncGenerator[tuple[str, bytes], None]:
    """(topic, payload) of every message on ``topics`` (wildcards allowed), for ever; reconnects by itself."""
    warnings = RateLimitedLog(_log, interval_s=30.0)
    backoff = Backoff(0.5, 10.0, random)
    while True:
        try:
            async with connect(endpoint) as connection:
                await connection.subscribe(topics)
                backoff.reset()
                async for message in connection.messages():
                    yield message
        except SinkError as exc:
            warnings.warning(str(exc), "%s", exc)
        await asyncio.sleep(backoff.next_s())
