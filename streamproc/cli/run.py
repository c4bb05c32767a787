"""``streamproc run``."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.live import Live

from streamproc.cli.processes import Workers, worker_count
from streamproc.cli.terminal import EXIT_BAD_CONFIG, EXIT_FAILED, err, errors, fail, log, out, set_up_logging
from streamproc.config import Config, load_config

if TYPE_CHECKING:
    from streamproc.app import RunOutcome
    from streamproc.monitor import CameraView

__all__ = ["ConfigPath", "run"]

_LINES_EVERY_S = 5.0

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The cameras.yaml to use.", show_default=False)]


def run(
    config: ConfigPath,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=0.1, help="End after so many seconds.", show_default=False)
    ] = None,
    workers: Workers = "auto",
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a JSON report here at the end.", show_default=False)
    ] = None,
) -> None:
    """Run until SIGINT or SIGTERM, or until every file has been played."""
    set_up_logging()
    if report is not None and not report.absolute().parent.is_dir():
        fail(f"--report: the folder of {report} does not exist; make it first", EXIT_BAD_CONFIG)
    processes = worker_count(workers)
    with errors():
        loaded = load_config(config)
        from streamproc.display import report_table
        from streamproc.report import encode_report

        outcome = asyncio.run(_run(loaded, duration, processes))
        if report is not None:
            _write(report, encode_report(outcome.report))
    out.print(report_table(outcome.report))
    for failure in outcome.failures:
        err.print(f"error: {failure}", style="red", markup=False, highlight=False)
    raise typer.Exit(EXIT_FAILED if outcome.failures else 0)


async def _run(config: Config, duration_s: float | None, workers: int | Literal["auto"]) -> RunOutcome:
    from streamproc import app
    from streamproc.display import live_table

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _ask_to_stop, stop)
    if not err.is_terminal:
        return await app.run(
            config, stop=stop, duration_s=duration_s, workers=workers, on_ready=log.info, on_view=_LogLines()
        )
    started_s = time.monotonic()
    with Live(console=err, auto_refresh=False, transient=True) as live:
        return await app.run(
            config,
            stop=stop,
            duration_s=duration_s,
            workers=workers,
            on_ready=log.info,
            on_view=lambda views: live.update(live_table(views, elapsed_s=time.monotonic() - started_s), refresh=True),
        )


def _ask_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(EXIT_FAILED)  # asked twice: the user is done waiting
    stop.set()


class _LogLines:
    """Writes the cameras' state into the log, less often than it is told of it."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + 1.0

    def __call__(self, views: list[CameraView]) -> None:
        from streamproc.display import status_lines

        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _LINES_EVERY_S
        for line in status_lines(views):
            log.info("%s", line)


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or nothing of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        fail(f"--report: cannot write {path}: {error.strerror}; the report is lost", EXIT_FAILED, cause=error)
