"""One watched camera: scaled, drawn, encoded and published, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import TypeAlias

import cv2

from streamproc.channel import Closed
from streamproc.errors import SinkError
from streamproc.ledger import AgeHistogram
from streamproc.sinks.annotate import Annotator
from streamproc.sinks.base import SharedCounts
from streamproc.sinks.daemon import start_daemon
from streamproc.sinks.live_encoder import LiveEncoder, default_bitrate_kbps, open_encoder
from streamproc.sinks.live_reel import Reel, Shot
from streamproc.telemetry import RateLimitedLog
from streamproc.types import AccessUnit, Frame, FrameResult, Picture, UInt8Array

__all__ = ["Books", "LiveStyle", "Publish", "Studio", "fitted"]

_log = logging.getLogger(__name__)

_WARN_EVERY_S = 60.0

Publish: TypeAlias = Callable[[AccessUnit], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStyle:
    """How live pictures are shown.

    ``fps``: at most so many a second; None for all. ``height``: in pixels; higher ones are scaled down to it, None
    leaves all as they are. ``bitrate_kbps``: ceiling at ``fps`` pictures a second, or at 25, and in proportion at other
    rates; None for what suits their size.
    """

    fps: float | None = None
    height: int | None = None
    bitrate_kbps: int | None = None


class Books(SharedCounts):
    """The sink's counts, ages and log."""

    def __init__(self) -> None:
        super().__init__()
        self.carried = 0
        self._ages = AgeHistogram()
        self._warnings = RateLimitedLog(_log, interval_s=_WARN_EVERY_S)

    def shown(self, *, carried: bool) -> None:
        """A picture was shown, with objects of its own or carried ones."""
        with self._lock:
            self.counts.taken += 1
            self.carried += carried

    def published(self, age_ms: float) -> None:
        """An access unit left, this long after its capture."""
        with self._lock:
            self._ages.add(age_ms)

    def ages(self) -> AgeHistogram:
        """A copy of the ages so far."""
        copy = AgeHistogram()
        with self._lock:
            copy.merge(self._ages)
        return copy

    def warn(self, camera: str, error: SinkError) -> None:
        """Say, once a minute and camera, that its viewers see nothing."""
        self._warnings.warning(
            f"encoder-{camera}",
            "camera %s: cannot encode its live video: %s. Its viewers miss pictures until that works again, and its "
            "detections go on; try another rtsp.height or rtsp.bitrate_kbps",
            camera,
            error,
        )


class Studio:
    """One watched camera's thread: draws, encodes and publishes what its reel hands on until it is stopped.

    ``done`` is resolved when the thread has ended, with the exception that ended it if that was a bug.
    """

    def __init__(
        self,
        camera: str,
        publish: Publish,
        style: LiveStyle,
        to_bgr: Callable[[Picture], UInt8Array],
        books: Books,
        spent: Callable[[str, int], None],
    ) -> None:
        self.camera = camera
        self._spent = spent
        self._reel = Reel(style.fps, on_lost=books.lost)
        self._publish = publish
        self._style = style
        self._to_bgr = to_bgr
        self._books = books
        self._annotator = Annotator()
        self._encoder: LiveEncoder | None = None
        self._keyframe_wanted = threading.Event()
        self._passing_on = threading.Lock()
        self._stopped_for: str | None = None
        self.done = start_daemon(f"live-{camera}", self._consume, at_end=self._reel.close)

    def offer(self, frame: Frame, found: FrameResult | None) -> None:
        """Show this frame, with its result or, if it was not inferred, with what is carried on from others; unless a
        newer one takes its place. From any thread. Raises :class:`Closed` when it was stopped or a bug ended it."""
        self._reel.put(frame, found)

    def request_keyframe(self) -> None:
        """Make the next picture a keyframe."""
        self._keyframe_wanted.set()

    def stop(self, reason: str) -> None:
        """Publish nothing from here on; pictures on their way are lost for ``reason``. The thread ends by itself."""
        with self._passing_on:
            self._stopped_for = reason
        self._books.lost(reason, self._reel.close())

    def _consume(self) -> None:
        while True:
            try:
                shot = self._reel.get()
            except Closed:
                return
            started_ns = time.thread_time_ns()
            try:
                units = self._encode(shot)
            except SinkError as exc:
                self._encoder = None  # the next picture gets a new one, and begins with a keyframe
                self._books.lost("encoder")
                self._books.warn(self.camera, exc)
            else:
                self._pass_on(shot, units)
            self._spent(self.camera, time.thread_time_ns() - started_ns)

    def _encode(self, shot: Shot) -> list[AccessUnit]:
        frame = shot.frame
        bgr = self._to_bgr(fitted(frame.picture, self._style.height))
        self._annotator.draw(shot.result(), bgr, carried=shot.carried)
        height, width = bgr.shape[:2]
        if self._encoder is None or self._encoder.size != (width, height):
            self._encoder = self._open((width, height))
        keyframe = self._keyframe_wanted.is_set()
        if keyframe:
            self._keyframe_wanted.clear()
        return self._encoder.encode(bgr, pts_s=frame.pts_s, captured_utc_ns=frame.captured_utc_ns, keyframe=keyframe)

    def _open(self, size: tuple[int, int]) -> LiveEncoder:
        bitrate_kbps = self._style.bitrate_kbps or default_bitrate_kbps(size)
        encoder = open_encoder(size, bitrate_kbps=bitrate_kbps, fps=self._style.fps)
        _log.info("camera %s: live video %dx%d by %s, up to %d kbit/s", self.camera, *size, encoder.codec, bitrate_kbps)
        return encoder

    def _pass_on(self, shot: Shot, units: list[AccessUnit]) -> None:
        with self._passing_on:  # so that nothing is published once :meth:`stop` has returned
            if self._stopped_for is not None:
                self._books.lost(self._stopped_for)
                return
            for unit in units:
                self._publish(unit)
        self._books.shown(carried=shot.carried)
        now_ns = monotonic_ns()
        utc_offset_ns = shot.frame.captured_utc_ns - shot.frame.captured_ns
        for unit in units:
            self._books.published((now_ns - (unit.captured_utc_ns - utc_offset_ns)) / 1e6)


def fitted(picture: Picture, height: int | None) -> Picture:
    """The picture with even sides, scaled down to ``height`` (upright) where it is higher.

    Its planes are scaled before colours are made and anything is drawn: at 1080p to 720p that halves the cost of the
    conversion, and lines and text stay sharp.
    """
    width_now, height_now = picture.size
    scale = min(1.0, height / height_now) if height is not None else 1.0
    upright = (_even(width_now * scale), _even(height_now * scale))
    if upright == picture.size:
        return picture
    width, height = upright[::-1] if picture.rotation in (90, 270) else upright
    luma, *chroma = picture.planes
    half = (width // 2, height // 2)
    return Picture(
        planes=(_scaled(luma, (width, height)), *(_scaled(plane, half) for plane in chroma)),
        layout=picture.layout,
        rotation=picture.rotation,
        matrix=picture.matrix,
        full_range=picture.full_range,
    )


def _scaled(plane: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Halved by averaging as often as that goes, so that no pixel is skipped, then brought to ``size``.

    Averaging over other areas than 2 x 2 would cost ten times as much.
    """
    width, height = size
    while plane.shape[0] >= 2 * height and plane.shape[1] >= 2 * width:
        plane = _resized(plane, (plane.shape[1] // 2, plane.shape[0] // 2), cv2.INTER_AREA)
    return _resized(plane, size, cv2.INTER_LINEAR)


def _resized(plane: UInt8Array, size: tuple[int, int], method: int) -> UInt8Array:
    resized: UInt8Array = cv2.resize(plane, size, interpolation=method)  # type: ignore[assignment]  # cv2: any array
    return resized


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)
