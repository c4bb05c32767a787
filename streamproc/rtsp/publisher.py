"""Publishes a feed at an RTSP server (RFC 2326 sections 10.3 and 10.11): one connection, from OPTIONS to TEARDOWN."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from streamproc.rtsp.client import ANSWER_S, Client, Destination, Dialer, PushError
from streamproc.rtsp.feed import Feed
from streamproc.rtsp.protocol import TRACK
from streamproc.rtsp.sdp import Description, sdp
from streamproc.rtsp.viewer import Sent, TcpCarrier, Viewer

__all__ = ["Patience", "Publisher", "PushState"]

_TRANSPORT = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"
_INTERLEAVED = re.compile(r"interleaved=(\d{1,3})-(\d{1,3})")
_MOST_CHANNEL = 255
_TIMEOUT = re.compile(r";\s*timeout=(\d{1,6})")
_DEFAULT_SESSION_S = 60.0
"""RFC 2326 section 12.37."""

_LOOK_EVERY_S = 1.0
_FAREWELL_S = 1.0
_LITTLE_BYTES = 256 << 10
"""What may wait before a request: behind more, its answer would come late for no fault of the server's."""


class PushState(Enum):
    """What a push is doing: ``WAITING`` for a picture of the camera, ``RETRYING`` after a failure."""

    CONNECTING = "connecting"
    WAITING = "waiting"
    PUSHING = "pushing"
    RETRYING = "retrying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a server is waited for.

    Args:
        answer_s: for a connection, and for each answer.
        stuck_s: while it takes in too little to be sent a picture.
        idle_s: between two requests that keep the session alive, or half of the server's own limit where that is less.
            Media servers drop a publisher that is silent for 10 s, which a camera with few pictures may be.
        still_s: without a picture, until the stream is taken from the server; a camera that reboots is back before.
    """

    answer_s: float = ANSWER_S
    stuck_s: float = 20.0
    idle_s: float = 5.0
    still_s: float = 60.0


class Publisher:
    """Makes the server at one destination a viewer of one feed. Used on one event loop.

    The feed is watched from the moment the server answers to the moment it fails: what nobody can get is not encoded.

    Args:
        dialer: opens the connections.
        sent: what is sent and skipped is added here.
        on_state: is called when the state changes.
    """

    def __init__(
        self,
        feed: Feed,
        destination: Destination,
        *,
        dialer: Dialer,
        sent: Sent,
        on_state: Callable[[PushState], None],
        patience: Patience,
    ) -> None:
        self._feed = feed
        self._destination = destination
        self._dialer = dialer
        self._sent = sent
        self._on_state = on_state
        self._patience = patience

    async def publish(self) -> NoReturn:
        """Connect, and send pictures until it fails or is cancelled.

        Raises:
            PushError: it failed.
        """
        self._on_state(PushState.CONNECTING)
        async with self._dialer.connected(self._destination) as client:
            await client.ask("OPTIONS")
            self._on_state(PushState.WAITING)
            self._feed.acquire()
            try:
                await self._send(client, await self._described(client))
            finally:
                self._feed.release()

    async def _described(self, client: Client) -> Description:
        """What the feed's next keyframe says. A camera may be away for hours: meanwhile the server is kept at hand."""
        described = self._feed.described(anew=True)
        try:
            while not described.done():
                await _first(described, client.lost, timeout_s=self._patience.idle_s)
                if not described.done():
                    await client.ask("OPTIONS")
        finally:
            described.cancel()
        return described.result()

    async def _send(self, client: Client, description: Description) -> NoReturn:
        announced = {"Content-Type": "application/sdp"}
        await client.ask("ANNOUNCE", headers=announced, body=sdp(self._feed.path, description))
        answer = await client.ask("SETUP", TRACK, {"Transport": _TRANSPORT})
        client.session = answer.header("session").partition(";")[0].strip()
        named = _INTERLEAVED.search(answer.header("transport"))
        channels = tuple(map(int, named.groups())) if named else ()
        if not client.session or not channels or max(channels) > _MOST_CHANNEL:
            raise PushError("it takes no packets over TCP. Allow RTP over TCP at the server", reason="rejected")
        timeout = _TIMEOUT.search(answer.header("session"))
        session_s = float(timeout[1]) if timeout else _DEFAULT_SESSION_S
        carrier = TcpCarrier(client.transport, *channels)
        try:
            await client.ask("RECORD", headers={"Range": "npt=0.000-"})
            self._on_state(PushState.PUSHING)
            await self._stream(client, carrier, min(session_s / 2, self._patience.idle_s))
        finally:
            with suppress(PushError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await client.ask("TEARDOWN")

    async def _stream(self, client: Client, carrier: TcpCarrier, keep_alive_s: float) -> NoReturn:
        """Let the feed send, and look after it."""
        loop = asyncio.get_running_loop()
        with _Seat(self._feed, carrier, self._sent) as seat:
            asked_s = loop.time()
            while True:
                await _first(seat.ended, client.lost, timeout_s=_LOOK_EVERY_S)
                if client.lost.done():
                    raise client.lost.result()
                self._look_at(seat)
                if loop.time() - asked_s >= keep_alive_s and carrier.queued_bytes < _LITTLE_BYTES:
                    await client.ask("OPTIONS")
                    asked_s = loop.time()

    def _look_at(self, seat: _Seat) -> None:
        """Raise what is wrong with it, if anything is."""
        if seat.ended.done():
            raise PushError("the camera's codec has changed: the stream begins anew", reason="codec")
        if seat.viewer.stuck_s() > self._patience.stuck_s:
            raise PushError(
                f"for {self._patience.stuck_s:g} s it has taken in too little. Is it hanging, or the network too slow? "
                "rtsp.height, rtsp.fps and rtsp.bitrate_kbps make a stream smaller",
                reason="stuck",
            )
        if seat.still_s() > self._patience.still_s:
            raise PushError(
                f"the camera gave no picture for {self._patience.still_s:g} s. Its next one begins the stream anew",
                reason="no_picture",
            )


class _Seat:
    """A viewer's place at a feed, while the context is open; ``ended`` is done when the feed cannot go on for it."""

    def __init__(self, feed: Feed, carrier: TcpCarrier, sent: Sent) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.viewer = Viewer(carrier, sent, self._end)
        self._feed = feed
        self._sent = sent
        self._moved = (self._loop.time(), 0)

    def __enter__(self) -> _Seat:
        self._feed.join(self.viewer)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended.done():
            self._leave()

    def still_s(self) -> float:
        """For how long the feed has given no picture; asked now and then."""
        now_s, pictures = self._loop.time(), self._sent.pictures + self._sent.skipped
        if pictures != self._moved[1]:
            self._moved = (now_s, pictures)
        return now_s - self._moved[0]

    def _end(self) -> None:
        """Leave at once: the feed's very next picture is none for this viewer."""
        self._leave()
        self.ended.set_result(None)

    def _leave(self) -> None:
        self._feed.leave(self.viewer)
        self.viewer.bye()


async def _first(*futures: asyncio.Future[Any], timeout_s: float) -> None:
    """Wait until one of them is done, or the time is over."""
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
