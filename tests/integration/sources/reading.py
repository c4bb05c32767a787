"""Reading a whole file with a real reader, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamproc.errors import SourceError
from streamproc.ledger import CameraLedger, CameraTally, Stage
from streamproc.sources.av_reader import AvReader
from streamproc.types import Frame
from tests.media import number_in

__all__ = ["Reading", "assert_closed", "read_files"]


@dataclass
class Reading:
    """What came of reading some files with one reader."""

    frames: list[Frame] = field(default_factory=list)
    errors: list[SourceError] = field(default_factory=list)
    online: int = 0
    ledger: CameraLedger = field(default_factory=lambda: CameraLedger("cam"))

    @property
    def tally(self) -> CameraTally:
        return self.ledger.tally()

    @property
    def numbers(self) -> list[int]:
        return [number_in(frame.picture) for frame in self.frames]

    def went_online(self) -> None:
        self.online += 1


def read_files(
    *paths: Path,
    realtime: bool = False,
    stop: threading.Event | None = None,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    keep: Callable[[Frame], Frame] = lambda frame: frame,
    **options: Any,
) -> Reading:
    """Read the files one after another, noting what fails; ``options`` go to the reader."""
    reading = Reading()
    reader = AvReader(
        "cam",
        emit=lambda frame: reading.frames.append(keep(frame)),
        ledger=reading.ledger,
        on_online=reading.went_online,
        stop=stop or threading.Event(),
        realtime=realtime,
        clock_ns=clock_ns,
        **options,
    )
    for path in paths:
        try:
            reader.read_file(path)
        except SourceError as error:
            reading.errors.append(error)
    return reading


def assert_closed(tally: CameraTally) -> None:
    """Every packet of the decode stage is accounted for."""
    assert tally.in_flight()[Stage.DECODE] == 0, tally
