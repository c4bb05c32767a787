"""The client's end of an RTSP connection (RFC 2326): requests to a server, each with its answer or a reason why not."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote, urlsplit

from streamproc.errors import SinkError
from streamproc.rtsp.answers import Answer, AnswerParser, BadAnswerError
from streamproc.rtsp.auth import Credentials, Login

__all__ = ["ANSWER_S", "Client", "Destination", "Dialer", "PushError"]

ANSWER_S = 10.0
"""Longest wait for a connection, TLS included, and for each answer."""

_READ_BYTES = 8192
_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322}
"""RFC 7826 section 22.14."""

_SOCKET_OPTIONS = (
    # What the server does not take waits with us, where it can be skipped, not in the kernel, where it only gets older.
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 128 << 10),
    # A path that went dead must not look alive until the kernel gives it up, a quarter of an hour later.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)


class PushError(SinkError):
    """A stream that cannot be pushed, or not any further; ``reason`` is one word for the report.

    The message says what and the remedy; whoever catches it knows the camera and the destination.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a stream goes. ``uri`` is what requests name: the address without user name and password."""

    uri: str
    host: str
    port: int
    tls: bool
    credentials: Credentials | None

    @classmethod
    def of(cls, url: str) -> Destination:
        """The parts of a checked ``rtsp(s)://[USER:PASSWORD@]HOST[:PORT]/PATH``.

        >>> Destination.of("rtsp://me:s%40crt@box/gate/?key=1").uri
        'rtsp://box/gate/?key=1'
        """
        parts = urlsplit(url)
        assert parts.hostname is not None, "a checked address has a host"
        login = None
        if parts.username is not None:
            login = Credentials(username=unquote(parts.username), password=unquote(parts.password or ""))
        return cls(
            uri=parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl(),
            host=parts.hostname,
            port=parts.port or _DEFAULT_PORTS[parts.scheme],
            tls=parts.scheme == "rtsps",
            credentials=login,
        )

    def __str__(self) -> str:
        """For people: without the query, which may hold a key."""
        return self.uri.partition("?")[0]


class Client(asyncio.BufferedProtocol):
    """One connection, made by :class:`Dialer`; one request at a time.

    Has no task, and waits for nothing: whatever the server does, ``lost`` is done when no more is to be had from it.
    """

    def __init__(self, destination: Destination, *, answer_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[PushError] = loop.create_future()
        self.session = ""
        self.transport: asyncio.WriteTransport
        self._uri = destination.uri
        self._answer_s = answer_s
        self._login = Login(destination.credentials) if destination.credentials is not None else None
        self._parser = AnswerParser()
        self._buffer = bytearray(_READ_BYTES)
        self._awaited: asyncio.Future[Answer] | None = None
        self._sequence = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server is there, and its certificate is right."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        for option in _SOCKET_OPTIONS:
            transport.get_extra_info("socket").setsockopt(*option)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where bytes come in: few enough at a time that a flood leaves the loop to the others."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came in."""
        if self.lost.done():
            return
        try:
            answers = self._parser.feed(self._buffer[:nbytes])
        except BadAnswerError as exc:
            self._lose(f"it sent {exc}. Is it an RTSP server?", "garbage")
            return
        for answer in answers:
            is_final = answer.status >= 200  # 100 says that the answer is on its way
            if is_final and self._awaited is not None and not self._awaited.done():
                self._awaited.set_result(answer)

    def eof_received(self) -> None:
        """The server closed its half, which is all of it to us."""
        self._lose("the server closed the connection. Its log should say why", "closed")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, whoever closed it."""
        why = f" ({exc.strerror})" if isinstance(exc, OSError) and exc.strerror else ""
        self._lose(f"the connection was lost{why}. Is the server still running?", "closed")

    # What the publisher calls.

    async def ask(
        self, method: str, path: str = "", headers: Mapping[str, str] | None = None, body: str = ""
    ) -> Answer:
        """Send a request for the stream, or for ``path`` below it, and return its answer, which is a success.

        Raises:
            PushError: it is refused, not answered in time, or the connection is lost.
        """
        answer = await self._exchange(method, path, headers or {}, body)
        if answer.status == 401 and self._login is not None:  # also where a nonce has had its time
            if not self._login.challenged(answer.headers.get("www-authenticate", ())):
                raise PushError("it asks for a kind of login other than Digest and Basic", reason="auth")
            answer = await self._exchange(method, path, headers or {}, body)
        if not 200 <= answer.status < 300:
            raise _refusal(method, answer.status, knows_login=self._login is not None)
        return answer

    def close(self) -> None:
        """End the connection at once; what waits to be sent is dropped."""
        self.transport.abort()

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: str) -> Answer:
        if self.lost.done():
            raise self.lost.result()
        self.transport.write(self._request(method, path, headers, body))
        awaited: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._awaited = awaited
        either: set[asyncio.Future[Any]] = {awaited, self.lost}
        await asyncio.wait(either, timeout=self._answer_s, return_when=asyncio.FIRST_COMPLETED)
        if awaited.done():
            return awaited.result()
        if self.lost.done():
            raise self.lost.result()
        raise PushError(f"it did not answer {method} within {self._answer_s:g} s. Is it hanging?", reason="timeout")

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: str) -> bytes:
        self._sequence += 1
        uri = f"{self._uri.rstrip('/')}/{path}" if path else self._uri
        fields = {"CSeq": str(self._sequence), "User-Agent": "streamproc", **headers}
        if self.session:
            fields["Session"] = self.session
        if self._login is not None and (authorization := self._login.header(method, uri)) is not None:
            fields["Authorization"] = authorization
        content = body.encode()
        if content:
            fields["Content-Length"] = str(len(content))
        lines = [f"{method} {uri} RTSP/1.0", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + content

    def _lose(self, message: str, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(PushError(message, reason=reason))


def _refusal(method: str, status: int, *, knows_login: bool) -> PushError:
    """What a server's no means, by RFC 2326 section 7.1.1."""
    said = f"it answered {method} with {status}"
    match status:
        case 401 if not knows_login:
            remedy = "it asks for a user name and a password. Add them: rtsp://USER:PASSWORD@HOST/PATH"
            return PushError(remedy, reason="auth")
        case 401 | 403:
            remedy = "wrong user name or password, or this user may not publish there. Correct them in rtsp.push"
            return PushError(remedy, reason="auth")
        case 404:
            return PushError(f"{said}: it does not know the path. Correct it in rtsp.push", reason="not_found")
        case 405 | 501:
            return PushError(f"{said}: it takes no streams. Name a server that does in rtsp.push", reason="rejected")
    return PushError(f"{said}. Does somebody else publish there? Its log should say why", reason="rejected")


class Dialer:
    """Opens connections. Used on one event loop.

    Looks host names up on a thread of its own: a dead name server would block those that everybody shares.

    Args:
        answer_s: longest wait for a connection, TLS included, and then for each answer.
    """

    def __init__(self, *, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._names = ThreadPoolExecutor(1, thread_name_prefix="rtsp-names")

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    @asynccontextmanager
    async def connected(self, destination: Destination) -> AsyncIterator[Client]:
        """A connection to the destination's server, closed in the end.

        Raises:
            PushError: there is no way to get there.
        """
        try:
            async with asyncio.timeout(self._answer_s):
                client = await self._connect(destination)
        except (OSError, UnicodeError) as exc:  # a timeout is an OSError; the other is a name that none can have
            raise _no_way(exc, destination, self._answer_s) from exc
        try:
            yield client
        finally:
            client.close()

    def close(self) -> None:
        """Look up no more names."""
        self._names.shutdown(wait=False, cancel_futures=True)

    async def _connect(self, destination: Destination) -> Client:
        loop = asyncio.get_running_loop()
        host, port = destination.host, destination.port
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await loop.run_in_executor(self._names, look_up)
        failures: list[OSError] = []
        for address in dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found):
            try:
                _, client = await loop.create_connection(
                    partial(Client, destination, answer_s=self._answer_s),
                    address,
                    port,
                    ssl=self._trust if destination.tls else None,
                    server_hostname=host if destination.tls else None,
                )
            except OSError as exc:
                failures.append(exc)
            else:
                return client
        raise failures[-1]


def _no_way(error: OSError | UnicodeError, destination: Destination, answer_s: float) -> PushError:
    """What went wrong on the way there, and what to do about it."""
    match error:
        case socket.gaierror() | UnicodeError():
            reason, message = "dns", f"cannot resolve the name {destination.host!r}. Check the machine's DNS, and "
        case ConnectionRefusedError():
            reason, message = "refused", "connection refused: nothing listens there. Start the server, or "
        case TimeoutError():
            reason, message = "timeout", f"no connection within {answer_s:g} s. Check the network and firewalls, or "
        case ssl.SSLCertVerificationError():
            message = (
                f"its certificate was not accepted by the system's authorities for host {destination.host!r}: "
                f"{error.verify_message}. Give it one that they signed, or let this machine trust its authority"
            )
            return PushError(message, reason="tls")
        case ssl.SSLError():
            reason, message = "tls", f"the TLS handshake failed ({error.reason}). Does this port speak TLS? If not, "
        case _:
            reason, message = (
                "unreachable",
                f"{error.strerror or os.strerror(error.errno or 0)}. Check the network, or ",
            )
    return PushError(f"{message}correct the address in rtsp.push", reason=reason)
