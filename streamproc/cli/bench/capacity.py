"""``streamproc bench capacity``."""

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
from streamproc.cli.terminal import EXIT_BAD_CONFIG, EXIT_FAILED, err, fail, set_up_logging

__all__ = ["capacity"]

_FASTEST = 240.0


def capacity(
    config: ConfigFile = None,
    video: VideoFile = None,
    model: ModelFile = None,
    labels: LabelsWord = None,
    engine: EngineKind = None,
    fps: Annotated[str, typer.Option(help="Frames a second of every camera, one answer for each.")] = "24,15,10,5",
    warm_up: WarmUp = 5,
    seconds: Seconds = 10,
    most: Limit = 256,
    workers: Workers = "auto",
    json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Find how many cameras this machine carries within the budget: "14 cameras at 24 FPS, p95 age 61 ms".

    The cameras run in real time, as in `streamproc run`, and are repeated; what a CONFIG says of brokers, files and
    streams is left aside. The budget is broken when, after the warm-up, 5 % of the published frames are older than
    budget.max_frame_age_ms, or any camera publishes less than 98 % of its frames. Each trial has a process of its own.
    """
    set_up_logging(logging.WARNING)
    check_folders(json=json, html=html)
    rates, processes = _rates(fps), worker_count(workers)
    with bad_input():
        workload = chosen_workload(config, video, model, engine, labels)
        from streamproc.bench.capacity import Plan, measure_capacity
        from streamproc.bench.capacity_report import as_html, as_json, remedy, sentence, summary_table, trial_line

        plan = Plan(rates=workload.reachable(rates), warm_up=warm_up, seconds=seconds, limit=most, workers=processes)
        with Doing() as doing:
            report = asyncio.run(
                measure_capacity(workload, plan, on_trial=lambda trial: progress(trial_line(trial)), on_doing=doing)
            )
    carried = [answer for answer in report.answers if answer.held is not None]
    if carried:
        show_table(summary_table(report))
    for answer in report.answers:
        say(sentence(answer))
    for note in report.notes:
        say(f"note: {note}")
    if json is not None:
        write("json", json, as_json(report))
    if html is not None:
        write("html", html, as_html(report))
    for answer in report.answers:
        if answer.held is None:
            err.print(remedy(answer), style="yellow", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if carried else EXIT_FAILED)


def _rates(text: str) -> tuple[float, ...]:
    """Frames a second, separated by commas; each once, the highest first."""
    rates = set()
    for word in text.split(","):
        try:
            rate = float(word)
        except ValueError:
            rate = 0.0
        if not 0 < rate <= _FASTEST:
            found = repr(word.strip())
            fail(f"--fps: found {found}; expected numbers up to {_FASTEST:g}, with commas between", EXIT_BAD_CONFIG)
        rates.add(rate)
    return tuple(sorted(rates, reverse=True))
