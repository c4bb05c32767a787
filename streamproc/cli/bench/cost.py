"""``streamproc bench cost``."""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path
from typing import Annotated

import typer

from streamproc.cli.bench.output import HtmlFile, JsonFile, check_folders, progress, show_table, write
from streamproc.cli.bench.subject import (
    Engine,
    EngineKind,
    LabelsWord,
    VideoFile,
    refuse_beside_config,
    written_labels,
)
from streamproc.cli.terminal import EXIT_BAD_CONFIG, errors, fail, set_up_logging
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, load_config

__all__ = ["cost"]

_Models = Annotated[
    list[Path] | None,
    typer.Argument(metavar="MODEL", help="Model files, .onnx or .xml.", exists=True, dir_okay=False),
]
_Configuration = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A cameras.yaml, for its engine and model, instead of model files.")
]


def cost(
    price: Annotated[float, typer.Option(help="Of the machine, an hour.", min=0.0)],
    models: _Models = None,
    config: _Configuration = None,
    video: VideoFile = None,
    engine: EngineKind = None,
    labels: LabelsWord = None,
    machine: Annotated[str | None, typer.Option(help="Its name; left out, its processor and cores.")] = None,
    currency: Annotated[str, typer.Option(help="Of the price.")] = "USD",
    cameras: Annotated[int, typer.Option(help="How many play the --video.", min=1, max=256)] = 4,
    rounds: Annotated[int, typer.Option(help="How often each model is measured.", min=1, max=99)] = 3,
    seconds: Annotated[float, typer.Option(help="Of each measurement.", min=0.1)] = 4.0,
    json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Say what images cost: milliseconds of this machine for each, and the price of a million.

    Every model is measured in every precision that the engine computes it in here: in FP32 and BF16, or in INT8 where
    the file is quantised. With a --video, images go through the whole pipeline, and that is what the price is of;
    without, through the bare engine.
    """
    set_up_logging(logging.WARNING)
    if not math.isfinite(price):
        fail(f"--price: found {price}; expected what the machine costs an hour, such as 0.25", EXIT_BAD_CONFIG)
    check_folders(json=json, html=html)
    with errors():
        chosen = _chosen(models, config, engine, labels)
        from streamproc.bench.cost import CostPlan, CostReport, as_json, measure_cost
        from streamproc.bench.cost_page import as_html, cost_table
        from streamproc.bench.efficiency import unpaced
        from streamproc.bench.machine import processor

        plan = CostPlan(rounds=rounds, seconds=seconds, whole=video is not None)
        played = [unpaced(one, video, cameras) for one in chosen]
        rows = asyncio.run(measure_cost(played, plan, on_progress=progress))
        name, cores = processor()
        report = CostReport(
            machine=machine or f"{name}, {cores} cores",
            price_per_hour=price,
            currency=currency,
            video=None if video is None else f"{cameras} x {video.name}",
            rows=tuple(rows),
        )
    show_table(cost_table(report))
    if json is not None:
        write("json", json, as_json(report))
    if html is not None:
        write("html", html, as_html(report))


def _chosen(models: list[Path] | None, path: Path | None, engine: Engine | None, labels: str | None) -> list[Config]:
    if bool(models) == (path is not None):
        fail("give either model files, or --config FILE", EXIT_BAD_CONFIG)
    if path is not None:
        refuse_beside_config(engine, labels)
        return [load_config(path)]
    chosen = []
    for model in models or ():
        if model.suffix not in (".onnx", ".xml"):
            fail(f"{model}: expected a model file, .onnx or .xml", EXIT_BAD_CONFIG)
        # Only a video brings cameras that play; this one stands for them.
        camera = CameraConfig(url=str(model), files=(model,))
        section = ModelConfig(path=model, labels=written_labels(labels))
        chosen.append(Config(engine=EngineConfig(kind=engine or "openvino"), model=section, cameras={"none": camera}))
    return chosen
