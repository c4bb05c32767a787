"""Encoded pictures cut into RTP payloads by libav's own muxer (RFC 6184, RFC 7798), and RTCP sender reports."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
from av.packet import Packet

__all__ = ["CLOCK_HZ", "Packetizer", "Picture", "goodbye", "sender_report"]

CLOCK_HZ = 90_000
"""The RTP clock of video (RFC 6184 section 8.2.1, RFC 7798 section 7.1)."""

_PACKET_BYTES = 1200
"""Fits the smallest path of today's networks (1280 bytes of IPv6) with IP, UDP and tunnel headers."""

_RTP_HEADER_BYTES = 12
_NTP_EPOCH_S = 2_208_988_800
"""Seconds from 1900 to 1970 (RFC 5905 section 6)."""

_RATE = 30
"""Frames a second that the muxer is told; it uses them for nothing, timestamps are written per viewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture on its way to the viewers.

    ``packets`` are the second byte of the RTP header (marker and payload type) and the payload of each packet;
    ``timestamp`` counts the RTP clock without wrapping around.
    """

    codec: Literal["h264", "hevc"]
    keyframe: bool
    packets: tuple[tuple[int, bytes], ...]
    payload_bytes: int
    timestamp: int
    captured_utc_ns: int


class Packetizer:
    """Cuts the pictures of one feed. Not thread-safe.

    The muxer cuts once for all viewers; its sequence numbers, timestamps and source are thrown away, since a viewer
    that skips pictures, or joins late, must see no gap.
    """

    def __init__(self, codec: Literal["h264", "hevc"]) -> None:
        self.codec = codec
        self._written = _Writer()
        self._muxer = av.open(
            self._written,
            "w",
            format="rtp",
            options={"packetsize": str(_PACKET_BYTES), "rtpflags": "skip_rtcp"},
        )
        self._stream = self._muxer.add_mux_stream(codec, rate=_RATE, width=16, height=16)
        self._count = 0

    def cut(self, data: bytes) -> tuple[tuple[int, bytes], ...]:
        """The packets of one access unit (Annex B), as in :class:`Picture`.

        Raises:
            av.error.FFmpegError: it is no access unit.
        """
        packet = Packet(data)
        packet.stream = self._stream
        packet.time_base = Fraction(1, _RATE)
        packet.pts = packet.dts = self._count
        self._count += 1
        try:
            self._muxer.mux(packet)
            return tuple((rtp[1], rtp[_RTP_HEADER_BYTES:]) for rtp in self._written.packets)
        finally:
            self._written.packets.clear()


class _Writer:
    """What the muxer writes to: one call a packet."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.packets.append(bytes(data))
        return len(data)


def sender_report(*, ssrc: int, utc_ns: int, timestamp: int, packets: int, octets: int) -> bytes:
    """An RTCP sender report with the source's name (RFC 3550 sections 6.4.1 and 6.5): it ties the RTP clock's
    ``timestamp`` to the instant ``utc_ns``."""
    seconds, rest_ns = divmod(utc_ns, 1_000_000_000)
    fraction = (rest_ns << 32) // 1_000_000_000
    report = struct.pack(
        ">BBHIIIIII",
        0x80,
        200,
        6,
        ssrc,
        (seconds + _NTP_EPOCH_S) & 0xFFFF_FFFF,
        fraction,
        timestamp & 0xFFFF_FFFF,
        packets & 0xFFFF_FFFF,
        octets & 0xFFFF_FFFF,
    )
    return report + _source_name(ssrc)


def goodbye(ssrc: int) -> bytes:
    """An RTCP packet that ends a stream (RFC 3550 section 6.6), behind the empty report that has to lead it."""
    return struct.pack(">BBHI", 0x80, 201, 1, ssrc) + _source_name(ssrc) + struct.pack(">BBHI", 0x81, 203, 1, ssrc)


def _source_name(ssrc: int) -> bytes:
    name = b"streamproc"
    item = struct.pack(">IBB", ssrc, 1, len(name)) + name + b"\0"
    item += bytes(-len(item) % 4)
    return struct.pack(">BBH", 0x81, 202, len(item) // 4) + item
