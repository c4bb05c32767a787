"""The server's UDP ports in pairs, one pair for each of its addresses: RTP on an even port, RTCP on the next."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Address", "PortPair", "UdpPorts"]

Address: TypeAlias = tuple[str | int, ...]
"""As the socket module has it: host and port, and for IPv6 flow and scope."""

_TRIES = 64
_SEND_BUFFER_BYTES = 1 << 20
_READS = 32
"""Datagrams read before others get their turn: whoever floods the port must not hold up the loop."""


class PortPair:
    """An even port for RTP and the next one for RTCP, shared by all viewers at one of the server's addresses."""

    def __init__(self, host: str, heard: Callable[[Address], None]) -> None:
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._rtp, self._rtcp = _bind_pair(host)
        self.rtp_port: int = self._rtp.getsockname()[1]
        self.rtcp_port: int = self._rtcp.getsockname()[1]
        for one in (self._rtp, self._rtcp):
            self._loop.add_reader(one, self._read, one)

    def send_rtp(self, datagram: bytes, address: Address) -> None:
        """Send, or drop where the system does not take it: late video is worth nothing."""
        with contextlib.suppress(OSError):
            self._rtp.sendto(datagram, address)

    def send_rtcp(self, datagram: bytes, address: Address) -> None:
        """The same for RTCP."""
        with contextlib.suppress(OSError):
            self._rtcp.sendto(datagram, address)

    def close(self) -> None:
        """Close both ports."""
        for one in (self._rtp, self._rtcp):
            self._loop.remove_reader(one)
            one.close()

    def _read(self, one: socket.socket) -> None:
        """Say who sent something. What it says (receiver reports, packets that open a firewall) changes nothing."""
        for _ in range(_READS):
            try:
                _, address = one.recvfrom(2048)
            except OSError:
                return
            self._heard(address)


class UdpPorts:
    """Port pairs, made when first asked for. ``heard`` is called with the sender of every datagram."""

    def __init__(self, heard: Callable[[Address], None]) -> None:
        self._heard = heard
        self._pairs: dict[str, PortPair] = {}

    def at(self, host: str) -> PortPair:
        """The pair at one of the server's own addresses: packets must come from the address that was asked.

        Raises:
            OSError: no two free ports in a row were found.
        """
        if host not in self._pairs:
            self._pairs[host] = PortPair(host, self._heard)
        return self._pairs[host]

    def close(self) -> None:
        """Close every pair."""
        for pair in self._pairs.values():
            pair.close()
        self._pairs.clear()


def _bind_pair(host: str) -> tuple[socket.socket, socket.socket]:
    family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    for _ in range(_TRIES):
        with contextlib.ExitStack() as opened:
            rtp = opened.enter_context(socket.socket(family, kind))
            rtp.bind(address)
            port = rtp.getsockname()[1]
            rtcp = opened.enter_context(socket.socket(family, kind))
            try:
                if port % 2:
                    continue
                rtcp.bind((address[0], port + 1, *address[2:]))
            except OSError:
                continue
            for one in (rtp, rtcp):
                one.setblocking(False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            opened.pop_all()
            return rtp, rtcp
    raise OSError(f"no two free UDP ports in a row at {host}")
