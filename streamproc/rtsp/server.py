"""The RTSP server: one port, one feed a path, and who is connected."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from streamproc.errors import FatalError
from streamproc.rtsp.auth import Credentials
from streamproc.rtsp.connection import Connection
from streamproc.rtsp.feed import Feed, FeedStats
from streamproc.rtsp.limits import Limits
from streamproc.rtsp.protocol import Request, Target
from streamproc.rtsp.trouble import Treatment
from streamproc.rtsp.udp import Address, UdpPorts
from streamproc.telemetry import RateLimitedLog

__all__ = ["RtspServer", "ServerStats"]

_log = logging.getLogger(__name__)

_BACKLOG = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """``connections`` and ``viewers`` (sessions) now; ``refused`` since the start, by reason; ``feeds`` by path."""

    connections: int
    viewers: int
    refused: dict[str, int]
    feeds: dict[str, FeedStats]


class RtspServer:
    """Serves feeds to RTSP 1.0 clients, over TCP and UDP. Used on one event loop.

    Args:
        host: address to listen on; UDP packets go out from the address that a client connected to.
        port: TCP port; 0 takes a free one.
        feeds: by path.
        credentials: what viewers must know; None lets everybody watch.
    """

    def __init__(
        self,
        host: str,
        port: int,
        feeds: Mapping[str, Feed],
        *,
        credentials: Credentials | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.feeds = feeds
        self.credentials = credentials
        self.limits = limits or Limits()
        self.ports = UdpPorts(self._heard)
        self.warnings = RateLimitedLog(_log, interval_s=10.0)
        self._connections: set[Connection] = set()
        self._refused: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._serving = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        """Listen; :attr:`port` is the real one from now on.

        Raises:
            FatalError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        for feed in self.feeds.values():
            feed.attach(loop)
        self._serving = True
        try:
            self._server = await loop.create_server(lambda: Connection(self), self.host, self.port, backlog=_BACKLOG)
        except OSError as exc:
            raise FatalError(
                f"rtsp.listen: cannot listen on {self.host}:{self.port}: {exc.strerror or exc}. "
                "Stop what listens there, or give an address of this machine and a free port"
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End every session and connection, and stop listening. May be called again."""
        server, self._server = self._server, None
        if server is None:
            return
        self._serving = False
        server.close()
        for connection in tuple(self._connections):
            connection.close()
        await self._empty.wait()
        await server.wait_closed()
        for feed in self.feeds.values():
            feed.detach()
        self.ports.close()

    def stats(self) -> ServerStats:
        """A snapshot of the counts."""
        return ServerStats(
            connections=len(self._connections),
            viewers=self._sessions(),
            refused=dict(self._refused),
            feeds={path: feed.stats() for path, feed in self.feeds.items()},
        )

    def cut(self, path: str) -> None:
        """Close the connections of those who watch a path, without a word."""
        for connection in tuple(self._connections):
            if connection.session is not None and connection.session.feed.path == path:
                connection.cut()

    def joined(self, connection: Connection) -> bool:
        """A client connected; False when there are too many, or when the server ends."""
        self._connections.add(connection)
        self._empty.clear()
        return self._serving and len(self._connections) <= self.limits.connections

    def left(self, connection: Connection) -> None:
        """Its connection is closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def admits_session(self) -> bool:
        """Whether one more may watch."""
        return self._sessions() < self.limits.viewers

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refused[reason] += 1

    def treatment(self, request: Request) -> Treatment:
        """What a trouble of the feed that is asked for makes of the request. OPTIONS needs no login."""
        try:
            feed = self.feeds.get(Target.of(request.uri).path)
        except ValueError:
            return Treatment.ANSWER
        treatment = Treatment.ANSWER if feed is None or feed.trouble is None else feed.trouble.request()
        harmless = treatment is Treatment.DENY and request.method == "OPTIONS"
        return Treatment.ANSWER if harmless else treatment

    def _sessions(self) -> int:
        return sum(connection.session is not None for connection in self._connections)

    def _heard(self, address: Address) -> None:
        for connection in self._connections:
            connection.heard(address)
