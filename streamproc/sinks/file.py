"""Results as JSON lines in a file, or in one file a camera."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from streamproc.channel import Channel
from streamproc.errors import FatalError
from streamproc.ledger import DropReason
from streamproc.messages import encode_detections
from streamproc.sinks.base import Delivery, SinkCounts
from streamproc.telemetry import RateLimitedLog

__all__ = ["FileSink"]

_log = logging.getLogger(__name__)

_BURST = 128
"""Lines written in one go at most, about 200 kB: what a disk takes at once, and what may be lost to a full one."""

_REMEDIES = {
    errno.ENOSPC: "Free space on that disk",
    errno.EDQUOT: "Free space within the quota",
    errno.EFBIG: "Move the file away or raise the limit on file sizes",
    errno.EACCES: "Allow this user to write there, or change file.path",
    errno.EPERM: "Allow this user to write there, or change file.path",
    errno.EROFS: "Choose a place that is not mounted read-only",
    errno.EISDIR: "Name a file, not a folder, in file.path",
    errno.EEXIST: "A part of the path is a file: change file.path",
    errno.ENOTDIR: "A part of the path is a file: change file.path",
}


class FileSink:
    """Appends each frame's detections as one line; lines are whole, whatever happens to disk or process.

    Lines are encoded on the event loop and written, without a buffer of ours, on a thread of the sink's own: while
    the disk is busy they wait in the inbox. A line that did not fit is taken back out of the file and its delivery
    is lost. A process that is killed loses nothing that was written; a machine that loses power may.

    Args:
        path: the file; ``{camera}`` in it stands for the camera's name. Missing folders are made.
        cameras: all cameras' names.
    """

    name = "file"
    essential = True

    def __init__(self, path: str, *, site: str, cameras: Iterable[str]) -> None:
        self._paths = {camera: Path(path.replace("{camera}", camera)) for camera in cameras}
        self._site = site
        self._files: dict[Path, _LineFile] = {}
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="file sink")
        self._warnings = RateLimitedLog(_log, interval_s=10.0)
        self.capacity = max(_BURST, 8 * len(self._paths))
        self.counts = SinkCounts()

    async def start(self) -> None:
        """Open every file.

        Raises:
            FatalError: one cannot be written; the message names it.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._open)
        except BaseException:
            self._close()
            raise

    async def run(self, inbox: Channel[Delivery]) -> None:
        """Write until the inbox is closed and empty, then close the files."""
        try:
            async for burst in inbox.bursts(_BURST):
                await self._take(deque(burst))
        finally:
            self._lose(inbox.drain(), DropReason.UNPUBLISHED)
            self._close()

    async def _take(self, burst: deque[Delivery]) -> None:
        """Write and answer every delivery of ``burst``."""
        try:
            while burst:
                path = self._paths[burst[0].result.frame.camera]
                together = [delivery for delivery in burst if self._paths[delivery.result.frame.camera] == path]
                await self._write(self._files[path], together)
                for delivery in together:
                    burst.remove(delivery)
        finally:
            self._lose(burst, DropReason.UNPUBLISHED)

    async def _write(self, file: _LineFile, deliveries: list[Delivery]) -> None:
        """Write and answer deliveries that go to one file; answers none of them when it is cancelled."""
        late = [delivery for delivery in deliveries if delivery.too_old()]
        fresh = [delivery for delivery in deliveries if delivery not in late]
        lines = [self._line(each) for each in fresh]
        written, error = await asyncio.get_running_loop().run_in_executor(self._writer, file.append, lines)
        self._lose(late, DropReason.LATE)
        for delivery in fresh[:written]:
            delivery.taken()
        self.counts.taken += written
        self._lose(fresh[written:], DropReason.SINK)
        if error is not None:
            self._warnings.warning(str(file.path), "%s", _complaint("cannot write", file.path, error))

    def _line(self, delivery: Delivery) -> bytes:
        with delivery.spending():
            return encode_detections(delivery.result, site=self._site, age_ms=delivery.age_ms()) + b"\n"

    def _lose(self, deliveries: Iterable[Delivery], reason: DropReason) -> None:
        for delivery in deliveries:
            delivery.lost(reason)
            self.counts.lost[reason.label] += 1

    def _open(self) -> None:
        for path in self._paths.values():
            if path in self._files:
                continue
            try:
                self._files[path] = _LineFile(path)
            except OSError as exc:
                raise FatalError(_complaint("cannot open", path, exc)) from exc

    def _close(self) -> None:
        """Close the files after what is being written, without waiting for a disk that hangs."""
        for file in self._files.values():
            self._writer.submit(file.close)
        self._files.clear()
        self._writer.shutdown(wait=False)


class _LineFile:
    """A file that whole lines are appended to, by one thread of each process that has it open.

    Raises (on making it):
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._torn = (0, 0)

    def append(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Append lines; how many of them, from the first, are whole in the file, and what kept the others out."""
        with self._alone():
            done, failure = self._write(b"".join(lines))
            whole = end = 0
            for line in lines:
                if end + len(line) > done:
                    break
                whole, end = whole + 1, end + len(line)
            if done > end:
                size = os.fstat(self._file).st_size
                self._torn = (size - (done - end), size)
            with suppress(OSError):  # tried again before the next line
                self._take_back()
        return whole, failure

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other processes that write to the file waiting; a pipe or device has no lock."""
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, data: bytes) -> tuple[int, OSError | None]:
        """How many bytes were written, and what kept the others out."""
        done, view = 0, memoryview(data)
        try:
            self._take_back()
            while done < len(data):
                done += os.write(self._file, view[done:])
        except OSError as exc:
            return done, exc
        return done, None

    def _take_back(self) -> None:
        """Cut a torn line from the end of the file; a pipe or device keeps what it was given, as does a file to which
        another process has since appended."""
        begin, end = self._torn
        if begin == end:
            return
        status = os.fstat(self._file)
        if S_ISREG(status.st_mode) and status.st_size == end:
            os.ftruncate(self._file, begin)
        self._torn = (0, 0)

    def close(self) -> None:
        os.close(self._file)


def _complaint(what: str, path: Path, error: OSError) -> str:
    remedy = _REMEDIES.get(error.errno or 0, "Check file.path and its disk")
    return f"file: {what} {path}: {error.strerror}. {remedy}"
