"""Annotated video files: each camera is drawn, encoded and written by a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from streamproc.channel import Channel, Closed, Overflow
from streamproc.errors import SinkError
from streamproc.sinks.annotate import Annotator
from streamproc.sinks.base import Delivery, SharedCounts, SinkCounts
from streamproc.sinks.daemon import start_daemon
from streamproc.sinks.video_file import VideoFile, prepare
from streamproc.telemetry import RateLimitedLog
from streamproc.types import FrameResult, Picture, UInt8Array

__all__ = ["VideoSink"]

_log = logging.getLogger(__name__)

_FRAMES_WAITING = 4  # per camera; each holds one of its decoder's pictures
_CLOSE_TIMEOUT_S = 2.0
_WARN_EVERY_S = 60.0


class _Books(SharedCounts):
    """The sink's counts and its log."""

    def __init__(self) -> None:
        super().__init__()
        self._warnings = RateLimitedLog(_log, interval_s=_WARN_EVERY_S)

    def warn(self, camera: str, error: SinkError) -> None:
        """Say, once a minute and camera, that its file is incomplete."""
        self._warnings.warning(
            camera,
            "camera %s: cannot write its video: %s. The file ends here and its detections go on; "
            "make room on the disk, or set video.path elsewhere, and start again",
            camera,
            error,
        )


class _Writer:
    """One camera's thread: draws and encodes what its inbox holds until that is closed.

    ``done`` is resolved when the thread has ended, with the exception that ended it if that was a bug. A file that
    cannot be written is none: from then on the camera's frames are counted as lost.
    """

    def __init__(
        self,
        camera: str,
        path: Path,
        *,
        live: bool,
        to_bgr: Callable[[Picture], UInt8Array],
        books: _Books,
        spent: Callable[[str, int], None],
    ) -> None:
        self.camera = camera
        self._spent = spent
        self.path = path
        self.live = live
        self.inbox: Channel[FrameResult] = Channel(
            _FRAMES_WAITING,
            Overflow.DROP_OLDEST if live else Overflow.BLOCK,
            on_drop=lambda _: books.lost("overload"),
        )
        self._to_bgr = to_bgr
        self._books = books
        self._annotator = Annotator()
        self._file = VideoFile(path)
        self._error: SinkError | None = None
        self.done = start_daemon(f"video-{camera}", self._consume, at_end=self.inbox.close)

    def abandon(self) -> None:
        """Forget what is waiting; the thread ends as soon as it comes back from where it is."""
        for _ in self.inbox.drain():
            self._books.lost("shutdown")

    def _consume(self) -> None:
        try:
            while True:
                result = self.inbox.get()
                started_ns = time.thread_time_ns()
                self._record(result)
                self._spent(self.camera, time.thread_time_ns() - started_ns)
        except Closed:
            pass
        started_ns = time.thread_time_ns()  # the encoder still has its last pictures
        try:
            self._file.close()
        except SinkError as exc:
            self._books.warn(self.camera, exc)
        self._spent(self.camera, time.thread_time_ns() - started_ns)

    def _record(self, result: FrameResult) -> None:
        if self._error is None:
            bgr = self._annotator.draw(result, self._to_bgr(result.frame.picture))
            try:
                self._file.write(bgr, result.frame.pts_s)
            except SinkError as exc:
                self._error = exc
                with contextlib.suppress(SinkError):  # the same disk again: the first error is the one to tell
                    self._file.close()
            else:
                self._books.taken()
                return
        self._books.lost("encoder")
        self._books.warn(self.camera, self._error)


class VideoSink:
    """Writes each camera's annotated pictures to a video file of its own, and never answers deliveries.

    Every camera has its own thread and a short inbox. A live camera whose writer is behind loses the oldest waiting
    picture, counted as ``overload``; a file that must not lose frames makes the sink's inbox wait instead, which is
    what slows its source down, together with whatever else runs beside it: the pipeline hands its results on in one
    order, and a run with such files has all the time it needs. Frames that a full disk or a broken encoder kept out
    are counted as ``encoder``, those that the closing deadline cut off as ``shutdown``.

    Args:
        path: where to write, ending in ``.mp4`` or ``.mkv``; ``{camera}`` in it becomes the camera's name. Existing
            files are overwritten.
        cameras: the names of all cameras.
        to_bgr: makes a new (h, w, 3) uint8 array of a picture, upright, BGR, full range; called on several threads.
        spent: is told how many ns of processor time went into a camera's picture; called on several threads.
    """

    name = "video"
    essential = False

    def __init__(
        self,
        path: str,
        cameras: Sequence[str],
        *,
        to_bgr: Callable[[Picture], UInt8Array],
        spent: Callable[[str, int], None] = lambda camera, ns: None,
    ) -> None:
        self._spent = spent
        self.capacity = max(8, 2 * len(cameras))  # a batch of every camera, and the next one
        self._paths = {camera: Path(path.replace("{camera}", camera)) for camera in cameras}
        self._to_bgr = to_bgr
        self._books = _Books()
        self._writers: dict[str, _Writer] = {}

    @property
    def counts(self) -> SinkCounts:
        """Frames encoded, and frames lost by reason."""
        return self._books.counts

    async def start(self) -> None:
        """Make the directories.

        Raises:
            FatalError: a file can never be written there, or is of no known kind.
            DependencyError: the installed PyAV has no encoder.
        """
        for camera, path in self._paths.items():
            prepare(camera, path)

    async def run(self, inbox: Channel[Delivery]) -> None:
        """Record until the inbox is closed and empty, then finish the files.

        Files that are not finished 2 s later are left as they are, playable, with a warning; those of cameras that
        must not lose frames get as long as their frames keep coming out.
        """
        try:
            async for delivery in inbox:
                await self._hand_over(delivery)
        finally:
            await self._finish()

    async def _hand_over(self, delivery: Delivery) -> None:
        result = delivery.result
        writer = self._writers.get(result.frame.camera) or self._open(result.frame.camera, result.frame.live)
        try:
            if writer.live:
                writer.inbox.offer(result)
            else:
                await writer.inbox.send(result)
        except Closed:
            writer.done.result()  # the bug that ended the thread
            raise

    def _open(self, camera: str, live: bool) -> _Writer:
        writer = _Writer(
            camera, self._paths[camera], live=live, to_bgr=self._to_bgr, books=self._books, spent=self._spent
        )
        self._writers[camera] = writer
        return writer

    async def _finish(self) -> None:
        writers = {asyncio.wrap_future(writer.done): writer for writer in self._writers.values()}
        for writer in writers.values():
            writer.inbox.close()
        running = set(writers)
        while running:
            before = self.counts.taken
            _, running = await asyncio.wait(running, timeout=_CLOSE_TIMEOUT_S)
            moving = self.counts.taken > before
            for future in [future for future in running if writers[future].live or not moving]:
                running.remove(future)
                self._abandon(writers[future])
        for future in writers:
            if future.done():
                future.result()

    def _abandon(self, writer: _Writer) -> None:
        writer.abandon()
        _log.warning(
            "camera %s: its video %s was not finished within %.0f s and may lack its last seconds; "
            "the encoder or the disk is too slow for it",
            writer.camera,
            writer.path,
            _CLOSE_TIMEOUT_S,
        )
