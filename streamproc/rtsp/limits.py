"""How much of the server clients may have, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of an RTSP server.

    Args:
        viewers: sessions at a time; one more is answered 503.
        connections: connections at a time, with or without a session.
        bad_requests: malformed requests, and wrong passwords, that a connection may send before it is closed.
        idle_s: longest pause between requests without a session.
        session_s: longest silence with one, as told to clients; also the longest time without a session.
        describe_s: longest wait for a feed's first keyframe, answered 503; shorter than ``idle_s``.
        stuck_s: longest time in which a viewer over TCP may take in too little to be sent a picture.
    """

    viewers: int = 64
    connections: int = 128
    bad_requests: int = 3
    idle_s: float = 10.0
    session_s: float = 60.0
    describe_s: float = 8.0
    stuck_s: float = 20.0
