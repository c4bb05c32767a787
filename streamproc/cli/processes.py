"""``--workers``: into how many processes the cameras go."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from streamproc.cli.terminal import EXIT_BAD_CONFIG, fail

__all__ = ["Workers", "worker_count"]

_MOST = 256

Workers = Annotated[
    str,
    typer.Option(
        metavar="auto|N", help="Processes that share the cameras; auto: as many as cameras and cores call for."
    ),
]


def worker_count(text: str) -> int | Literal["auto"]:
    """What ``--workers`` asks for; ends the command where that is nothing."""
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST):
        fail(f"--workers: found {text!r}; expected auto, or a number from 1 to {_MOST}", EXIT_BAD_CONFIG)
    return int(text)
