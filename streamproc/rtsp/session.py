"""What SETUP makes: a viewer of one feed, and the way its packets go."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

from streamproc.rtsp.feed import Feed
from streamproc.rtsp.transport import Delivery
from streamproc.rtsp.trouble import Trouble
from streamproc.rtsp.udp import Address, UdpPorts
from streamproc.rtsp.viewer import Carrier, TcpCarrier, UdpCarrier, Viewer

__all__ = ["Session"]


class Session:
    """A session of one connection, which ends with it. Packets go to the connection's peer and to nobody else.

    Args:
        control_url: the stream's address, as PLAY tells it.
        delivery: what the client asked for.
        connection: the RTSP connection.
        on_end: is called when the feed cannot go on.

    Raises:
        OSError: there are no free UDP ports.
    """

    def __init__(
        self,
        feed: Feed,
        control_url: str,
        delivery: Delivery,
        connection: asyncio.Transport,
        ports: UdpPorts,
        *,
        on_end: Callable[[], None],
    ) -> None:
        self.id = secrets.token_hex(8)
        self.control_url = control_url
        self.interleaved = delivery.interleaved
        self.playing = False
        self.feed = feed
        self._addresses: tuple[Address, ...] = ()
        carrier: Carrier
        if delivery.interleaved:
            carrier = TcpCarrier(connection, delivery.rtp, delivery.rtcp)
            terms = f"RTP/AVP/TCP;unicast;interleaved={delivery.rtp}-{delivery.rtcp}"
        else:
            peer: Address = connection.get_extra_info("peername")
            rtp, rtcp = self._addresses = tuple((peer[0], port, *peer[2:]) for port in (delivery.rtp, delivery.rtcp))
            pair = ports.at(connection.get_extra_info("sockname")[0])
            send_rtp = partial(pair.send_rtp, address=rtp)
            if feed.trouble is not None:
                send_rtp = partial(_send_unless_lost, feed.trouble, send_rtp)
            carrier = UdpCarrier(send_rtp, partial(pair.send_rtcp, address=rtcp))
            terms = (
                f"RTP/AVP;unicast;client_port={delivery.rtp}-{delivery.rtcp};"
                f"server_port={pair.rtp_port}-{pair.rtcp_port}"
            )
        self._carrier = carrier
        self.viewer = Viewer(carrier, feed.sent, on_end)
        self.transport_header = f"{terms};ssrc={self.viewer.ssrc:08X}"

    def owns(self, address: Address) -> bool:
        """Whether a datagram from there is this client's."""
        return address in self._addresses

    def play(self) -> None:
        """Start or go on, at a keyframe; nothing new where it already plays."""
        if not self.playing:
            self.playing = True
            self.feed.join(self.viewer)

    def pause(self) -> None:
        """Send nothing more until :meth:`play`."""
        if self.playing:
            self.playing = False
            self.feed.leave(self.viewer)

    def end(self) -> None:
        """Send nothing more at all, and tell the client so."""
        if self.playing:
            self.viewer.bye()
        self.pause()
        self._carrier.close()


def _send_unless_lost(trouble: Trouble, send: Callable[[bytes], None], datagram: bytes) -> None:
    if trouble.datagram():
        send(datagram)
