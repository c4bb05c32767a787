"""Where a broker is and how to get a socket to it: names, addresses, TLS, and what to do when one of them is wrong.

Knows nothing of MQTT. Every step has a deadline and can be cancelled at once, which a connect on a worker thread
cannot.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from streamproc.errors import FatalError

__all__ = ["Endpoint", "dial", "remedy", "tls_context"]

DIAL_TIMEOUT_S = 5.0
"""TCP and TLS together: two lost SYN packets (retransmitted after 1 s and 3 s) still get through."""

_SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A path that went dead must not look alive until the keepalive notices, with minutes of messages in the kernel
    # that would all arrive, late, when it comes back.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5_000),
    # What the receiver does not take waits with us, where its age is still known, not in the kernel.
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 128 * 1024),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A broker's address and how to be let in; ``tls`` None is plain TCP.

    ``ca`` is the file that ``tls`` trusts (None: the system's), named in messages only.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    ca: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{host}:{self.port}"


def tls_context(
    *,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    insecure: bool = False,
) -> ssl.SSLContext:
    """A client's TLS context that trusts ``ca`` (None: the system's authorities).

    ``certificate`` and ``key`` (None: inside ``certificate``) are shown to a broker that asks. ``insecure`` accepts
    whatever certificate the broker has.

    Raises:
        FatalError: a file cannot be read or is not what it should be; the message names it.
    """
    context = ssl.create_default_context()
    if ca is not None:
        _check_readable(ca, "mqtt.tls.ca")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=ca)
        except ssl.SSLError as exc:
            raise FatalError(
                f"mqtt.tls.ca: {ca} holds no PEM certificate ({exc.reason}). Name the CA's .pem file"
            ) from exc
    if certificate is not None:
        _load_certificate(context, certificate, key)
    elif key is not None:
        raise FatalError(
            f"mqtt.tls.key: {key} is given without mqtt.tls.certificate. Add the certificate, or drop the key"
        )
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    _check_readable(certificate, "mqtt.tls.certificate")
    if key is not None:
        _check_readable(key, "mqtt.tls.key")
    try:
        # Without a password of our own OpenSSL would ask for one on the terminal, and wait.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as exc:
        raise FatalError(
            f"mqtt.tls: certificate {certificate} and key {key or certificate} cannot be used together "
            f"({exc.reason or 'not PEM, or an encrypted key'}). Both must be PEM and a pair, the key unencrypted"
        ) from exc


def _check_readable(path: Path, config_key: str) -> None:
    try:
        path.open("rb").close()
    except OSError as exc:
        raise FatalError(
            f"{config_key}: cannot read {path}: {exc.strerror}. Correct the path or its permissions"
        ) from exc


async def dial(endpoint: Endpoint, *, timeout_s: float = DIAL_TIMEOUT_S) -> socket.socket:
    """A connected, non-blocking socket, through its TLS handshake if the endpoint has one; the caller owns it.

    Raises:
        OSError: it cannot be reached, or its certificate was not accepted; :func:`remedy` explains it.
    """
    async with asyncio.timeout(timeout_s):
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except UnicodeError as exc:  # a name that the DNS cannot even be asked for, such as one with an empty label
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from exc
        failures: list[OSError] = []
        for family, _, protocol, _, address in found:
            try:
                # One address that swallows packets must not use up the time of the next.
                async with asyncio.timeout(timeout_s / len(found)):
                    return await _connect(socket.socket(family, socket.SOCK_STREAM, protocol), address, endpoint)
            except OSError as exc:
                failures.append(exc)
        raise failures[-1]


async def _connect(sock: socket.socket, address: tuple[object, ...], endpoint: Endpoint) -> socket.socket:
    try:
        sock.setblocking(False)
        for option in _SOCKET_OPTIONS:
            sock.setsockopt(*option)
        await asyncio.get_running_loop().sock_connect(sock, address)
        if endpoint.tls is not None:
            sock = endpoint.tls.wrap_socket(sock, server_hostname=endpoint.host, do_handshake_on_connect=False)
            await _shake_hands(sock)
    except BaseException:
        sock.close()
        raise
    return sock


async def _shake_hands(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            watch, unwatch = loop.add_reader, loop.remove_reader
        except ssl.SSLWantWriteError:
            watch, unwatch = loop.add_writer, loop.remove_writer
        ready = asyncio.Event()
        watch(sock, ready.set)
        try:
            await ready.wait()
        finally:
            unwatch(sock)


def remedy(error: OSError, endpoint: Endpoint) -> str:
    """What went wrong on the way to the broker and what to do about it, without the endpoint's name in front."""
    match error:
        case socket.gaierror():
            return f"cannot resolve the name {endpoint.host!r} ({error.strerror}). Check mqtt.url and the machine's DNS"
        case ConnectionRefusedError():
            return "connection refused: nothing listens there. Start the broker, or correct host and port in mqtt.url"
        case TimeoutError():
            return (
                f"no connection within {DIAL_TIMEOUT_S:g} s. Check host and port in mqtt.url, the network and firewalls"
            )
        case ssl.SSLCertVerificationError():
            trusted = f"the CA in {endpoint.ca}" if endpoint.ca else "the system's certificate authorities"
            return (
                f"its certificate was not accepted by {trusted} for host {endpoint.host!r}: {error.verify_message}."
                f" Set mqtt.tls.ca to the CA that signed it, and use a host name that it was made for"
            )
        case ssl.SSLError() | ConnectionResetError():
            return f"the TLS handshake failed ({error}). Does this port speak TLS, as mqtt.url says (mqtts)?"
        case _:
            return f"{error.strerror or os.strerror(error.errno or 0)}. Check host and port in mqtt.url and the network"
