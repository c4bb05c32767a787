"""Encoded pictures back into pixels, for whoever has access units rather than a file or a camera."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from streamproc.sources.nal import NalCodec
from streamproc.types import AccessUnit, UInt8Array

__all__ = ["DecodedUnit", "UnitDecoder"]

_MOST_HELD = 32  # 16 reordered pictures of two fields each (H.264, A.3.1)


class DecodedUnit(NamedTuple):
    """``bgr`` (h, w, 3) uint8, full range, with even sides; the times are those of the access unit."""

    bgr: UInt8Array
    pts_s: float
    captured_utc_ns: int


class UnitDecoder:
    """Decodes one camera's access units, from a keyframe on. Not thread-safe."""

    def __init__(self, codec: NalCodec) -> None:
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1
        self._context = context
        self._scaler = VideoReformatter()
        self._count = 0
        self._held: dict[int, AccessUnit] = {}

    def half_size(self, unit: AccessUnit) -> list[DecodedUnit]:
        """The pictures that come out when ``unit`` goes in, in presentation order, of half their size, rounded to even.

        A damaged unit gives none.
        """
        packet = Packet(unit.data)
        packet.pts = packet.dts = self._count
        packet.time_base = Fraction(1, 90_000)
        self._held[self._count] = unit
        self._held.pop(self._count - _MOST_HELD, None)
        self._count += 1
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError:
            return []
        return [self._shrunk(frame, self._held.pop(frame.pts)) for frame in frames if frame.pts in self._held]

    def _shrunk(self, frame: VideoFrame, unit: AccessUnit) -> DecodedUnit:
        width, height = (max(2, side // 4 * 2) for side in (frame.width, frame.height))
        small = self._scaler.reformat(frame, width=width, height=height, format="bgr24", threads=1)
        bgr: UInt8Array = small.to_ndarray().astype(np.uint8, copy=False)
        return DecodedUnit(bgr, unit.pts_s, unit.captured_utc_ns)
