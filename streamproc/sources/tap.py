"""A camera's own packets, for whoever passes them on without decoding."""

from __future__ import annotations

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.stream import VideoStream

from streamproc.sources.nal import HEAD_BYTES, NalCodec, annex_b, kind_of, length_bytes
from streamproc.types import AccessUnit

__all__ = ["PacketTap"]

# nal_unit_type: ITU-T H.264, table 7-1; H.265, table 7-1.
_SPS: dict[NalCodec, int] = {"h264": 7, "hevc": 33}
_PARAMETER_SETS: dict[NalCodec, set[int]] = {"h264": {7, 8}, "hevc": {32, 33, 34}}
_START = b"\x00\x00\x00\x01"


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
