"""Reads one camera: demuxes, decodes, stamps and hands on. Blocking; runs on one thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamproc.channel import Closed
from streamproc.errors import SourceError
from streamproc.sources.decoder import Decoder
from streamproc.sources.faults import (
    UnsupportedError,
    file_error,
    no_keyframe_error,
    no_picture_error,
    no_video_error,
    stream_error,
)
from streamproc.sources.picture import PictureMaker
from streamproc.sources.timing import MediaClock, Pacer, TimestampPicker
from streamproc.telemetry import CameraLedger, RateLimitedLog
from streamproc.types import Frame, Picture

__all__ = ["AvReader", "Transport"]

logger = logging.getLogger(__name__)

Transport = Literal["auto", "tcp", "udp"]


class AvReader:
    """One camera's reader, kept over all its files or connections: media time and ``seq`` go on from one to the next.

    It only reads: whoever calls decides what to read next and whether to try again. One call at a time, always on a
    thread that may block; the thread must be a daemon, because libav cannot be interrupted in a name look-up, and in
    a read only by its time limit.

    Args:
        camera: the name for frames and messages.
        emit: takes every frame, on the reader's thread; may wait. :class:`~streamproc.channel.Closed` ends the reading.
        ledger: the camera's books; ``received`` and all of the decode stage are kept here.
        on_online: called on the reader's thread at the first picture of each file or connection.
        stop: when set, reading ends at the next packet, and waiting for a picture's time at once.
        realtime: play files at their own pace, as a camera would; their frames are ``live``.
        open_timeout_s, read_timeout_s: how long a camera may take to answer, and to send its next packet.
        clock_ns, utc_ns: the monotonic clock and UTC.

    Attributes:
        codec, rate: of what was opened last, as libav names it and in frames a second (None: not known).
    """

    PATIENCE_S = 30.0
    """Packets but no picture for so long: a keyframe interval beyond any use, or one that never arrives whole."""
    HOPELESS_KEYFRAMES = 3
    """So many keyframes of a new stream, all of which do not decode, are no accident."""

    def __init__(
        self,
        camera: str,
        *,
        emit: Callable[[Frame], None],
        ledger: CameraLedger,
        on_online: Callable[[], None],
        stop: threading.Event,
        realtime: bool = True,
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 10.0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        utc_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.camera = camera
        self._emit = emit
        self._ledger = ledger
        self._on_online = on_online
        self._stop = stop
        self._realtime = realtime
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._clock_ns = clock_ns
        self._utc_ns = utc_ns
        self._log = RateLimitedLog(logger, interval_s=10.0)
        self._media = MediaClock()
        self._pacer = Pacer(wait=stop.wait, on_lag=self._warn_of_lag, clock_ns=clock_ns)
        self._maker = PictureMaker()
        self._strict = True
        self._emitted = 0
        self._packet_ns = 0
        self.codec = ""
        self.rate: float | None = None

    @property
    def emitted(self) -> int:
        """Frames handed on so far; the next one's ``seq``."""
        return self._emitted

    def read_file(self, path: Path) -> None:
        """Read a file to its end, or until stopped. Raises :class:`SourceError`."""
        before, was_strict = self._emitted, self._strict
        try:
            # The protocol is named lest a colon in the path be taken for one.
            with self._opened(f"file:{path}", {}) as (container, stream):
                self._read(container, stream, from_camera=False)
        except (av.FFmpegError, UnsupportedError) as exc:
            raise file_error(self.camera, path, exc) from exc
        if self._emitted == before and not self._stop.is_set():
            if was_strict and not self._strict:
                self.read_file(path)
            else:
                raise no_picture_error(self.camera, path)

    def read_stream(self, url: str, transport: Transport = "auto") -> None:
        """Read an RTSP stream until stopped; it ends in no other way than by :class:`SourceError`."""
        options = {
            "timeout": str(round(self._read_timeout_s * 1e6)),  # µs; the socket's own limit
            "allowed_media_types": "video",
            # The rate is only a fallback here: do not sit on the first pictures to estimate it.
            "fpsprobesize": "0",
        }
        options |= {"rtsp_flags": "prefer_tcp"} if transport == "auto" else {"rtsp_transport": transport}
        opening_ns = self._packet_ns = self._clock_ns()
        try:
            with self._opened(url, options) as (container, stream):
                self._read(container, stream, from_camera=True)
        except (av.FFmpegError, UnsupportedError) as exc:
            if self._stop.is_set():
                return
            opened = self._packet_ns > opening_ns
            waited_s = (self._clock_ns() - self._packet_ns) / 1e9
            limit_s = self._read_timeout_s if opened else self._open_timeout_s
            raise stream_error(self.camera, url, exc, opened=opened, timed_out=waited_s > 0.9 * limit_s) from exc
        if not self._stop.is_set():
            raise SourceError(f"camera {self.camera}: the camera ended the stream.", reason="eof")

    @contextmanager
    def _opened(self, url: str, options: dict[str, str]) -> Iterator[tuple[InputContainer, VideoStream]]:
        """An open input and its video stream; both are dead memory once this is left."""
        timeouts = (self._open_timeout_s, self._read_timeout_s)
        with av.open(url, options=options, timeout=timeouts) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise no_video_error(self.camera, url, [other.type for other in container.streams])
            if stream.codec_context is None:
                raise UnsupportedError(f"codec {stream.codec_tag!r}: no decoder for it")
            for other in container.streams:
                other.discard = Discard.default if other is stream else Discard.all
            yield container, stream

    def _read(self, container: InputContainer, stream: VideoStream, *, from_camera: bool) -> None:
        """Hand on every picture to the end, or until stopped; libav's errors while reading come out as they are."""
        rate = stream.guessed_rate or stream.average_rate
        self.codec, self.rate = stream.codec_context.name, float(rate) if rate else None
        self._media.begin(self.rate)
        picker = TimestampPicker()
        online = False
        with closing(self._frames(container, stream, from_camera=from_camera)) as frames:
            for frame in frames:
                ticks = picker.pick(frame.pts, frame.dts)
                seconds = None if ticks is None or frame.time_base is None else ticks * float(frame.time_base)
                pts_s = self._media.advance(seconds)
                captured_ns = self._captured_ns(pts_s, from_camera=from_camera)
                if captured_ns is None:
                    return
                picture = self._maker.make(frame)
                self._ledger.decoded(captured_ns)
                if not online:
                    online = True
                    self._on_online()
                try:
                    self._hand_on(picture, pts_s, captured_ns, live=from_camera or self._realtime)
                except Closed:
                    self._stop.set()
                    return

    def _hand_on(self, picture: Picture, pts_s: float, captured_ns: int, *, live: bool) -> None:
        seq, self._emitted = self._emitted, self._emitted + 1
        self._emit(
            Frame(
                camera=self.camera,
                seq=seq,
                pts_s=pts_s,
                captured_ns=captured_ns,
                captured_utc_ns=self._utc_ns() - (self._clock_ns() - captured_ns),
                live=live,
                picture=picture,
            )
        )

    def _frames(
        self, container: InputContainer, stream: VideoStream, *, from_camera: bool
    ) -> Generator[VideoFrame, None, None]:
        """Sound pictures in presentation order; those still in the decoder come before an error is raised."""
        decoder = Decoder(stream, self._ledger, strict=self._strict)
        started_ns, some = self._clock_ns(), False
        try:
            for packet in container.demux(stream):
                if self._stop.is_set():
                    return
                if not packet.size:  # libav's end mark, and the empty chunks by which AVI repeats a picture
                    continue
                self._packet_ns = self._clock_ns()
                for frame in decoder.feed(packet):
                    some = True
                    yield frame
                if from_camera and not some:
                    self._lose_patience(decoder, (self._packet_ns - started_ns) / 1e9)
            for frame in decoder.drain():
                some = True
                yield frame
        except av.FFmpegError:
            if not self._stop.is_set():
                yield from decoder.drain()
            raise
        finally:
            if self._strict and not some and decoder.failed_keyframes:
                self._be_lenient()

    def _lose_patience(self, decoder: Decoder, waited_s: float) -> None:
        if waited_s > self.PATIENCE_S or decoder.failed_keyframes >= self.HOPELESS_KEYFRAMES:
            raise no_keyframe_error(self.camera, waited_s)

    def _captured_ns(self, pts_s: float, *, from_camera: bool) -> int | None:
        """When the picture was taken, as far as can be told; None when stopped while waiting for that moment.

        Of a camera it is the arrival of the packet that let the picture out. The picture's own packet may have come
        frames earlier, where a camera sends B-pictures: no part of the delay that can be helped here, and its times
        would go back and forth.
        """
        if from_camera:
            return self._packet_ns
        return self._pacer.hold(pts_s) if self._realtime else self._clock_ns()

    def _be_lenient(self) -> None:
        self._strict = False
        logger.warning(
            "camera %s: none of its keyframes keeps to the standard; from now on it is read leniently, and a damaged "
            "picture may go unnoticed. New firmware for the camera may help.",
            self.camera,
        )

    def _warn_of_lag(self, lag_s: float) -> None:
        self._log.warning(
            "lag",
            "camera %s: decoding is %.1f s behind its real-time pace; going on from here. Use fewer cameras, a smaller "
            "picture, or realtime: false.",
            self.camera,
            lag_s,
        )
