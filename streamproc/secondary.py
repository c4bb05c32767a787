"""The configured secondary models: the heads that read them, and the engines of those that are asked from here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from streamproc.config import DETECTOR, Config, EngineConfig, SecondaryConfig
from streamproc.config.fields import unknown_class
from streamproc.config.refusals import dotted, show
from streamproc.engines.base import Engine, ModelInfo, Outputs
from streamproc.engines.factory import open_engine
from streamproc.errors import ConfigError, FatalError, Problem
from streamproc.labels import resolve_labels
from streamproc.models.heads import Answer, Thresholds
from streamproc.models.heads.embedding import EmbeddingReader
from streamproc.models.secondary import SecondaryHead, SecondaryKind, WantedHead, recognise_secondary
from streamproc.models.spec import Head
from streamproc.repository.dependencies import needing_onnx
from streamproc.types import Letterbox

__all__ = ["CropReader", "Secondary", "check_links", "open_secondaries", "reader_of"]

_log = logging.getLogger(__name__)

_KINDS: Mapping[str, SecondaryKind | None] = {"auto": None, "pose": "keypoints"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CropReader:
    """Reads what a model says of crops: ``head`` its outputs; ``thresholds``: what counts as an object, where it finds
    objects."""

    head: SecondaryHead
    thresholds: Thresholds

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the objects that it finds; empty where it finds none."""
        return self.head.labels if isinstance(self.head, Head) else ()

    def read(self, outputs: Outputs, row: int, letterbox: Letterbox) -> Answer:
        """What the model says of one crop of a batch; boxes in the pixels of the whole picture. For every thread."""
        if isinstance(self.head, Head):
            return self.head.decode(outputs, row, letterbox, self.thresholds)
        return self.head.read(outputs, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secondary(CropReader):
    """A loaded model that looks at crops: ``engine`` runs it."""

    engine: Engine

    def __str__(self) -> str:
        """What was opened, for people."""
        info = self.engine.info
        details = ", ".join(f"{key} {value}" for key, value in self.engine.description.items())
        return f"{info.name}: {self.head.name}, {info.size[0]}x{info.size[1]}; {details}"


@asynccontextmanager
async def open_secondaries(config: Config, detector: Head) -> AsyncIterator[Mapping[str, Secondary]]:
    """The configured secondary models by name, warmed up, while the block lasts. ``detector``: the main model's head.

    Raises:
        ConfigError: one stands on classes or corners that the other model does not give, or on one that finds no
            objects.
        FatalError: a model or its engine cannot be opened.
    """
    async with AsyncExitStack() as opened:
        secondaries: dict[str, Secondary] = {}
        for name, model in config.models.items():
            try:
                whole = await asyncio.to_thread(_rectified, model, opened)
                engine = await open_engine(_engine(config.engine, model), whole)
            except FatalError as error:
                raise type(error)(f"models.{name}: {error}") from error
            opened.push_async_callback(engine.close)
            reader = reader_of(name, engine.info, model)
            secondaries[name] = Secondary(engine=engine, head=reader.head, thresholds=reader.thresholds)
            _log.info("model %s on %s: %s", name, model.on, secondaries[name])
        check_links(config, detector, secondaries)
        yield secondaries


def _rectified(model: SecondaryConfig, opened: AsyncExitStack) -> SecondaryConfig:
    """The model with the one that straightens its pictures in front, in a file that lasts as long as ``opened``."""
    if model.rectify is None:
        return model
    with needing_onnx("rectify"):
        from streamproc.graphs.joining import join
    folder = Path(opened.enter_context(TemporaryDirectory(prefix="streamproc-")))
    target = folder / f"{model.file.stem}.onnx"
    join(model.rectify, model.file, target)
    return model.model_copy(update={"path": target})


def _engine(engine: EngineConfig, model: SecondaryConfig) -> EngineConfig:
    """The detector's engine, but for the batch, and with one thread: what it computes is not urgent.

    Nor does ``max_batch: auto`` mean more on a CPU in this process than for the detector. Measured on one thread with
    OSNet x0.25 and two LPRNets, full batches of 4 or 8 bring 1.06 to 1.21 times as many crops a second as single ones
    with OpenVINO (OSNet: 1096 and 905), and 0.94 to 1.05 times with ONNX Runtime; but one crop in a batch of 4 takes
    OpenVINO more than 3 times as long as alone (3.6 and 1.1 ms), since it computes the empty rows too. Behind Triton
    batches do pay: what ``auto`` means there, the engine knows.
    """
    changes: dict[str, object] = {} if model.max_batch == "auto" else {"max_batch": model.max_batch}
    if engine.kind in ("openvino", "onnxruntime"):
        changes["threads"] = 1
    return engine.model_copy(update=changes)


def reader_of(name: str, info: ModelInfo, model: SecondaryConfig) -> CropReader:
    """What reads the outputs of the model that the configuration calls ``name``.

    Raises:
        FatalError: they are none of what is configured, or of no kind that is known.
    """
    wanted = WantedHead(
        kind=_KINDS.get(model.head, model.head),  # type: ignore[arg-type]  # what remains is of the same name
        labels=resolve_labels(model.labels),
        top=model.top,
        alphabet=model.alphabet,
        blank=model.blank,
        beam_width=model.beam or 1,
    )
    try:
        head = recognise_secondary(info, wanted)
    except FatalError as error:
        raise type(error)(f"models.{name}: {error}") from error
    thresholds = Thresholds(
        confidence=model.confidence, iou=model.iou, class_ids=None, max_detections=model.max_detections
    )
    return CropReader(head=head, thresholds=thresholds)


def check_links(config: Config, detector: Head, secondaries: Mapping[str, CropReader]) -> None:
    """Hold what each model stands on against what that one finds, and what is asked of one against what it gives.

    Raises:
        ConfigError: they do not go together.
    """
    heads: dict[str, SecondaryHead] = {DETECTOR: detector} | {name: one.head for name, one in secondaries.items()}
    problems = []
    for name, model in config.models.items():
        parent = heads[model.on]
        if not isinstance(parent, Head):
            problems.append(
                Problem(
                    key=dotted(("models", name, "on")),
                    found=show(model.on),
                    expected="a model that finds objects",
                    remedy=f"Let it stand on {DETECTOR}, or on a model with head: detector.",
                )
            )
            continue
        for index, wanted in enumerate(model.classes or ()):
            if wanted not in parent.labels:
                said = unknown_class(wanted, parent.labels)
                key = dotted(("models", name, "classes", index))
                problems.append(Problem(key=key, found=show(wanted), expected=said.expected, remedy=said.remedy))
        if model.crop.straighten:
            problems += _check_straightened(name, model.on, parent, heads[name])
    reid = config.tracking.reid
    if reid is not None and not isinstance(secondaries[reid.model].head, EmbeddingReader):
        problems.append(
            Problem(
                key="tracking.reid.model",
                found=f"{show(reid.model)}, which gives no embeddings",
                expected="a model with head: embedding",
                remedy="Name another of the models.",
            )
        )
    if problems:
        raise ConfigError("models", problems)


def _check_straightened(name: str, on: str, parent: Head, own: SecondaryHead) -> list[Problem]:
    """Only what has corners can be straightened, and boxes found in what was straightened would be out of place."""
    key = dotted(("models", name, "crop", "straighten"))
    if not parent.decoder.has_corners:
        found = f"true, on {show(on)}, whose output ({parent.name}) has no corners"
        remedy = "Remove it, or let the model stand on a detector of plates or texts that gives them."
        return [Problem(key=key, found=found, expected="objects with four corners", remedy=remedy)]
    if isinstance(own, Head):
        expected = "a model that finds no objects of its own"
        return [Problem(key=key, found="true, for a detector", expected=expected, remedy="Remove it.")]
    return []
