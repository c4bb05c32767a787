"""The command line; the only module that prints.

Exit codes: 0 clean, 1 failed, 2 the configuration or the command line cannot be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from streamproc import __version__, messages
from streamproc.config import Config, config_schema, load_config
from streamproc.errors import ConfigError, StreamprocError
from streamproc.telemetry import RedactingFilter

# The stages load OpenCV, libav and SciPy, which takes a second: commands import them once the configuration is known
# to be good, so that help, schemas and complaints come at once.
if TYPE_CHECKING:
    from streamproc.app import CameraView, RunOutcome

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_BAD_CONFIG = 2

_LINES_EVERY_S = 5.0

cli = typer.Typer(
    name="streamproc",
    help="Many cameras in, tracked detections on MQTT and annotated video out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
_out = Console(width=None if sys.stdout.isatty() else 160)
_err = Console(stderr=True)
_log = logging.getLogger("streamproc")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The cameras.yaml to use.", show_default=False)]


def main() -> NoReturn:
    """Run the command line and end the process."""
    cli()
    raise SystemExit(0)


def _version(wanted: bool) -> None:
    if wanted:
        _out.print(__version__)
        raise typer.Exit


@cli.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@cli.command()
def run(
    config: ConfigPath,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=0.1, help="End after so many seconds.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a JSON report here at the end.", show_default=False)
    ] = None,
) -> None:
    """Run until SIGINT or SIGTERM, or until every file has been played."""
    _set_up_logging()
    if report is not None and not report.absolute().parent.is_dir():
        _fail(f"--report: the folder of {report} does not exist; make it first", EXIT_BAD_CONFIG)
    with _errors():
        loaded = load_config(config)
        from streamproc.display import report_table
        from streamproc.report import encode_report

        outcome = asyncio.run(_run(loaded, duration))
        if report is not None:
            _write(report, encode_report(outcome.report))
    _out.print(report_table(outcome.report))
    for failure in outcome.failures:
        _err.print(f"error: {failure}", style="red", markup=False, highlight=False)
    raise typer.Exit(EXIT_FAILED if outcome.failures else 0)


async def _run(config: Config, duration_s: float | None) -> RunOutcome:
    from streamproc import app
    from streamproc.display import live_table

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _ask_to_stop, stop)
    if not _err.is_terminal:
        return await app.run(config, stop=stop, duration_s=duration_s, on_ready=_log.info, on_view=_LogLines())
    started_s = time.monotonic()
    with Live(console=_err, auto_refresh=False, transient=True) as live:
        return await app.run(
            config,
            stop=stop,
            duration_s=duration_s,
            on_ready=_log.info,
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
            _log.info("%s", line)


@cli.command("check")
def check_command(
    config: ConfigPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Validate a configuration, then probe its cameras, model, broker and outputs."""
    _set_up_logging(logging.ERROR)
    try:
        loaded = load_config(config)
        from streamproc import check

        with _errors():
            findings = asyncio.run(check.check(loaded))
    except ConfigError as error:
        if not as_json:
            _fail(str(error), EXIT_BAD_CONFIG, cause=error)
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        print(json.dumps({"ok": False, "config": problems, "probes": []}, indent=2))
        raise typer.Exit(EXIT_BAD_CONFIG) from error
    failed = [finding for finding in findings if not finding.ok]
    if as_json:
        print(
            json.dumps({"ok": not failed, "config": [], "probes": [dataclasses.asdict(f) for f in findings]}, indent=2)
        )
    else:
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]failed[/]"
            _out.print(f"{mark:<15}", end="")
            _out.print(f" {finding.subject}: {finding.message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_FAILED if failed else 0)


@cli.command()
def watch(
    url: Annotated[str, typer.Argument(help="The broker.")] = "mqtt://127.0.0.1:1883",
    prefix: Annotated[str, typer.Option(help="First level of the topics.")] = "streamproc",
    site: Annotated[str, typer.Option(help="Only this site; + for every site.")] = "+",
    camera: Annotated[str, typer.Option(help="Only this camera; + for every camera.")] = "+",
) -> None:
    """Show detections and camera states as they arrive."""
    _set_up_logging()
    with _errors(), contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(_watch(url, prefix, site, camera))


async def _watch(url: str, prefix: str, site: str, camera: str) -> None:
    from streamproc.watch import follow

    async for line in follow(url, prefix=prefix, site=site, camera=camera):
        _out.print(line, markup=False, highlight=False, soft_wrap=True)


@cli.command()
def schema(
    which: Annotated[
        Literal["config", "detections", "events", "status"],
        typer.Argument(help="What to describe.", show_default=False),
    ],
) -> None:
    """Print the JSON Schema of the configuration or of an MQTT payload."""
    print(json.dumps(config_schema() if which == "config" else messages.schema_for(which), indent=2))


def _set_up_logging(level: int = logging.INFO) -> None:
    handler: logging.Handler
    if _err.is_terminal:
        handler = RichHandler(console=_err, show_path=False, markup=False, highlighter=None)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    _log.setLevel(level)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """End the process with the right code and a message, rather than a traceback, for errors raised on purpose."""
    try:
        yield
    except ConfigError as error:
        _fail(str(error), EXIT_BAD_CONFIG, cause=error)
    except StreamprocError as error:
        _fail(str(error), EXIT_FAILED, cause=error)


def _fail(message: str, code: int, *, cause: Exception | None = None) -> NoReturn:
    _err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code) from cause


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or nothing of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        _fail(f"--report: cannot write {path}: {error.strerror}; the report is lost", EXIT_FAILED, cause=error)


if __name__ == "__main__":
    main()
