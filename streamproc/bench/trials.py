"""Starts a trial in a process of its own, and watches what it tells and what it uses, once a second."""

from __future__ import annotations

import asyncio
import pickle
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Literal

from streamproc.bench.samples import Ended, Line, Second, read_line
from streamproc.bench.trial import TrialRequest
from streamproc.bench.usage import GpuMeter, GpuUse, Usage, end_tree, usage_of
from streamproc.config import Config
from streamproc.errors import FatalError, ModelError
from streamproc.telemetry import redact

__all__ = ["Moment", "Record", "run_trial"]

_PROGRAM = (sys.executable, "-m", "streamproc.bench.trial")
_OPENING_S = 600.0
"""To open model and engine: a server may have to start first, and a plan to be built."""
_SILENCE_S = 60.0
"""A trial speaks once a second; so long after its last word it is stuck."""
_LAST_WORDS = 3
_LONGEST_LINE = 1 << 24  # a second of many cameras is a few hundred kB


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A second of a trial, and what it had used by then."""

    second: Second
    usage: Usage
    gpu: GpuUse | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A whole trial; ``gpu_before`` was read before it began."""

    moments: tuple[Moment, ...]
    ended: Ended
    gpu_before: GpuUse | None


async def run_trial(
    config: Config,
    *,
    looks: int,
    workers: int | Literal["auto"],
    gpus: GpuMeter,
    on_look: Callable[[int], None] = lambda _: None,
) -> Record:
    """Run a configuration for so many seconds, counted from when its cameras start.

    Args:
        on_look: is told how many seconds are over, each time.

    Raises:
        ModelError: the model cannot be used, or the configuration does not fit it.
        FatalError: the run could not begin, broke, or got stuck; the message says why.
    """
    gpu_before = gpus.read()
    request = TrialRequest(config=config, looks=looks, workers=workers)
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *_PROGRAM, stdin=PIPE, stdout=PIPE, stderr=log, limit=_LONGEST_LINE
        )
        try:
            moments, ended = await _watch(process, request, gpus, on_look)
        finally:
            end_tree(process.pid)
            await process.wait()
        if ended is None or not moments:
            raise FatalError(f"a trial ended early, with exit code {process.returncode}: {_last_words(log)}")
    return Record(moments=tuple(moments), ended=ended, gpu_before=gpu_before)


async def _watch(
    process: Process, request: TrialRequest, gpus: GpuMeter, on_look: Callable[[int], None]
) -> tuple[list[Moment], Ended | None]:
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(request))
    process.stdin.write_eof()
    moments: list[Moment] = []
    ended: Ended | None = None
    while (line := await _next_line(process, _SILENCE_S if moments else _OPENING_S)) is not None:
        if line.refused is not None:
            kind = ModelError if line.refused.is_bad_input else FatalError
            raise kind(line.refused.message)
        ended = line.ended
        usage = usage_of(process.pid)
        if line.second is not None and usage is not None:
            moments.append(Moment(second=line.second, usage=usage, gpu=gpus.read()))
            on_look(len(moments))
    return moments, ended


async def _next_line(process: Process, timeout_s: float) -> Line | None:
    """What the trial says next; None when it has ended."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            text = await process.stdout.readline()
    except TimeoutError as exc:
        end_tree(process.pid)
        raise FatalError(f"a trial said nothing for {timeout_s:g} s and was ended") from exc
    return read_line(text) if text else None


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return redact("; ".join(lines[-_LAST_WORDS:])) or "it said nothing"
