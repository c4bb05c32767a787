"""``streamproc bench overload``."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer

from streamproc.cli.bench.cameras import (
    ConfigFile,
    Doing,
    EngineKind,
    Limit,
    Seconds,
    WarmUp,
    bad_input,
    chosen_workload,
)
from streamproc.cli.bench.output import HtmlFile, JsonFile, check_folders, progress, say, show_table, write
from streamproc.cli.bench.subject import LabelsWord, ModelFile, VideoFile
from streamproc.cli.processes import Workers, worker_count
from streamproc.cli.terminal import set_up_logging

__all__ = ["overload"]


def overload(
    config: ConfigFile = None,
    video: VideoFile = None,
    model: ModelFile = None,
    labels: LabelsWord = None,
    engine: EngineKind = None,
    times: Annotated[float, typer.Option(help="Of what the machine infers.", min=1.1, max=20)] = 2.0,
    fps: Annotated[float, typer.Option(help="Frames a second of every camera.", min=1, max=240)] = 24.0,
    warm_up: WarmUp = 5,
    seconds: Seconds = 30,
    most: Limit = 256,
    workers: Workers = "auto",
    json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Ask twice of this machine what it can do, and see which promises are kept: freshness, fairness, the books.

    First more and more cameras show how many images a second it infers; then so many run in real time that they send
    twice that. Every other camera has priority 2, unless the CONFIG has priorities of its own. What a CONFIG says of
    brokers, files and streams is left aside.
    """
    set_up_logging(logging.WARNING)
    check_folders(json=json, html=html)
    processes = worker_count(workers)
    with bad_input():
        workload = chosen_workload(config, video, model, engine, labels)
        from streamproc.bench.overload import Plan, measure_overload
        from streamproc.bench.overload_report import (
            as_html,
            as_json,
            probe_line,
            promises_table,
            sentence,
            shares_table,
        )

        plan = Plan(times=times, fps=fps, warm_up=warm_up, seconds=seconds, limit=most, workers=processes)
        with Doing() as doing:
            report = asyncio.run(
                measure_overload(workload, plan, on_probe=lambda probe: progress(probe_line(probe)), on_doing=doing)
            )
    say(sentence(report))
    show_table(promises_table(report))
    show_table(shares_table(report))
    for note in report.notes:
        say(f"note: {note}")
    if json is not None:
        write("json", json, as_json(report))
    if html is not None:
        write("html", html, as_html(report))
