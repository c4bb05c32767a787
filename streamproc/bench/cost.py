"""What images cost on this machine: milliseconds of it for each, and the price of a million."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streamproc.bench.bare import BareEngine, Way, measure_bare_engine
from streamproc.bench.child import in_child
from streamproc.bench.efficiency import SEARCH_S
from streamproc.bench.whole import measure_pipeline
from streamproc.config import Config
from streamproc.detector import served

__all__ = ["CostPlan", "CostReport", "CostRow", "as_json", "is_quantised", "measure_cost", "million_price"]

SCHEMA = "streamproc.bench.cost/1"

_SECONDS_AN_HOUR = 3600
_QUANTISED = {".onnx": b"QuantizeLinear", ".xml": b'type="FakeQuantize"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlan:
    """How it is measured: every model ``rounds`` times for ``seconds``, in turns. ``whole``: through the pipeline as
    well, from the configurations' own cameras."""

    rounds: int
    seconds: float
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """A model on this machine: wall milliseconds an image in every round, with as much at once as makes it fastest.

    ``engine_ms``: of the bare engine, kept busy in this ``way``. ``pipeline_ms``: of the whole pipeline; empty where
    that was not asked for.
    """

    model: str
    precision: str
    way: Way
    engine_ms: tuple[float, ...]
    pipeline_ms: tuple[float, ...]

    @property
    def ms(self) -> float:
        """What is charged for: the pipeline's median where there is one, and otherwise the bare engine's."""
        return statistics.median(self.pipeline_ms or self.engine_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Every model on one machine, at one price an hour."""

    machine: str
    price_per_hour: float
    currency: str
    video: str | None
    rows: tuple[CostRow, ...]

    def million(self, row: CostRow) -> float:
        """The price of a million images."""
        return million_price(self.price_per_hour, row.ms)


def million_price(price_per_hour: float, ms_per_image: float) -> float:
    """The price of a million images on a machine that does nothing else.

    >>> million_price(3.6, 12.0)
    12.0
    """
    return price_per_hour / _SECONDS_AN_HOUR * ms_per_image / 1e3 * 1e6


def is_quantised(model: Path) -> bool:
    """Whether a file holds an int8 model; raises OSError where it cannot be read."""
    mark = _QUANTISED.get(model.suffix)
    return mark is not None and mark in model.read_bytes()


async def measure_cost(
    configs: Sequence[Config], plan: CostPlan, *, on_progress: Callable[[str], None]
) -> list[CostRow]:
    """Measure every model in every precision that its engine computes it in, all in turns.

    Raises:
        StreamprocError: a model, an engine or a file cannot be opened, or a measurement failed.
    """
    search_s = min(SEARCH_S, plan.seconds)
    candidates = [one for config in configs for one in await _candidates(config, search_s, on_progress)]
    for number in range(plan.rounds):
        for candidate in candidates:
            on_progress(f"round {number + 1} of {plan.rounds}: {candidate.row.model}, {candidate.row.precision}")
            await candidate.measure(plan)
    return [candidate.row for candidate in candidates]


async def _candidates(config: Config, search_s: float, on_progress: Callable[[str], None]) -> list[_Candidate]:
    """A model as it is configured; and in FP32, where that is slower and nothing else was asked for."""
    on_progress(f"the fastest way to run {config.model.name}")
    found = [await _Candidate.of(config, search_s)]
    engine = config.engine
    floating = found[0].row.precision not in ("int8", "fp32")
    if engine.kind == "openvino" and engine.precision == "auto" and floating:
        exact = config.model_copy(update={"engine": engine.model_copy(update={"precision": "fp32"})})
        found.insert(0, await _Candidate.of(exact, search_s))
    return found


class _Candidate:
    """One model in one precision, and what has been measured of it."""

    def __init__(self, config: Config, row: CostRow) -> None:
        self._config = config
        self.row = row

    @classmethod
    async def of(cls, config: Config, search_s: float) -> _Candidate:
        async with served(config) as running:
            found = await in_child(measure_bare_engine, running.engine, running.model, None, search_s)
        precision = _precision(config, found)
        row = CostRow(model=config.model.name, precision=precision, way=found.way, engine_ms=(), pipeline_ms=())
        return cls(config, row)

    async def measure(self, plan: CostPlan) -> None:
        async with served(self._config) as config:
            bare = await in_child(measure_bare_engine, config.engine, config.model, self.row.way, plan.seconds)
            self.row = replace(self.row, engine_ms=(*self.row.engine_ms, 1e3 / bare.images_per_s))
            if plan.whole:
                whole = await in_child(measure_pipeline, config, plan.seconds)
                self.row = replace(self.row, pipeline_ms=(*self.row.pipeline_ms, 1e3 / whole.frames_per_s))


def _precision(config: Config, found: BareEngine) -> str:
    if config.model.path is not None and is_quantised(config.model.path):
        return "int8"
    said = found.metadata.get("precision") or found.description.get("precision") or "the model's own"
    return str(said)


def as_json(report: CostReport) -> str:
    """The report as JSON, schema ``streamproc.bench.cost/1``."""
    content = {
        "schema": SCHEMA,
        "machine": report.machine,
        "price_per_hour": report.price_per_hour,
        "currency": report.currency,
        "video": report.video,
        "rows": [
            {
                "model": row.model,
                "precision": row.precision,
                "batch": row.way.batch,
                "concurrency": row.way.concurrency,
                "ms_per_image": row.ms,
                "price_per_million_images": report.million(row),
                "engine_ms_per_image": statistics.median(row.engine_ms),
                "pipeline_ms_per_image": statistics.median(row.pipeline_ms) if row.pipeline_ms else None,
                "rounds": {"engine_ms": row.engine_ms, "pipeline_ms": row.pipeline_ms},
            }
            for row in report.rows
        ],
    }
    return json.dumps(content, indent=2)
