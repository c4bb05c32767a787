"""A look at a camera: can it be opened and decoded, and what does it send?"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamproc.channel import Closed
from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader
from streamproc.sources.opening import Transport
from streamproc.types import Frame

__all__ = ["Look", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a camera sends: ``codec`` as libav names it, ``size`` (width, height), ``rate`` in frames a second as its
    stream claims (None: it does not); ``files`` that stand for it."""

    codec: str
    size: tuple[int, int]
    rate: float | None
    files: int

    def __str__(self) -> str:
        """For people.

        >>> print(Look(codec="h264", size=(1920, 1080), rate=24.0, files=1))
        h264 1920x1080 at 24 FPS
        """
        rate = f" at {self.rate:.4g} FPS" if self.rate else ""
        others = f", the first of {self.files} files" if self.files > 1 else ""
        return f"{self.codec} {self.size[0]}x{self.size[1]}{rate}{others}"


def probe(
    camera: str,
    *,
    files: Sequence[Path],
    url: str,
    transport: Transport = "auto",
    username: str = "",
    password: str = "",
    timeout_s: float = 10.0,
) -> Look:
    """What a camera sends; of several files the first.

    It is read as in a run, up to the first picture. Blocks for ``timeout_s`` to open and as long again to read.

    Raises:
        SourceError: nothing could be read; the message says why and what to do.
    """
    seen: list[Frame] = []

    def keep_the_first(frame: Frame) -> None:
        seen.append(frame)
        raise Closed

    reader = AvReader(
        camera,
        emit=keep_the_first,
        ledger=CameraLedger(camera),
        on_online=lambda: None,
        stop=threading.Event(),
        realtime=False,
        open_timeout_s=timeout_s,
        read_timeout_s=timeout_s,
    )
    if files:
        reader.read_file(files[0])
    else:
        reader.read_stream(url, transport, username=username, password=password)
    return Look(codec=reader.codec, size=seen[0].picture.size, rate=reader.rate, files=len(files))
