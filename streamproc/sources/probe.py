"""A look at a camera: can it be opened and decoded, and what does it send?"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from streamproc.channel import Closed
from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader
from streamproc.sources.opening import Transport
from streamproc.types import Frame

__all__ = ["probe"]


def probe(
    camera: str,
    *,
    files: Sequence[Path],
    url: str,
    transport: Transport = "auto",
    username: str = "",
    password: str = "",
    timeout_s: float = 10.0,
) -> str:
    """What a camera sends, for people: codec, size, frame rate; of several files the first.

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
    width, height = seen[0].picture.size
    rate = f" at {reader.rate:.4g} FPS" if reader.rate else ""
    others = f", the first of {len(files)} files" if len(files) > 1 else ""
    return f"{reader.codec} {width}x{height}{rate}{others}"
