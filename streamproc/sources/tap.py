"""A camera's own packets, for whoever passes them on without decoding."""

from __future__ import annotations

from collections.abc import Callable

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.stream import VideoStream

from streamproc.sources.nal import HEAD_BYTES, NalCodec, annex_b, codec_of, kind_of, length_bytes
from streamproc.sources.timing import MediaClock
from streamproc.types import AccessUnit

__all__ = ["PacketOutlet", "PacketTap"]

# nal_unit_type: ITU-T H.264, table 7-1; H.265, table 7-1.
_SPS: dict[NalCodec, int] = {"h264": 7, "hevc": 33}
_PARAMETER_SETS: dict[NalCodec, set[int]] = {"h264": {7, 8}, "hevc": {32, 33, 34}}
_START = b"\x00\x00\x00\x01"
_MOST_KEPT_BYTES = 4 << 20
_MOST_KEPT = 600


class PacketTap:
    """Makes access units of one H.264 or H.265 stream's packets: Annex B, every keyframe with its parameter sets.

    A packet in Annex B (all of RTSP) is passed on to the bit, and the last parameter sets known are put before a
    keyframe that has none. Length-prefixed ones (MP4) are converted by libav.
    """

    def __init__(self, stream: VideoStream, codec: NalCodec) -> None:
        context = stream.codec_context
        self._codec: NalCodec = codec
        self._convert: BitStreamFilterContext | None = None
        self._sets = b""
        if length_bytes(self._codec, context.extradata):
            self._convert = BitStreamFilterContext(f"{codec}_mp4toannexb", stream)
        elif context.extradata:
            self._sets = context.extradata

    def unit(self, packet: Packet[VideoStream], *, pts_s: float, captured_utc_ns: int) -> AccessUnit | None:
        """The packet's picture; the packet stays as it is. None for one too damaged to be converted."""
        data = bytes(packet)
        if self._convert is not None:
            # The filter takes the packet's contents away, which the decoder still needs.
            try:
                data = b"".join(bytes(part) for part in self._convert.filter(Packet(data)))
            except av.FFmpegError:
                return None
        if packet.is_keyframe:
            data = self._with_sets(data)
        return AccessUnit(
            data=data, codec=self._codec, pts_s=pts_s, keyframe=packet.is_keyframe, captured_utc_ns=captured_utc_ns
        )

    def _with_sets(self, keyframe: bytes) -> bytes:
        sets = [
            nal for nal in annex_b(keyframe[:HEAD_BYTES]) if kind_of(self._codec, nal) in _PARAMETER_SETS[self._codec]
        ]
        if any(kind_of(self._codec, nal) == _SPS[self._codec] for nal in sets):
            self._sets = b"".join(_START + nal for nal in sets)
            return keyframe
        return self._sets + keyframe


class PacketOutlet:
    """Hands on a camera's packets while they are ``wanted``, which any thread may set at any time.

    It begins with the last keyframe, however long ago that came, so that nobody waits for the next one: the packets
    since are kept as they are (at most 600, and 4 MB), which costs no copy. Everything else is called on the reader's
    thread. The units' ``pts_s`` is presentation time in decoding order; it goes on from stream to stream.

    Args:
        take: is given every unit on the reader's thread; must not wait.
    """

    def __init__(self, take: Callable[[AccessUnit], None]) -> None:
        self.wanted = False
        self._take = take
        self._media = MediaClock()
        self._tap: PacketTap | None = None
        self._kept: list[tuple[Packet[VideoStream], float, int]] = []
        self._kept_bytes = 0
        self._handing_on = False

    def begin(self, stream: VideoStream, rate: float | None) -> None:
        """A new file or connection of nominal ``rate`` starts."""
        codec = codec_of(stream.codec_context.name)
        self._tap = PacketTap(stream, codec) if codec is not None else None
        self._media.begin(rate)
        self._forget()

    def add(self, packet: Packet[VideoStream], captured_utc_ns: int) -> bool:
        """The stream's next packet; False where its codec cannot be passed on."""
        if self._tap is None:
            return False
        if packet.is_keyframe:
            self._forget()
        now = (packet, self._pts_s(packet), captured_utc_ns)
        self._keep(now)
        if not self.wanted:
            self._handing_on = False
            return True
        due = [now] if self._handing_on or not self._kept else self._kept
        self._handing_on = True
        for kept, pts_s, taken_utc_ns in due:
            unit = self._tap.unit(kept, pts_s=pts_s, captured_utc_ns=taken_utc_ns)
            if unit is not None:
                self._take(unit)
        return True

    def _pts_s(self, packet: Packet[VideoStream]) -> float:
        tick_s = float(packet.time_base)
        ticks = packet.pts if packet.dts is None else packet.dts
        pts_s = self._media.advance(None if ticks is None else ticks * tick_s)
        if packet.pts is not None and packet.dts is not None:
            pts_s += (packet.pts - packet.dts) * tick_s  # decoding times run on; a B-picture is shown before others
        return pts_s

    def _keep(self, now: tuple[Packet[VideoStream], float, int]) -> None:
        packet = now[0]
        if not (self._kept or packet.is_keyframe):
            return
        self._kept_bytes += packet.size
        if self._kept_bytes > _MOST_KEPT_BYTES or len(self._kept) >= _MOST_KEPT:
            self._forget()
        else:
            self._kept.append(now)

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
