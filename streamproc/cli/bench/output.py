"""What every benchmark does alike with its findings: files for programs and browsers, tables for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import table as rich_table
from rich.text import Text

from streamproc.bench.page import Table
from streamproc.cli.terminal import EXIT_BAD_CONFIG, EXIT_FAILED, err, fail, out

__all__ = ["OUTPUT", "HtmlFile", "JsonFile", "check_folders", "progress", "say", "show_table", "write"]

OUTPUT = "Output"

JsonFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write everything here, as JSON.", rich_help_panel=OUTPUT)
]
HtmlFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a page with tables and plots here.", rich_help_panel=OUTPUT),
]


def check_folders(**files: Path | None) -> None:
    """End the command where a file that it was asked for, by option, could not be written at the end."""
    for option, path in files.items():
        if path is not None and not path.absolute().parent.is_dir():
            fail(f"--{option}: the folder of {path} does not exist; make it first", EXIT_BAD_CONFIG)


def write(option: str, path: Path | None, content: str) -> None:
    """Write a file that was asked for; end the command where that fails."""
    if path is None:
        return
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        fail(f"--{option}: cannot write {path}: {error.strerror}", EXIT_FAILED, cause=error)


def progress(text: str) -> None:
    """Say what is being done now."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line of the findings, as it is."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def show_table(table: Table) -> None:
    """Print a table's header, rows and note."""
    shown = rich_table.Table(box=None, pad_edge=False, header_style="bold")
    for name, is_number in zip(table.header, table.numeric, strict=True):
        shown.add_column(Text(name), justify="right" if is_number else "left")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    out.print(shown)
    if table.note:
        say(table.note)
