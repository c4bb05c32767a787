"""``streamproc bench efficiency``."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer

from streamproc.cli.bench.output import HtmlFile, JsonFile, check_folders, progress, say, show_table, write
from streamproc.cli.bench.subject import ConfigFile, EngineKind, LabelsWord, ModelFile, VideoFile, chosen_config
from streamproc.cli.terminal import EXIT_BAD_CONFIG, errors, fail, set_up_logging
from streamproc.config import Config

__all__ = ["efficiency"]


def efficiency(
    config: ConfigFile = None,
    video: VideoFile = None,
    model: ModelFile = None,
    engine: EngineKind = None,
    labels: LabelsWord = None,
    cameras: Annotated[int, typer.Option(help="How many play the --video.", min=1, max=256)] = 4,
    rounds: Annotated[int, typer.Option(help="How often each part is measured.", min=1, max=99)] = 3,
    seconds: Annotated[float, typer.Option(help="Of each measurement.", min=0.1)] = 8.0,
    annotate: Annotated[bool, typer.Option("--annotate", help="Measure annotated video as well.")] = False,
    json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Compare the whole pipeline with the bare engine and with decoding alone, interleaved in one run.

    Every frame of the cameras' files is processed, as fast as the machine allows. Nothing is published: what a CONFIG
    says of brokers, files and streams is left aside, and detections go to a temporary file.
    """
    set_up_logging(logging.WARNING)
    check_folders(json=json, html=html)
    with errors():
        chosen = chosen_config(config, video, model, engine, labels)
        _check_files(chosen, has_video=video is not None)
        from streamproc.bench.efficiency import Plan, as_json, measure_efficiency, unpaced
        from streamproc.bench.efficiency_page import as_html, stages_table, subject_lines, summary, totals_table

        plan = Plan(rounds=rounds, seconds=seconds, annotate=annotate)
        report = asyncio.run(measure_efficiency(unpaced(chosen, video, cameras), plan, on_progress=progress))
    for name, value in subject_lines(report).items():
        say(f"{name}: {value}")
    show_table(totals_table(report))
    show_table(stages_table(report))
    say(summary(report))
    if json is not None:
        write("json", json, as_json(report))
    if html is not None:
        write("html", html, as_html(report))


def _check_files(config: Config, *, has_video: bool) -> None:
    live = [name for name, camera in config.cameras.items() if not camera.files]
    if live and not has_video:
        fail(
            f"camera {live[0]} is live, and cannot go as fast as the machine allows. Give a --video to play instead",
            EXIT_BAD_CONFIG,
        )
