"""Live H.264: BGR pictures in, access units out, one for each and at once; hardware encoders where they work."""

from __future__ import annotations

import functools
import logging
import math
import re
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.plane import VideoPlane
from av.video.stream import VideoStream
from numpy.typing import NDArray

from streamproc.errors import DependencyError, SinkError
from streamproc.sinks.encoding import TICKS_PER_S, colors_of, set_up
from streamproc.types import AccessUnit, UInt8Array

__all__ = ["LiveEncoder", "default_bitrate_kbps", "hardware_codec", "open_encoder", "require_software_codec"]

_log = logging.getLogger(__name__)

_SOFTWARE = "libx264"
# What makes each encoder give every picture at once and an IDR picture when asked. Measured at the ceilings below,
# libx264's "superfast" takes 1.8 times the CPU of "ultrafast" for 1 to 3 dB more at a fifth fewer bits: at these rates
# that decides whether labels can be read. A constant quality under a ceiling spends little on a still scene.
_OPTIONS = {
    "libx264": {"preset": "superfast", "tune": "zerolatency", "crf": "23", "forced-idr": "1"},
    "h264_nvenc": {"preset": "p2", "tune": "ull", "zerolatency": "1", "delay": "0", "rc": "vbr", "forced-idr": "1"},
    "h264_v4l2m2m": {},
}
_HARDWARE = ("h264_nvenc", "h264_v4l2m2m")
_KEYFRAME_EVERY_S = 2.0
_NEVER = 100_000  # pictures between keyframes as far as the encoder knows: they are asked for by media time
_NOMINAL_FPS = 25.0
_MOST_DELAYED = 16  # pictures that a hardware encoder may hold
_SEQUENCE_PARAMETERS = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")  # NAL unit type 7 (ITU-T H.264, table 7-1)


class _YuvMaker:
    """BGR to limited-range yuv420p frames of one size, in buffers that are kept.

    OpenCV's own 4:2:0 conversion knows BT.601 only. One matrix product and two halved planes know every matrix, and
    take 2.2 ms where swscale takes 3.2 ms, at 1080p on one thread.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        width, height = self._size = size
        self._weights = _bgr_to_yuv(*colors_of(height).luma)
        self._merged = np.empty((height, width, 3), np.uint8)
        self._chroma = np.empty((2, height, width), np.uint8)

    def make(self, bgr: UInt8Array) -> VideoFrame:
        width, height = self._size
        frame = VideoFrame(width, height, "yuv420p")
        y, u, v = (_view(plane) for plane in frame.planes)
        cv2.transform(bgr, self._weights, dst=self._merged)
        cv2.split(self._merged, [y, *self._chroma])
        for full, half in zip(self._chroma, (u, v), strict=True):
            cv2.resize(full, (width // 2, height // 2), dst=half, interpolation=cv2.INTER_AREA)
        return frame


class LiveEncoder:
    """An H.264 encoder for pictures of one size, without B-frames; a keyframe first, and then every two seconds of
    media time.

    Not thread-safe: it belongs to the thread that encodes. Prefer :func:`open_encoder`.

    Args:
        codec: libav's name of the encoder.
        size: (width, height), both even.
        bitrate_kbps: bits a second at ``fps`` pictures a second, and in proportion at other rates.

    Raises:
        SinkError: the encoder does not open.
    """

    def __init__(self, codec: str, size: tuple[int, int], *, bitrate_kbps: int, fps: float = _NOMINAL_FPS) -> None:
        self.codec = codec
        self.size = size
        self._yuv = _YuvMaker(size)
        self._delayed: dict[int, tuple[float, int]] = {}
        self._last_tick: int | None = None
        self._next_keyframe_s = float("-inf")
        try:
            self._context = _open_context(codec, size, bitrate_kbps, fps)
        except av.FFmpegError as exc:
            raise SinkError(
                f"{codec} does not open for {size[0]}x{size[1]} at {bitrate_kbps} kbit/s: {exc.strerror}"
            ) from exc

    def encode(
        self, bgr: UInt8Array, *, pts_s: float, captured_utc_ns: int, keyframe: bool = False
    ) -> list[AccessUnit]:
        """The access units that are ready after this picture: its own, unless a hardware encoder holds it back.

        ``bgr`` (h, w, 3) uint8 of the encoder's size, full range; not kept. ``keyframe``: make it one.

        Raises:
            SinkError: the encoder refused the picture; this encoder is not to be used any more.
        """
        frame = self._yuv.make(bgr)
        frame.pts, frame.time_base = self._tick(pts_s), Fraction(1, TICKS_PER_S)
        wanted = keyframe or pts_s >= self._next_keyframe_s
        frame.pict_type = PictureType.I if wanted else PictureType.NONE
        if wanted:
            self._next_keyframe_s = pts_s + _KEYFRAME_EVERY_S
        if len(self._delayed) >= _MOST_DELAYED:
            raise SinkError(f"{self.codec} holds back more than {_MOST_DELAYED} pictures")
        self._delayed[frame.pts] = (pts_s, captured_utc_ns)
        try:
            return [self._unit(packet) for packet in self._context.encode(frame)]
        except av.FFmpegError as exc:
            raise SinkError(f"{self.codec} refused a picture: {exc.strerror}") from exc

    def _tick(self, pts_s: float) -> int:
        tick = round(pts_s * TICKS_PER_S)
        if self._last_tick is not None and tick <= self._last_tick:
            tick = self._last_tick + 1  # encoders refuse times that repeat
        self._last_tick = tick
        return tick

    def _unit(self, packet: av.Packet[VideoStream]) -> AccessUnit:
        if packet.pts not in self._delayed:
            raise SinkError(f"{self.codec} gave a picture with a time that it was not given")
        pts_s, captured_utc_ns = self._delayed.pop(packet.pts)
        return AccessUnit(
            data=bytes(packet),
            codec="h264",
            pts_s=pts_s,
            keyframe=packet.is_keyframe,
            captured_utc_ns=captured_utc_ns,
        )


def open_encoder(size: tuple[int, int], *, bitrate_kbps: int, fps: float | None) -> LiveEncoder:
    """The best encoder that opens for this size: in hardware where there is one, libx264 otherwise.

    ``fps``: pictures a second that ``bitrate_kbps`` is meant for; None for what most cameras give, 25.

    Raises:
        SinkError: none opens.
    """
    rate = max(1.0, fps) if fps is not None else _NOMINAL_FPS
    hardware = hardware_codec()
    if hardware is not None:
        try:
            return LiveEncoder(hardware, size, bitrate_kbps=bitrate_kbps, fps=rate)
        except SinkError as exc:  # consumer GPUs encode a handful of streams at a time, and not every size
            _log.warning("%s; %s takes its place", exc, _SOFTWARE)
    return LiveEncoder(_SOFTWARE, size, bitrate_kbps=bitrate_kbps, fps=rate)


def default_bitrate_kbps(size: tuple[int, int]) -> int:
    """A bit rate that suits a picture of this size: 5000 kbit/s at 1080p, and with the 0.75th power of the pixels.

    The power is B. Waggoner's rule of thumb: larger pictures need fewer bits a pixel.

    >>> [default_bitrate_kbps(size) for size in ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))]
    [962, 2722, 5000, 14142]
    """
    width, height = size
    return max(100, round(5000 * math.pow(width * height / (1920 * 1080), 0.75)))


@functools.cache
def hardware_codec() -> str | None:
    """The first hardware encoder of this machine that really works, found out once; None where there is none.

    An encoder works when it takes ten pictures and gives keyframes, with their parameter sets, where they were asked
    for: without them no viewer could begin.
    """
    for codec in _HARDWARE:
        if codec in av.codecs_available and _works(codec):
            _log.info("live video is encoded by %s", codec)
            return codec
    _log.info("live video is encoded by %s: no working %s here", _SOFTWARE, " or ".join(_HARDWARE))
    return None


def require_software_codec() -> None:
    """See whether pictures can be encoded at all.

    Raises:
        DependencyError: the installed PyAV has no encoder.
    """
    if _SOFTWARE not in av.codecs_available:
        raise DependencyError(
            f"cannot encode live video: the installed PyAV {av.__version__} has no {_SOFTWARE} encoder. "
            "Install its wheel: pip install --force-reinstall --only-binary av 'av>=18,<19'"
        )


def _works(codec: str) -> bool:
    picture = np.full((360, 640, 3), 128, np.uint8)
    try:
        encoder = LiveEncoder(codec, (640, 360), bitrate_kbps=1000)
        units = [
            unit
            for index in range(10)
            for unit in encoder.encode(picture, pts_s=index / 25, captured_utc_ns=0, keyframe=index == 4)
        ]
    except SinkError as exc:
        _log.debug("%s does not work here: %s", codec, exc)
        return False
    keyframes = [unit for unit in units if unit.keyframe]
    return len(keyframes) >= 2 and all(_SEQUENCE_PARAMETERS.search(unit.data) for unit in keyframes)


def _open_context(codec: str, size: tuple[int, int], bitrate_kbps: int, fps: float) -> VideoCodecContext:
    context = VideoCodecContext.create(codec, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, TICKS_PER_S)
    context.framerate = Fraction(fps).limit_denominator(1001)
    context.gop_size = _NEVER
    set_up(context, *size)
    if codec != _SOFTWARE:
        context.bit_rate = bitrate_kbps * 1000
    # One second's worth of buffer: a keyframe may be large, and what follows it pays.
    ceiling = f"{bitrate_kbps}k"
    context.options = {**_OPTIONS[codec], "bf": "0", "maxrate": ceiling, "bufsize": ceiling}
    context.open()
    return context


def _bgr_to_yuv(red: float, blue: float) -> NDArray[np.float64]:
    """(3, 4): Y, U, V in limited range as weights of B, G, R and 1 (ITU-T H.273, section 8.3)."""
    luma = np.array([blue, 1 - red - blue, red])
    from_blue = (np.array([1, 0, 0]) - luma) / (2 * (1 - blue))
    from_red = (np.array([0, 0, 1]) - luma) / (2 * (1 - red))
    return np.column_stack([np.array([luma * 219, from_blue * 224, from_red * 224]) / 255, [16, 128, 128]])


def _view(plane: VideoPlane) -> UInt8Array:
    """The plane's own pixels (h, w), to be written."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
