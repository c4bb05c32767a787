"""A run that is measured, in a process of its own: clean memory, and processor time of nothing else.

``python -m streamproc.bench.trial`` reads a pickled :class:`TrialRequest` from standard input and writes lines of
:mod:`streamproc.bench.samples` to standard output.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from streamproc.bench.samples import Ages, CameraSecond, Ended, Line, Refused, Second, write_line
from streamproc.config import Config
from streamproc.errors import ConfigError, ModelError, StreamprocError
from streamproc.monitor import CameraView
from streamproc.telemetry import RedactingFilter

__all__ = ["Recorder", "TrialRequest", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """Run ``config`` in so many ``workers`` for so many looks at it, one a second."""

    config: Config
    looks: int
    workers: int | Literal["auto"]


class Recorder:
    """Turns the views of a run into seconds: what has changed from each to the next."""

    def __init__(self, say: Callable[[Line], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._before: dict[str, CameraView] = {}
        self.looks = 0

    def __call__(self, views: list[CameraView]) -> None:
        """Take the next views."""
        self.looks += 1
        cameras = {view.status.camera: _since(self._before.get(view.status.camera), view) for view in views}
        self._before = {view.status.camera: view for view in views}
        self._say(Line(second=Second(at_s=self._clock(), cameras=cameras)))


def _since(before: CameraView | None, now: CameraView) -> CameraSecond:
    was, status = None if before is None else before.tally, now.status
    lost = dict(now.tally.dropped)
    for reason, count in ({} if was is None else was.dropped).items():
        lost[reason] -= count
    return CameraSecond(
        state=status.state.value + (f" ({status.reason})" if status.reason else ""),
        received=now.tally.received - (was.received if was else 0),
        inferred=now.tally.inferred - (was.inferred if was else 0),
        published=now.tally.published - (was.published if was else 0),
        lost={reason: count for reason, count in lost.items() if count},
        ages=Ages.between(None if before is None else before.ages, now.ages),
    )


async def _run(request: TrialRequest, say: Callable[[Line], None]) -> None:
    from streamproc import app  # loads every stage, which takes a second: errors above it come at once

    stop = asyncio.Event()
    recorder = Recorder(say)

    def look(views: list[CameraView]) -> None:
        recorder(views)
        if recorder.looks == request.looks:
            stop.set()

    outcome = await app.run(request.config, stop=stop, workers=request.workers, on_view=look)
    say(Line(ended=Ended(report=outcome.report, failures=outcome.failures)))


def _own_output() -> BinaryIO:
    """Standard output for our lines alone: whatever libraries print goes to standard error."""
    ours = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return ours


def main() -> None:
    """Run the trial that standard input asks for."""
    output = _own_output()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    logging.getLogger().handlers[0].addFilter(RedactingFilter())
    request: TrialRequest = pickle.load(sys.stdin.buffer)

    def say(line: Line) -> None:
        output.write(write_line(line))

    try:
        asyncio.run(_run(request, say))
    except StreamprocError as error:
        bad_input = isinstance(error, ConfigError | ModelError)
        say(Line(refused=Refused(message=str(error), is_bad_input=bad_input)))


if __name__ == "__main__":
    main()
