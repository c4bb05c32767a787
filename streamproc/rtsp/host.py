"""What a connection needs of the server that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from streamproc.rtsp.auth import Credentials
from streamproc.rtsp.feed import Feed
from streamproc.rtsp.limits import Limits
from streamproc.rtsp.protocol import Request
from streamproc.rtsp.trouble import Treatment
from streamproc.rtsp.udp import UdpPorts
from streamproc.telemetry import RateLimitedLog

if TYPE_CHECKING:
    from streamproc.rtsp.connection import Connection

__all__ = ["Host"]


class Host(Protocol):
    """The server, as its connections see it."""

    feeds: Mapping[str, Feed]
    credentials: Credentials | None
    limits: Limits
    ports: UdpPorts
    warnings: RateLimitedLog

    def joined(self, connection: Connection) -> bool:
        """A client connected; False when there are too many."""
        ...

    def left(self, connection: Connection) -> None:
        """Its connection is closed."""
        ...

    def admits_session(self) -> bool:
        """Whether one more may watch."""
        ...

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        ...

    def treatment(self, request: Request) -> Treatment:
        """What a trouble of the feed that is asked for makes of the request."""
        ...
