"""``streamproc check``, ``watch`` and ``schema``: commands that look and tell."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from typing import Annotated, Literal

import typer

from streamproc import messages
from streamproc.cli.run import ConfigPath
from streamproc.cli.terminal import EXIT_BAD_CONFIG, EXIT_FAILED, errors, fail, out, set_up_logging
from streamproc.config import config_schema, load_config
from streamproc.errors import ConfigError

__all__ = ["check", "schema", "watch"]


def check(
    config: ConfigPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Validate a configuration, then probe its cameras, model, broker and outputs."""
    set_up_logging(logging.ERROR)
    try:
        loaded = load_config(config)
        from streamproc import check as checking

        with errors():
            findings = asyncio.run(checking.check(loaded))
    except ConfigError as error:
        if not as_json:
            fail(str(error), EXIT_BAD_CONFIG, cause=error)
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
            out.print(f"{mark:<15}", end="")
            out.print(f" {finding.subject}: {finding.message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_FAILED if failed else 0)


def watch(
    url: Annotated[str, typer.Argument(help="The broker.")] = "mqtt://127.0.0.1:1883",
    prefix: Annotated[str, typer.Option(help="First level of the topics.")] = "streamproc",
    site: Annotated[str, typer.Option(help="Only this site; + for every site.")] = "+",
    camera: Annotated[str, typer.Option(help="Only this camera; + for every camera.")] = "+",
) -> None:
    """Show detections and camera states as they arrive."""
    set_up_logging()
    with errors(), contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(_watch(url, prefix, site, camera))


async def _watch(url: str, prefix: str, site: str, camera: str) -> None:
    from streamproc.watch import follow

    async for line in follow(url, prefix=prefix, site=site, camera=camera):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def schema(
    which: Annotated[
        Literal["config", "detections", "events", "status"],
        typer.Argument(help="What to describe.", show_default=False),
    ],
) -> None:
    """Print the JSON Schema of the configuration or of an MQTT payload."""
    print(json.dumps(config_schema() if which == "config" else messages.schema_for(which), indent=2))
