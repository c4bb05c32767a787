"""What every command does alike: where it prints, how it logs, and how it ends when something is wrong."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

from streamproc.errors import ConfigError, StreamprocError
from streamproc.telemetry import RedactingFilter

__all__ = ["EXIT_BAD_CONFIG", "EXIT_FAILED", "err", "errors", "fail", "log", "out", "set_up_logging"]

EXIT_FAILED = 1
EXIT_BAD_CONFIG = 2

out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)
log = logging.getLogger("streamproc")


def set_up_logging(level: int = logging.INFO) -> None:
    """Log to standard error, without credentials."""
    handler: logging.Handler
    if err.is_terminal:
        handler = RichHandler(console=err, show_path=False, markup=False, highlighter=None)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(level)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """End the process with the right code and a message, rather than a traceback, for errors raised on purpose."""
    try:
        yield
    except ConfigError as error:
        fail(str(error), EXIT_BAD_CONFIG, cause=error)
    except StreamprocError as error:
        fail(str(error), EXIT_FAILED, cause=error)


def fail(message: str, code: int, *, cause: Exception | None = None) -> NoReturn:
    """Say what is wrong and end the command."""
    err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code) from cause
