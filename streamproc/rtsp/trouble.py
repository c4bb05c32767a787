"""What may be made to go wrong with a feed on purpose, by a camera simulator: the server asks and does as told."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from streamproc.rtsp.packetizer import Picture

__all__ = ["Treatment", "Trouble"]


class Treatment(Enum):
    """What becomes of a request by somebody who does not watch yet."""

    ANSWER = "answer"
    CUT = "cut"
    """The connection is closed without an answer."""
    IGNORE = "ignore"
    """It is never answered."""
    DENY = "deny"
    """Whatever the login, it is answered 401."""


class Trouble(Protocol):
    """One feed's. Called on the event loop; never waits."""

    def request(self) -> Treatment:
        """What to do with a request that names the feed."""
        ...

    def picture(self, picture: Picture) -> Picture | None:
        """The next picture as viewers are to get it; None: not at all."""
        ...

    def datagram(self) -> bool:
        """Whether the next RTP packet to a viewer over UDP goes out."""
        ...
