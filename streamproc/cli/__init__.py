"""The command line; the only room that prints.

Exit codes: 0 clean, 1 failed, 2 the configuration or the command line cannot be used. The stages load OpenCV, libav
and SciPy, which takes a second: commands import them once the configuration is known to be good, so that help,
schemas and complaints come at once.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from streamproc import __version__
from streamproc.cli.bench import bench
from streamproc.cli.models import models
from streamproc.cli.probing import check, schema, watch
from streamproc.cli.run import run
from streamproc.cli.simulate import simulate
from streamproc.cli.terminal import out
from streamproc.cli.triton import triton

__all__ = ["main"]

cli = typer.Typer(
    name="streamproc",
    help="Many cameras in, tracked detections on MQTT and annotated video out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (run, check, watch, simulate, schema):
    cli.command()(command)
cli.add_typer(models, name="models")
cli.add_typer(triton, name="triton")
cli.add_typer(bench, name="bench")


def main() -> NoReturn:
    """Run the command line and end the process."""
    cli()
    raise SystemExit(0)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@cli.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
