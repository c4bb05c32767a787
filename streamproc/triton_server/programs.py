"""Other programs, run to their end."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

__all__ = ["NOT_FOUND", "Finished", "Progress", "ignore", "run"]

Progress: TypeAlias = Callable[[str], None]
"""Takes one line, for people, about what is going on."""

_KEPT_LINES = 2000
NOT_FOUND = 127
"""The exit code for a program that is not there or cannot be run, as of a shell."""


class Finished(NamedTuple):
    """A program that has ended; ``output`` is stdout and stderr together, its last lines if there was much."""

    code: int
    output: str

    def tail(self, lines: int = 8) -> str:
        """The last lines that say something."""
        return "\n".join([line for line in self.output.splitlines() if line.strip()][-lines:])


def ignore(_line: str) -> None:
    """Progress that nobody wants to see."""


async def run(*command: str, timeout_s: float, on_progress: Progress = ignore) -> Finished:
    """Run a program, line by line to ``on_progress``; killed when cancelled or out of time.

    A program that is not there or cannot be run answers 127, one that takes too long 124.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
    except OSError as exc:
        return Finished(NOT_FOUND, f"{command[0]}: {exc.strerror}")
    assert process.stdout is not None
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        async with asyncio.timeout(timeout_s):
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                lines.append(line)
                on_progress(line)
            return Finished(await process.wait(), "\n".join(lines))
    except TimeoutError:
        return Finished(124, "\n".join([*lines, f"{command[0]} took longer than {timeout_s:g} s"]))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
