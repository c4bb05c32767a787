"""One client's RTSP connection (RFC 2326): its requests answered one after the other, its session, its deadlines."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping

from streamproc.rtsp.auth import Credentials, Gatekeeper, Verdict
from streamproc.rtsp.feed import Feed
from streamproc.rtsp.host import Host
from streamproc.rtsp.protocol import TRACK, BadMessage, Parser, Request, Target, reply
from streamproc.rtsp.sdp import Description, sdp
from streamproc.rtsp.session import Session
from streamproc.rtsp.transport import choose
from streamproc.rtsp.trouble import Treatment
from streamproc.rtsp.udp import Address

__all__ = ["Connection"]

_log = logging.getLogger(__name__)

_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, GET_PARAMETER, SET_PARAMETER, TEARDOWN"
_READ_BYTES = 8192
_MOST_UNREAD_BYTES = 8 << 20
"""Replies and packets that wait for a client that asks without listening."""


class Connection(asyncio.BufferedProtocol):
    """The server's end of one connection. It has no task: requests are answered as they come in, and only DESCRIBE
    of a feed that has shown nothing yet waits, while what follows it is left unread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parser = Parser()
        self._buffer = bytearray(_READ_BYTES)
        self._loop = asyncio.get_running_loop()
        self._gatekeeper = Gatekeeper(host.credentials) if host.credentials else None
        self._trusted = host.credentials is None
        self._transport: asyncio.Transport
        self._peer: Address = ("nowhere", 0)
        self._waiting: asyncio.Future[Description] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sessionless_s = self._heard_s = self._loop.time()
        self._bad = 0
        self._wrong = 0
        self.session: Session | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if peer is None:  # it is gone again
            transport.abort()
        else:
            self._peer = peer
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not self._host.joined(self):
            self._host.refused("clients")
            transport.write(reply(503, None))
            transport.close()
            return
        self._watch_deadline()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where bytes come in: few enough at a time that a flood from one client leaves the loop to the others."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came in."""
        self._parser.feed(self._buffer[:nbytes])
        if self._waiting is None:
            self._answer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, whoever closed it; a client that closes its half closes all of it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting is not None:
            self._waiting.cancel()
        self._end_session()
        self._host.left(self)

    def close(self) -> None:
        """End it: what waits to be sent is dropped."""
        self._end_session()
        self._transport.abort()

    def cut(self) -> None:
        """Close it as a failing network does: the client is told nothing."""
        self._transport.abort()

    def heard(self, address: Address) -> None:
        """A datagram came from the client's host; one from its ports is a sign of life."""
        if self.session is not None and self.session.owns(address):
            self._heard_s = self._loop.time()

    # Requests.

    def _answer(self) -> None:
        for message in self._parser.messages():
            if self._transport.is_closing():
                return
            if isinstance(message, BadMessage):
                self._answer_bad(message)
            elif isinstance(message, Request):
                self._heard_s = self._loop.time()
                self._answer_request(message)
            elif self.session is not None:  # the client's RTCP: what it says is of no use, that it says it is
                self._heard_s = self._loop.time()
            if self._waiting is not None:
                self._transport.pause_reading()
                return
        if not self._transport.is_closing() and self._transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self._host.refused("unread")
            self.close()

    def _answer_bad(self, message: BadMessage) -> None:
        self._bad += 1
        self._host.refused("malformed")
        self._transport.write(reply(message.status, message.cseq))
        if message.fatal or self._bad >= self._host.limits.bad_requests:
            self._transport.close()

    def _answer_request(self, request: Request) -> None:
        if self._is_settled(request):
            return
        handler = {
            "DESCRIBE": self._describe,
            "SETUP": self._setup,
            "PLAY": self._play,
            "PAUSE": self._pause,
            "GET_PARAMETER": self._keep_alive,
            "SET_PARAMETER": self._keep_alive,
            "TEARDOWN": self._teardown,
        }.get(request.method)
        if request.method == "OPTIONS":
            self._keep_alive(request)
        elif handler is None:
            self._reply(request, 501, {"Public": _METHODS})
        elif self._admits(request):
            handler(request)
            if not self._transport.is_closing():
                self._watch_deadline()  # which may have come nearer: each state has its own

    def _is_settled(self, request: Request) -> bool:
        """Whether a trouble of the feed that is asked for comes in between; who watches already is left alone."""
        treatment = Treatment.ANSWER if self.session is not None else self._host.treatment(request)
        if treatment is Treatment.CUT:
            self.cut()
        elif treatment is Treatment.DENY:
            keeper = self._gatekeeper or Gatekeeper(Credentials(username="", password=""))
            self._reply(request, 401, {"WWW-Authenticate": keeper.challenge(Verdict.WRONG)})
        return treatment is not Treatment.ANSWER

    def _admits(self, request: Request) -> bool:
        """Whether the client has shown, now or before on this connection, that it knows the password."""
        if self._trusted or self._gatekeeper is None:
            return True
        verdict = self._gatekeeper.judge(request.method, request.headers.get("authorization"))
        if verdict is Verdict.RIGHT:
            self._trusted = True
            return True
        if verdict is Verdict.WRONG:
            self._wrong += 1
            self._host.refused("password")
            self._host.warnings.warning("password", "rtsp: a viewer from %s gave a wrong password", self._peer[0])
        self._reply(request, 401, {"WWW-Authenticate": self._gatekeeper.challenge(verdict)})
        if self._wrong >= self._host.limits.bad_requests:
            self._transport.close()
        return False

    def _feed_of(self, request: Request) -> tuple[Target, Feed] | None:
        """What the address names, or None after an answer that says what is wrong with it."""
        try:
            target = Target.of(request.uri)
        except ValueError:
            self._reply(request, 400)
            return None
        feed = self._host.feeds.get(target.path)
        if feed is None:
            self._host.refused("path")
            self._reply(request, 404)
            return None
        return target, feed

    def _describe(self, request: Request) -> None:
        named = self._feed_of(request)
        if named is None:
            return
        target, feed = named
        feed.acquire()  # an encoder that starts now has its keyframe ready when PLAY comes
        self._waiting = future = feed.described()
        timer = self._loop.call_later(self._host.limits.describe_s, future.cancel)

        def done(future: asyncio.Future[Description]) -> None:
            timer.cancel()
            feed.release()
            self._waiting = None
            if not self._transport.is_closing():
                self._described(request, target, feed, None if future.cancelled() else future.result())

        future.add_done_callback(done)

    def _described(self, request: Request, target: Target, feed: Feed, description: Description | None) -> None:
        if description is None:
            self._host.refused("no_picture")
            self._host.warnings.warning(
                f"no_picture {feed.path}",
                "rtsp: a viewer of %s was turned away: it had no keyframe within %g s. Is the camera online, and its "
                "keyframe interval a few seconds?",
                feed.path,
                self._host.limits.describe_s,
            )
            self._reply(request, 503)
        else:
            headers = {"Content-Base": f"{target.base}/", "Content-Type": "application/sdp"}
            self._reply(request, 200, headers, sdp(feed.path, description))
        self._heard_s = self._loop.time()
        self._transport.resume_reading()
        self._answer()

    def _setup(self, request: Request) -> None:
        named = self._feed_of(request)
        if named is None:
            return
        delivery = choose(request.headers.get("transport", ""))
        if delivery is None:
            self._reply(request, 461)
            return
        if self.session is not None:
            if self.session.playing or not self._knows_session(request):
                self._reply(request, 455)
                return
            self._end_session()
        if not self._host.admits_session():
            self._host.refused("viewers")
            self._reply(request, 503)
            return
        target, feed = named
        try:
            self.session = Session(
                feed, f"{target.base}/{TRACK}", delivery, self._transport, self._host.ports, on_end=self.close
            )
        except OSError as exc:
            self._host.warnings.warning("udp", "rtsp: no UDP ports for a viewer: %s", exc)
            self._reply(request, 503)
            return
        self._reply(request, 200, {"Transport": self.session.transport_header})

    def _play(self, request: Request) -> None:
        session = self._session_of(request)
        if session is None:
            return
        rtp_info = f"url={session.control_url};seq={session.viewer.sequence}"
        self._reply(request, 200, {"Range": "npt=now-", "RTP-Info": rtp_info})
        session.play()

    def _pause(self, request: Request) -> None:
        if (session := self._session_of(request)) is not None:
            session.pause()
            self._reply(request, 200)

    def _teardown(self, request: Request) -> None:
        if self._session_of(request) is not None:
            self._end_session()
            self._reply(request, 200)

    def _keep_alive(self, request: Request) -> None:
        self._reply(request, 200, {"Public": _METHODS} if request.method == "OPTIONS" else None)

    def _session_of(self, request: Request) -> Session | None:
        """The session that a request names, or None after an answer that there is no such session."""
        if self.session is None or not self._knows_session(request):
            self._reply(request, 454)
            return None
        return self.session

    def _knows_session(self, request: Request) -> bool:
        assert self.session is not None
        return request.headers.get("session", "").partition(";")[0].strip() == self.session.id

    def _reply(self, request: Request, status: int, headers: Mapping[str, str] | None = None, body: str = "") -> None:
        fields = dict(headers or {})
        if self.session is not None and status == 200:
            fields["Session"] = f"{self.session.id};timeout={self._host.limits.session_s:.0f}"
        self._transport.write(reply(status, request.cseq, fields, body))

    def _end_session(self) -> None:
        if self.session is not None:
            session, self.session = self.session, None
            self._sessionless_s = self._loop.time()
            session.end()

    # Deadlines.

    def _watch_deadline(self) -> None:
        """Close it when its time is over; otherwise look again when it could be."""
        if self._timer is not None:
            self._timer.cancel()
        now_s = self._loop.time()
        reason, deadline_s = self._deadline()
        if now_s >= deadline_s:
            self._host.refused(reason)
            _log.info("rtsp: connection from %s closed: %s", self._peer[0], reason)
            self.close()
            return
        self._timer = self._loop.call_at(deadline_s, self._watch_deadline)

    def _deadline(self) -> tuple[str, float]:
        """Why and when it ends if nothing happens. A connection that carries its own packets is alive while it
        takes them in."""
        limits = self._host.limits
        if self.session is None:
            return "idle", min(self._heard_s + limits.idle_s, self._sessionless_s + limits.session_s)
        if self.session.interleaved and self.session.playing:
            stuck_s = self.session.viewer.stuck_s()
            return "stuck", self._loop.time() + limits.stuck_s - stuck_s
        return "silent", self._heard_s + limits.session_s
