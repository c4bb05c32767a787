"""A file's own packets at the pace they were recorded at, over and over: a camera without its optics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from streamproc.errors import SourceError
from streamproc.sources.faults import UnsupportedError, file_error
from streamproc.sources.nal import NalCodec, codec_of
from streamproc.sources.opening import HardwareChoice, opened
from streamproc.sources.tap import PacketTap
from streamproc.types import AccessUnit

__all__ = ["FilePlayer"]

logger = logging.getLogger(__name__)

_TIMEOUTS_S = (10.0, 10.0)
_FALLBACK_RATE = 25.0
_RETRY_S = 5.0


class FilePlayer:
    """Plays an H.264 or H.265 file on a daemon thread, from :meth:`start` to :meth:`stop`; again when it ends.

    Args:
        name: for messages and the thread.
        path: the file.
        publish: takes every picture's access unit on that thread; must not wait.
    """

    def __init__(self, name: str, path: Path, publish: Callable[[AccessUnit], None]) -> None:
        self._name = name
        self._path = path
        self._publish = publish
        self._stopping = False
        self._interrupt = threading.Event()
        self._played_s = 0.0
        self._thread = threading.Thread(target=self._main, name=f"player-{name}", daemon=True)

    def start(self) -> None:
        """Begin to play.

        Raises:
            SourceError: the file cannot be read, or is of a codec that cannot be passed on.
        """
        try:
            with self._open() as (_, stream):
                _codec(self._name, self._path, stream)
        except (av.FFmpegError, UnsupportedError) as exc:
            raise file_error(self._name, self._path, exc) from exc
        self._thread.start()

    def begin_again(self) -> None:
        """Go back to the first picture, a keyframe; from any thread."""
        self._interrupt.set()

    def stop(self) -> None:
        """End the thread, and wait for that."""
        self._stopping = True
        self._interrupt.set()
        if self._thread.is_alive():
            self._thread.join()

    def _open(self) -> AbstractContextManager[tuple[InputContainer, VideoStream]]:
        hardware = HardwareChoice(self._name, "none")
        return opened(self._name, f"file:{self._path}", {}, timeouts_s=_TIMEOUTS_S, hardware=hardware)

    def _main(self) -> None:
        while True:
            self._interrupt.clear()
            if self._stopping:
                return
            try:
                with self._open() as (container, stream):
                    self._play(container, stream)
            except SourceError as exc:
                self._rest(exc)
            except (av.FFmpegError, UnsupportedError) as exc:
                self._rest(file_error(self._name, self._path, exc))

    def _rest(self, error: SourceError) -> None:
        """A file that was there at the start is gone, or another has taken its place."""
        logger.warning("%s Next attempt in %g s.", error, _RETRY_S)
        self._interrupt.wait(_RETRY_S)

    def _play(self, container: InputContainer, stream: VideoStream) -> None:
        """Play the file once; its media time goes on from the last time."""
        tap = PacketTap(stream, _codec(self._name, self._path, stream))
        began_s, origin_s, first_s = 0.0, self._played_s, None
        rate = stream.guessed_rate or stream.average_rate
        period_s = 1 / float(rate) if rate else 1 / _FALLBACK_RATE
        for packet in container.demux(stream):
            if packet.dts is None or not packet.size:
                continue
            tick_s = float(packet.time_base)
            due_s, shown_s = packet.dts * tick_s, (packet.dts if packet.pts is None else packet.pts) * tick_s
            if first_s is None:
                began_s, first_s = time.monotonic(), due_s
            due_at_s = began_s + due_s - first_s
            if self._interrupt.wait(due_at_s - time.monotonic()):
                return
            # A camera takes its pictures in time, however late they are passed on.
            captured_utc_ns = time.time_ns() - round((time.monotonic() - due_at_s) * 1e9)
            unit = tap.unit(packet, pts_s=origin_s + shown_s - first_s, captured_utc_ns=captured_utc_ns)
            self._played_s = origin_s + due_s - first_s + period_s
            if unit is not None:
                self._publish(unit)
        self._interrupt.wait(period_s)


def _codec(name: str, path: Path, stream: VideoStream) -> NalCodec:
    codec = codec_of(stream.codec_context.name)
    if codec is None:
        raise SourceError(
            f"camera {name}: {path} is {stream.codec_context.name}; expected H.264 or H.265, which alone can be passed "
            "on. Convert it, for example with ffmpeg -c:v libx264.",
            reason="codec",
        )
    return codec
