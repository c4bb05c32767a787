"""Reads one camera: demuxes, decodes, stamps and hands on. Blocking; runs on one thread of its own."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamproc.channel import Closed
from streamproc.errors import SourceError
from streamproc.ledger import CameraLedger, Cost, DropReason
from streamproc.sources.backlog import Backlog
from streamproc.sources.capture import CaptureClock, ClockSource, sent_utc_ns
from streamproc.sources.decoder import DecodeMode, Decoder
from streamproc.sources.faults import (
    UnsupportedError,
    file_error,
    no_keyframe_error,
    no_picture_error,
    stream_error,
)
from streamproc.sources.nal import codec_of
from streamproc.sources.opening import (
    Acceleration,
    HardwareChoice,
    Transport,
    opened,
    stream_options,
    with_login,
)
from streamproc.sources.picture import PictureMaker
from streamproc.sources.tap import PacketOutlet
from streamproc.sources.timing import FrameSampler, MediaClock, Pacer, TimestampPicker
from streamproc.telemetry import RateLimitedLog
from streamproc.types import Frame, Picture

__all__ = ["AvReader"]

logger = logging.getLogger(__name__)

_TAP_REMEDY = "only H.264 and H.265 streams can. Watch its annotated stream, or set the camera to one of these."


class AvReader:
    """One camera's reader, kept over all its files or connections: media time and ``seq`` go on from one to the next,
    and from where the camera's books say that another reader ended.

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
        decode: see :class:`~streamproc.sources.decoder.Decoder`.
        sample_fps: hand on at most so many pictures a second, evenly by media time; the others are not converted.
        late_s: leave pictures out where the reader stays so far behind: see
            :class:`~streamproc.sources.backlog.Backlog`. None: decode all, however late.
        hwaccel: decode on such a device where there is one, in software otherwise.
        packets: takes an H.264 or H.265 stream's packets.
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
        decode: DecodeMode = "all",
        sample_fps: float | None = None,
        late_s: float | None = None,
        hwaccel: Acceleration = "none",
        packets: PacketOutlet | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        utc_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.camera = camera
        self._emit = emit
        self._ledger = ledger
        self._on_online = on_online
        self._stop = stop
        self._realtime = realtime
        self._timeouts_s = (open_timeout_s, read_timeout_s)
        self._decode: DecodeMode = decode
        self._sampler = FrameSampler(sample_fps) if sample_fps else None
        self._backlog = Backlog(camera, late_s, clock_ns=clock_ns)
        self._hardware = HardwareChoice(camera, hwaccel)
        self._packets = packets
        self._clock_ns = clock_ns
        self._utc_ns = utc_ns
        self._log = RateLimitedLog(logger, interval_s=10.0)
        self._media = MediaClock(self._media_time_s())
        self._capture = CaptureClock()
        self._pacer = Pacer(wait=stop.wait, on_lag=self._warn_of_lag, clock_ns=clock_ns)
        self._maker = PictureMaker()
        self._strict = True
        self._emitted = ledger.tally().decoded
        self._pictures = self._packets_since = self._spent_ns = 0
        self._packet_ns = self._packet_captured_ns = self._asked_ns = 0
        self._from_camera = False
        self.codec = ""
        self.rate: float | None = None

    @property
    def emitted(self) -> int:
        """Frames handed on so far; the next one's ``seq``."""
        return self._emitted

    @property
    def pictures(self) -> int:
        """Sound pictures so far, handed on or left out by ``sample_fps``."""
        return self._pictures

    @property
    def clock(self) -> ClockSource | None:
        """Where a camera's capture times come from; None for files."""
        return self._capture.source if self._from_camera else None

    def read_file(self, path: Path) -> None:
        """Read a file to its end, or until stopped. Raises :class:`SourceError`."""
        before, was_strict = self._pictures, self._strict
        try:
            # The protocol is named lest a colon in the path be taken for one.
            with self._open(f"file:{path}", {}) as (container, stream):
                self._read(container, stream, from_camera=False)
        except (av.FFmpegError, UnsupportedError) as exc:
            raise file_error(self.camera, path, exc) from exc
        if self._pictures == before and not self._stop.is_set():
            if was_strict and not self._strict:
                self.read_file(path)
            else:
                raise no_picture_error(self.camera, path)

    def read_stream(self, url: str, transport: Transport = "auto", *, username: str = "", password: str = "") -> None:
        """Read an RTSP stream until stopped; it ends in no other way than by :class:`SourceError`.

        A ``username`` and ``password``, as they are, go before those in the url.
        """
        open_timeout_s, read_timeout_s = self._timeouts_s
        options = stream_options(transport, read_timeout_s)
        opening_ns = self._packet_ns = self._clock_ns()
        try:
            with self._open(with_login(url, username, password), options) as (container, stream):
                self._read(container, stream, from_camera=True)
        except (av.FFmpegError, UnsupportedError) as exc:
            if self._stop.is_set():
                return
            answered = self._packet_ns > opening_ns
            waited_s = (self._clock_ns() - self._packet_ns) / 1e9
            limit_s = read_timeout_s if answered else open_timeout_s
            raise stream_error(self.camera, url, exc, opened=answered, timed_out=waited_s > 0.9 * limit_s) from exc
        if not self._stop.is_set():
            raise SourceError(f"camera {self.camera}: the camera ended the stream.", reason="eof")

    def _open(self, url: str, options: dict[str, str]) -> AbstractContextManager[tuple[InputContainer, VideoStream]]:
        return opened(self.camera, url, options, timeouts_s=self._timeouts_s, hardware=self._hardware)

    def _read(self, container: InputContainer, stream: VideoStream, *, from_camera: bool) -> None:
        """Hand on every picture to the end, or until stopped; libav's errors while reading come out as they are."""
        rate = stream.guessed_rate or stream.average_rate
        self.codec, self.rate = stream.codec_context.name, float(rate) if rate else None
        self._from_camera = from_camera
        self._media.begin(self.rate)
        # libav's parser knows that a picture of these is whole when it sees the next.
        held = codec_of(self.codec) is not None
        self._capture.begin(held=held)
        self._backlog.begin(self._media.period_s, held=held)
        self._spent_ns = time.thread_time_ns()  # of this thread: the last file may have had another
        picker = TimestampPicker()
        online = False
        with closing(self._frames(container, stream)) as frames:
            for frame in frames:
                ticks = picker.pick(frame.pts, frame.dts)
                seconds = None if ticks is None or frame.time_base is None else ticks * float(frame.time_base)
                pts_s = self._media.advance(seconds, pictures=max(1, self._packets_since))
                self._packets_since = 0
                self._pictures += 1
                if self._sampler is not None and not self._sampler.wants(pts_s):
                    self._ledger.dropped(DropReason.SKIPPED)
                    continue
                captured_ns = self._captured_ns(pts_s)
                if captured_ns is None:
                    return
                picture = self._maker.make(frame)
                self._book_time()
                self._ledger.decoded(captured_ns, pts_s)
                if not online:
                    online = True
                    self._on_online()
                try:
                    self._hand_on(picture, pts_s, captured_ns, live=from_camera or self._realtime)
                except Closed:
                    self._stop.set()
                    return

    def _media_time_s(self) -> float | None:
        """Media time now of a camera that has been read before."""
        if (position := self._ledger.position) is None:
            return None
        captured_ns, pts_s = position
        return pts_s + (self._clock_ns() - captured_ns) / 1e9

    def _book_time(self) -> None:
        """Book what this thread has done since the last time."""
        now_ns = time.thread_time_ns()
        self._ledger.spent(Cost.DECODE, now_ns - self._spent_ns)
        self._spent_ns = now_ns

    def _hand_on(self, picture: Picture, pts_s: float, captured_ns: int, *, live: bool) -> None:
        seq, self._emitted = self._emitted, self._emitted + 1
        self._emit(
            Frame(
                camera=self.camera,
                seq=seq,
                pts_s=pts_s,
                captured_ns=captured_ns,
                captured_utc_ns=self._in_utc(captured_ns),
                live=live,
                picture=picture,
            )
        )

    def _frames(self, container: InputContainer, stream: VideoStream) -> Generator[VideoFrame, None, None]:
        """Sound pictures in presentation order; those still in the decoder come before an error is raised."""
        decoder = Decoder(stream, self._ledger, strict=self._strict, mode=self._decode)
        if self._packets is not None:
            self._packets.begin(stream, self.rate)
        started_ns, some = self._clock_ns(), False
        try:
            for packet in self._packets_of(container, stream):
                if self._stop.is_set():
                    return
                if not packet.size:  # libav's end mark, and the empty chunks by which AVI repeats a picture
                    continue
                stalled = self._has_stalled(started_ns)
                self._stamp(packet)
                if self._packets is not None:
                    self._pass_on(packet, self._packets)
                if (excess := self._backlog.excess()) > 0:
                    decoder.leave_out(excess)
                for frame in decoder.feed(packet):
                    some = True
                    yield frame
                if stalled:
                    raise av.error.TimeoutError(errno.ETIMEDOUT, "no packet came in time")
                if self._from_camera and not some:
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

    def _packets_of(self, container: InputContainer, stream: VideoStream) -> Generator[Packet[VideoStream], None, None]:
        """The stream's packets; it is noted when each was asked for."""
        self._asked_ns = self._clock_ns()
        for packet in container.demux(stream):
            yield packet
            self._asked_ns = self._clock_ns()

    def _has_stalled(self, started_ns: int) -> bool:
        """Whether a camera's packet came only when its time was over: libav answers the first time limit with the
        picture that its parser held, and would wait as long again before it says so."""
        waited_ns = self._clock_ns() - self._packet_ns
        return self._from_camera and self._packet_ns >= started_ns and waited_ns > 0.9e9 * self._timeouts_s[1]

    def _stamp(self, packet: Packet[VideoStream]) -> None:
        self._packets_since += 1
        self._packet_ns = self._packet_captured_ns = self._clock_ns()
        if self._from_camera:
            self._packet_captured_ns = self._capture.captured_ns(self._packet_ns, sent_utc_ns(packet))
            self._backlog.arrived(packet, self._asked_ns, self._packet_ns)

    def _pass_on(self, packet: Packet[VideoStream], outlet: PacketOutlet) -> None:
        if not outlet.add(packet, self._in_utc(self._packet_captured_ns)) and outlet.wanted:
            self._log.warning("tap", "camera %s: %s cannot be passed on: %s", self.camera, self.codec, _TAP_REMEDY)

    def _in_utc(self, monotonic_ns: int) -> int:
        return self._utc_ns() - (self._clock_ns() - monotonic_ns)

    def _lose_patience(self, decoder: Decoder, waited_s: float) -> None:
        if waited_s > self.PATIENCE_S or decoder.failed_keyframes >= self.HOPELESS_KEYFRAMES:
            raise no_keyframe_error(self.camera, waited_s)

    def _captured_ns(self, pts_s: float) -> int | None:
        """When the picture was taken, as far as can be told; None when stopped while waiting for that moment.

        Of a camera it is the time of the packet that let the picture out. The picture's own packet may have come
        frames earlier, where a camera sends B-pictures: no part of the delay that can be helped here, and its times
        would go back and forth.
        """
        if self._from_camera:
            return self._packet_captured_ns
        if not self._realtime:
            return self._clock_ns()
        due_ns = self._pacer.hold(pts_s)
        if due_ns is not None:
            self._backlog.decoded(due_ns)
        return due_ns

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
