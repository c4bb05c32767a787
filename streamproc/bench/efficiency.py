"""What a pipeline adds to its engine: decoding alone, the bare engine, and the whole, interleaved in one run."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamproc.bench.bare import BareEngine, Way, measure_bare_engine
from streamproc.bench.child import in_child
from streamproc.bench.decoding import Decoding, measure_decoding
from streamproc.bench.machine import processor
from streamproc.bench.whole import Pipeline, measure_pipeline
from streamproc.config import CameraConfig, Config, FileConfig, VideoConfig
from streamproc.detector import served

__all__ = ["EfficiencyReport", "Plan", "Round", "Subject", "as_json", "measure_efficiency", "unpaced"]

SCHEMA = "streamproc.bench.efficiency/1"
SEARCH_S = 0.7
"""For each way to keep an engine busy, to find the fastest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How it is measured: every part ``rounds`` times for ``seconds``; ``annotate``: with annotated video as well."""

    rounds: int
    seconds: float
    annotate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Every part, measured within a minute. ``annotated``: a pipeline that writes annotated video; None if not asked
    for."""

    decoding: Decoding
    engine: BareEngine
    pipeline: Pipeline
    annotated: Pipeline | None

    @property
    def ratio(self) -> float:
        """The pipeline's frames a second, as a share of the bare engine's images a second."""
        return self.pipeline.frames_per_s / self.engine.images_per_s

    @property
    def beyond_ms(self) -> float:
        """Processor time of a frame in the pipeline beyond decoding alone and the bare engine, in ms."""
        return self.pipeline.cpu_ms - self.decoding.cpu_ms - self.engine.cpu_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was measured: this machine, an engine with its model, and so many cameras that play these files."""

    processor: str
    cores: int
    engine: Mapping[str, str | int]
    model: str
    way: Way
    cameras: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyReport:
    """All rounds. One measurement on a machine that does other things as well tells little: figures are medians."""

    subject: Subject
    rounds: tuple[Round, ...]

    def median(self, figure: Callable[[Round], float]) -> float:
        """Of a figure of every round."""
        return statistics.median(map(figure, self.rounds))

    def stages(self, pipeline: Callable[[Round], Pipeline | None]) -> dict[str, float]:
        """Medians of processor time by stage, in ms for each frame; empty for a pipeline that was not measured."""
        every = [found.stages for one in self.rounds if (found := pipeline(one)) is not None]
        return {stage: statistics.median(one[stage] for one in every) for stage in every[0]} if every else {}


def unpaced(config: Config, files: Path | None, cameras: int) -> Config:
    """A configuration's cameras as fast as the machine allows, over and over, or so many that play one file; without
    anything that is published or shown. All its cameras must be files."""
    chosen: Mapping[str, CameraConfig] = config.cameras
    if files is not None:
        chosen = {f"camera{index}": CameraConfig(url=str(files), files=(files,)) for index in range(cameras)}
    played = {name: one.model_copy(update={"realtime": False, "loop": True}) for name, one in chosen.items()}
    return config.model_copy(update={"cameras": played, "mqtt": None, "file": None, "video": None, "rtsp": None})


async def measure_efficiency(config: Config, plan: Plan, *, on_progress: Callable[[str], None]) -> EfficiencyReport:
    """Measure all parts in turns, in every other round the other way about, so that none always follows the same.

    ``config`` is that of :func:`unpaced`. The pipeline tracks, and writes its detections into a file.

    Raises:
        StreamprocError: model, engine or a file cannot be opened, or a part failed.
    """
    async with served(config) as config:
        on_progress("the fastest way to keep the engine busy")
        found = await in_child(measure_bare_engine, config.engine, config.model, None, min(SEARCH_S, plan.seconds))
        way = found.way
        rounds = [await _measure_round(config, plan, way, number, on_progress) for number in range(plan.rounds)]
    name, cores = processor()
    files = dict.fromkeys(file.name for camera in config.cameras.values() for file in camera.files)
    subject = Subject(
        processor=name,
        cores=cores,
        engine=rounds[0].pipeline.description,
        model=config.model.name,
        way=way,
        cameras=len(config.cameras),
        files=tuple(files),
    )
    return EfficiencyReport(subject=subject, rounds=tuple(rounds))


async def _measure_round(
    config: Config, plan: Plan, way: Way, number: int, on_progress: Callable[[str], None]
) -> Round:
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as folder:
        writing = config.model_copy(update={"file": FileConfig(path=f"{folder}/{{camera}}.jsonl")})
        drawing = writing.model_copy(update={"video": VideoConfig(path=f"{folder}/{{camera}}.mp4")})
        files = [camera.files for camera in config.cameras.values()]
        parts: dict[str, Callable[[], Awaitable[Any]]] = {
            "decoding": lambda: in_child(measure_decoding, files, plan.seconds),
            "engine": lambda: in_child(measure_bare_engine, config.engine, config.model, way, plan.seconds),
            "pipeline": lambda: in_child(measure_pipeline, writing, plan.seconds),
        }
        if plan.annotate:
            parts["annotated"] = lambda: in_child(measure_pipeline, drawing, plan.seconds)
        found: dict[str, Any] = {"annotated": None}
        for part in parts if number % 2 == 0 else reversed(parts):
            on_progress(f"round {number + 1} of {plan.rounds}: {part}")
            found[part] = await parts[part]()
    return Round(**found)


def as_json(report: EfficiencyReport) -> str:
    """The report as JSON, schema ``streamproc.bench.efficiency/1``."""
    content = {
        "schema": SCHEMA,
        **asdict(report.subject),
        "ratio": report.median(lambda one: one.ratio),
        "beyond_ms": report.median(lambda one: one.beyond_ms),
        "stages_ms": report.stages(lambda one: one.pipeline),
        "annotated_stages_ms": report.stages(lambda one: one.annotated),
        "rounds": [{**asdict(one), "ratio": one.ratio, "beyond_ms": one.beyond_ms} for one in report.rounds],
    }
    return json.dumps(content, indent=2)
