"""One viewer's stream: its own source, sequence numbers and timestamps, and what happens when it is slow."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from streamproc.rtsp.packetizer import Picture, goodbye, sender_report

__all__ = ["Carrier", "Sent", "TcpCarrier", "UdpCarrier", "Viewer"]

_MOST_QUEUED_BYTES = 2 << 20
"""Four seconds of a 4 Mb/s camera: a viewer that is further behind is skipped to the next keyframe."""

_CAUGHT_UP_BYTES = _MOST_QUEUED_BYTES // 8
"""Where it may go on, so that it does so close to the present."""

_REPORT_EVERY_S = 5.0
"""RFC 3550 section 6.2 recommends a fixed minimum of 5 s."""

_BURST = 16
_BURST_EVERY_S = 0.005
_BURSTS = 32
"""Datagrams sent at once, or this share of those that wait: 30 Mbit/s, and more only where a stream needs it. What a
new viewer catches up on overflows the receive buffer that systems give by default, about 200 of them, when it comes
faster than a player decodes."""

_RTP = struct.Struct(">BBHII")


class Carrier(Protocol):
    """What brings packets to one viewer; never blocks."""

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent."""
        ...

    def send_rtp(self, packets: list[tuple[bytes, bytes]]) -> None:
        """Send RTP packets, each a header and a payload."""
        ...

    def send_rtcp(self, packet: bytes) -> None:
        """Send an RTCP packet."""
        ...

    def close(self) -> None:
        """Send nothing more; drops what waits where it is this viewer's alone."""
        ...


class TcpCarrier:
    """Packets between the replies of an RTSP connection (RFC 2326 section 10.12)."""

    def __init__(self, transport: asyncio.WriteTransport, rtp: int, rtcp: int) -> None:
        self._transport = transport
        self._rtp = rtp
        self._rtcp = rtcp

    @property
    def queued_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def send_rtp(self, packets: list[tuple[bytes, bytes]]) -> None:
        parts: list[bytes] = []
        for header, payload in packets:
            parts += (struct.pack(">BBH", 0x24, self._rtp, len(header) + len(payload)), header, payload)
        self._transport.write(b"".join(parts))

    def send_rtcp(self, packet: bytes) -> None:
        self._transport.write(struct.pack(">BBH", 0x24, self._rtcp, len(packet)) + packet)

    def close(self) -> None:
        """Nothing waits here that is not already in the connection's own buffer."""


class UdpCarrier:
    """Datagrams to a viewer's port pair, a burst at a time.

    Args:
        send_rtp, send_rtcp: send one datagram to the viewer.
    """

    def __init__(self, send_rtp: Callable[[bytes], None], send_rtcp: Callable[[bytes], None]) -> None:
        self.queued_bytes = 0
        self.send_rtcp = send_rtcp
        self._send = send_rtp
        self._queue: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def send_rtp(self, packets: list[tuple[bytes, bytes]]) -> None:
        for header, payload in packets:
            datagram = header + payload
            self._queue.append(datagram)
            self.queued_bytes += len(datagram)
        if self._timer is None:
            self._send_burst()

    def _send_burst(self) -> None:
        waiting = len(self._queue)
        for _ in range(min(waiting, max(_BURST, waiting // _BURSTS))):
            datagram = self._queue.popleft()
            self.queued_bytes -= len(datagram)
            self._send(datagram)
        # The pause comes after a full burst only: a stream of small pictures goes out without delay.
        self._timer = self._loop.call_later(_BURST_EVERY_S, self._send_burst) if self._queue else None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.clear()
        self.queued_bytes = 0


@dataclass(slots=True)
class Sent:
    """Counts over all viewers of a feed; ``skipped`` pictures were left out because a viewer was slow, or still
    waited for its first keyframe."""

    pictures: int = 0
    packets: int = 0
    skipped: int = 0


class Viewer:
    """Sends pictures to one client. Used on the event loop only.

    Args:
        carrier: brings the packets there.
        sent: what it sends and skips is added here.
        on_end: is called when the feed cannot go on for it.
    """

    def __init__(self, carrier: Carrier, sent: Sent, on_end: Callable[[], None]) -> None:
        self.ssrc = secrets.randbits(32)
        self.on_end = on_end
        self._sent = sent
        self._packets = 0
        self._carrier = carrier
        self._sequence = secrets.randbits(16)
        self._octets = 0
        self._synchronised = False
        self._reported_s = float("-inf")
        self._loop = asyncio.get_running_loop()
        self._stuck_since_s: float | None = None

    @property
    def sequence(self) -> int:
        """The sequence number of the next packet."""
        return self._sequence

    def stuck_s(self) -> float:
        """For how long it has taken in too little to be sent anything new."""
        return 0.0 if self._stuck_since_s is None else self._loop.time() - self._stuck_since_s

    def catch_up(self, pictures: Iterable[tuple[Picture, int]]) -> None:
        """Start with these pictures, the first of them a keyframe, under these timestamps; or, without any, with the
        next keyframe."""
        self._synchronised = False
        for picture, timestamp in pictures:
            self._send(picture, timestamp)

    def send(self, picture: Picture) -> None:
        """Send a picture, unless the viewer is too slow or waits for a keyframe."""
        queued = self._carrier.queued_bytes
        if queued <= _CAUGHT_UP_BYTES:
            self._stuck_since_s = None
        if queued > _MOST_QUEUED_BYTES:
            self._synchronised = False
            if self._stuck_since_s is None:
                self._stuck_since_s = self._loop.time()
        elif self._synchronised or (picture.keyframe and queued <= _CAUGHT_UP_BYTES):
            self._send(picture, picture.timestamp)
            return
        self._sent.skipped += 1

    def bye(self) -> None:
        """Tell the client that the stream ends, and let go of what waits."""
        self._carrier.send_rtcp(goodbye(self.ssrc))
        self._carrier.close()

    def _send(self, picture: Picture, timestamp: int) -> None:
        self._synchronised = True
        now_s = self._loop.time()
        if now_s - self._reported_s >= _REPORT_EVERY_S:
            self._reported_s = now_s
            self._report(picture)
        packets: list[tuple[bytes, bytes]] = []
        sequence, ssrc, timestamp = self._sequence, self.ssrc, timestamp & 0xFFFF_FFFF
        for marked_type, payload in picture.packets:
            packets.append((_RTP.pack(0x80, marked_type, sequence, timestamp, ssrc), payload))
            sequence = (sequence + 1) & 0xFFFF
        self._sequence = sequence
        self._packets += len(packets)
        self._sent.pictures += 1
        self._sent.packets += len(packets)
        self._octets += picture.payload_bytes
        self._carrier.send_rtp(packets)

    def _report(self, picture: Picture) -> None:
        """The report speaks of the picture that follows it: its capture time, not the present."""
        report = sender_report(
            ssrc=self.ssrc,
            utc_ns=picture.captured_utc_ns,
            timestamp=picture.timestamp,
            packets=self._packets,
            octets=self._octets,
        )
        self._carrier.send_rtcp(report)
