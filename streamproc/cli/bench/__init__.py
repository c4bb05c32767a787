"""``streamproc bench``: figures of this machine, beside what they are to be compared with."""

from __future__ import annotations

import typer

from streamproc.cli.bench.capacity import capacity
from streamproc.cli.bench.cost import cost
from streamproc.cli.bench.efficiency import efficiency
from streamproc.cli.bench.overload import overload
from streamproc.cli.bench.transport import transport

__all__ = ["bench"]

bench = typer.Typer(help="Measure what this machine does, and what it costs.", no_args_is_help=True)


@bench.callback()
def _bench() -> None:
    pass  # with a callback, a single command would keep its name


for command in (capacity, cost, efficiency, overload, transport):
    bench.command()(command)
