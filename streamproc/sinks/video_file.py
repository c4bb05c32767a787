"""One H.264 file: scaling, encoding, timestamps, and fragments that survive a crash."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from streamproc.errors import DependencyError, FatalError, SinkError
from streamproc.sinks.encoding import TICKS_PER_S, colors_of, set_up
from streamproc.types import Letterbox, UInt8Array

__all__ = ["VideoFile", "prepare"]

_CODEC = "libx264"
# Without B-frames every packet's decoding time is its presentation time, so a fragmented file needs no edit list to
# begin at the first frame's own time, and the encoder holds fewer pictures.
# Two frames of lookahead instead of ten halve its memory (1080p: 60 MB, not 115) at nearly the same quality per bit.
_ENCODER = {"preset": "veryfast", "crf": "23", "bf": "0", "rc-lookahead": "2"}
# A fragment is written when it is complete, and what was written is handed to the system at once, so that a killed
# process leaves a file that plays up to its last keyframe. ``frag_discont`` and ``make_non_negative`` keep the first
# frame's time, which would otherwise become 0: a time in the video is the ``pts_s`` of the published detections.
_MP4 = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof+frag_discont",
    "avoid_negative_ts": "make_non_negative",
    "flush_packets": "1",
}
_MKV = {"cluster_time_limit": "2000", "flush_packets": "1"}  # milliseconds
_FORMATS = {".mp4": ("mp4", _MP4), ".mkv": ("matroska", _MKV)}
_MIN_STEP = TICKS_PER_S // 1000  # Matroska counts milliseconds: frames closer than that would share a time
_KEYFRAME_EVERY_S = 2.0


class VideoFile:
    """An H.264 file, MP4 or Matroska by its suffix, that plays as far as it was written, whatever ends the process.

    The first picture gives the file its size, cut to even numbers; later pictures of another size are letterboxed
    into it. An existing file is overwritten. Not thread-safe: it belongs to the thread that writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: OutputContainer | None = None
        self._stream: VideoStream
        self._disk: BinaryIO
        self._canvas: UInt8Array
        self._size = (0, 0)
        # One for the file: every VideoFrame.reformat of its own would keep a scaler of 15 MB.
        self._reformatter = VideoReformatter()
        self._last_tick = -_MIN_STEP
        self._next_keyframe_s = 0.0

    def write(self, bgr: UInt8Array, pts_s: float) -> None:
        """Append a picture, shown ``pts_s`` seconds into the file.

        ``bgr`` (h, w, 3) uint8, contiguous, full range; not kept. Times that do not increase are moved up by 1 ms.

        Raises:
            SinkError: the file cannot be opened or written, or the encoder refused the picture.
        """
        try:
            if self._container is None:
                self._container = self._open(bgr)
                self._next_keyframe_s = pts_s
            self._container.mux(self._stream.encode(self._frame(bgr, pts_s)))
            self._disk.flush()
        except (av.FFmpegError, OSError) as exc:
            raise SinkError(f"{self._path}: {exc}") from exc

    def close(self) -> None:
        """Write what the encoder still holds and close the file; closing twice does no harm.

        Raises:
            SinkError: the end of the file could not be written; what came before it plays.
        """
        container, self._container = self._container, None
        if container is None:
            return
        try:
            with self._disk, container:
                container.mux(self._stream.encode(None))
        except (av.FFmpegError, OSError) as exc:
            raise SinkError(f"{self._path}: {exc}") from exc

    def _open(self, bgr: UInt8Array) -> OutputContainer:
        height, width = (max(2, side // 2 * 2) for side in bgr.shape[:2])
        form, options = _FORMATS[self._path.suffix.lower()]
        # libav writes headers and trailers holding the GIL. Through a Python file a disk that hangs stops this thread
        # alone, not the process.
        self._disk = self._path.open("wb")
        try:
            container = av.open(self._disk, "w", format=form, options=options)
            self._stream = self._add_stream(container, width, height)
            # Here and not at the first packet: libav does not survive a second try at a header.
            container.start_encoding()
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self._disk.close()
            raise
        self._size = (width, height)
        self._canvas = np.zeros((height, width, 3), np.uint8)
        return container

    def _add_stream(self, container: OutputContainer, width: int, height: int) -> VideoStream:
        stream = container.add_stream(
            _CODEC, options=_ENCODER, width=width, height=height, time_base=Fraction(1, TICKS_PER_S)
        )
        assert isinstance(stream, VideoStream)
        set_up(stream.codec_context, width, height)
        return stream

    def _frame(self, bgr: UInt8Array, pts_s: float) -> av.VideoFrame:
        source = av.VideoFrame.from_numpy_buffer(self._fit(bgr), format="bgr24")
        frame = self._reformatter.reformat(
            source,
            format="yuv420p",
            dst_colorspace=colors_of(source.height).matrix,
            dst_color_range=ColorRange.MPEG,
        )
        self._last_tick = max(round(pts_s * TICKS_PER_S), self._last_tick + _MIN_STEP)
        frame.pts, frame.time_base = self._last_tick, Fraction(1, TICKS_PER_S)
        frame.pict_type = PictureType.NONE
        if pts_s >= self._next_keyframe_s:
            frame.pict_type = PictureType.I
            self._next_keyframe_s = pts_s + _KEYFRAME_EVERY_S
        return frame

    def _fit(self, bgr: UInt8Array) -> UInt8Array:
        """The picture at the file's size: as it is, cut by a pixel, or letterboxed."""
        height, width = bgr.shape[:2]
        if (width, height) == self._size:
            return bgr
        if (width // 2 * 2, height // 2 * 2) == self._size:
            np.copyto(self._canvas, bgr[: self._size[1], : self._size[0]])
            return self._canvas
        box = Letterbox.fit((width, height), self._size)
        (left, top), (inner_width, inner_height) = box.pad, box.inner
        self._canvas[:] = 0
        inside = self._canvas[top : top + inner_height, left : left + inner_width]
        np.copyto(inside, cv2.resize(bgr, box.inner, interpolation=cv2.INTER_AREA))
        return self._canvas


def prepare(camera: str, path: Path) -> None:
    """Make the directory of a camera's file, and see whether the file could be written; it is not touched.

    Raises:
        FatalError: it could not, or it is of no known kind.
        DependencyError: the installed PyAV has no encoder.
    """
    if _CODEC not in av.codecs_available:
        raise DependencyError(
            f"camera {camera}: cannot write its video {path}: the installed PyAV {av.__version__} has no {_CODEC} "
            "encoder. Install its wheel: pip install --force-reinstall --only-binary av 'av>=18,<19'"
        )
    if path.suffix.lower() not in _FORMATS:
        raise FatalError(
            f"camera {camera}: video file {path}: expected a name ending in {' or '.join(_FORMATS)}, "
            f"got {path.suffix or 'no suffix'!r}. Change video.path"
        )
    remedy = "Set video.path to a file in a directory that this user may write to"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FatalError(
            f"camera {camera}: cannot make the directory of its video {path}: {exc.strerror}. {remedy}"
        ) from exc
    if path.is_dir():
        raise FatalError(f"camera {camera}: cannot write its video {path}: it is a directory. {remedy}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise FatalError(f"camera {camera}: cannot write its video {path}: permission denied. {remedy}")
