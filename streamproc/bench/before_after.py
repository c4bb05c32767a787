"""One model in two forms, side by side in the same engine: speed, and accuracy where there is a labelled set."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamproc.bench.load import put_under_load
from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import Engine
from streamproc.engines.factory import open_engine
from streamproc.labels import resolve_labels
from streamproc.models.spec import recognise
from streamproc.repository.accuracy import Accuracy, LabelledSet, score

__all__ = ["BeforeAfter", "Form", "compare_forms"]

_ROUNDS = 3  # in turns, as one measurement on a machine that does other things as well tells little


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A file as an engine runs it; ``images_per_s`` is of the bare engine with as many requests as it has slots, the
    median of rounds; None where it was not measured."""

    path: Path
    precision: str
    images_per_s: float | None
    accuracy: Accuracy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeAfter:
    """``speedup``: times the images a second, the median of each round's ratio."""

    before: Form
    after: Form
    speedup: float | None


def compare_forms(
    before: ModelConfig,
    after: ModelConfig,
    *,
    kind: Literal["openvino", "onnxruntime"],
    labelled: LabelledSet | None,
    seconds: float,
) -> BeforeAfter:
    """Open both, measure each for half of ``seconds``, in turns, and score them; 0 seconds leave the speed out.

    Raises:
        FatalError: a file cannot be opened, an inference fails, or the labelled set does not fit the model.
    """
    return asyncio.run(_compare((before, after), kind, labelled, seconds))


async def _compare(
    models: tuple[ModelConfig, ModelConfig],
    kind: Literal["openvino", "onnxruntime"],
    labelled: LabelledSet | None,
    seconds: float,
) -> BeforeAfter:
    async with AsyncExitStack() as opened:
        engines: list[Engine] = []
        for model in models:
            engines.append(await open_engine(EngineConfig(kind=kind), model))
            opened.push_async_callback(engines[-1].close)
        share_s = seconds / _ROUNDS / len(engines)
        rounds = [[await _images_per_s(one, share_s) for one in engines] for _ in range(_ROUNDS if seconds else 0)]
        scores: list[Accuracy | None] = [None, None]
        if labelled is not None:
            heads = [
                recognise(engine.info, resolve_labels(model.labels), kind=model.head)
                for engine, model in zip(engines, models, strict=True)
            ]
            scores = [await score(engine, head, labelled) for engine, head in zip(engines, heads, strict=True)]
        first, second = (
            Form(
                path=model.file,
                precision=str(engine.description["precision"]),
                images_per_s=statistics.median(one[index] for one in rounds) if rounds else None,
                accuracy=scores[index],
            )
            for index, (model, engine) in enumerate(zip(models, engines, strict=True))
        )
    speedup = statistics.median(new / old for old, new in rounds) if rounds else None
    return BeforeAfter(before=first, after=second, speedup=speedup)


async def _images_per_s(engine: Engine, seconds: float) -> float:
    async def request() -> None:
        async with engine.lease() as slot:
            await engine.infer(slot, engine.max_batch)

    async def nothing_else() -> None:
        pass

    load = await put_under_load(request, workers=engine.slots, seconds=seconds, read=nothing_else)
    return load.requests * engine.max_batch / load.wall_s
