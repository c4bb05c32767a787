"""The configured model in its engine, with the head that reads it: opened in one way for a run and for a check."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streamproc.cascade.answers import AnswerReader, Decode
from streamproc.cascade.served import BUILD_IT, cascade_model, read_cascade
from streamproc.config import CameraConfig, Config, ModelConfig, check_classes
from streamproc.engines.base import Engine
from streamproc.engines.factory import open_engine
from streamproc.errors import ModelError
from streamproc.labels import resolve_labels
from streamproc.models.spec import Head, Thresholds, recognise
from streamproc.packing import pack_into
from streamproc.preprocess import letterbox_into
from streamproc.secondary import CropReader, open_secondaries
from streamproc.serving.plan import TASK
from streamproc.types import Letterbox, Picture, UInt8Array

__all__ = ["Detector", "open_detector", "served"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A loaded model: ``engine`` runs it, ``head`` reads its outputs; ``secondaries`` look at what it finds.

    ``answers``: takes the answers of a cascade apart that runs on a server as a whole; None where the engine runs the
    detector alone.
    """

    engine: Engine
    head: Head
    secondaries: Mapping[str, CropReader] = field(default_factory=dict)
    answers: AnswerReader | None = None

    def __str__(self) -> str:
        """What was opened, for people."""
        info = self.engine.info
        details = ", ".join(f"{key} {value}" for key, value in self.engine.description.items())
        whole = "" if self.answers is None else "the whole cascade on the server, "
        (width, height) = info.size if self.answers is None else self.answers.size
        classes = len(self.head.labels)
        return f"{info.name}: {whole}{self.head.name}, {classes} classes, {width}x{height}; {details}"

    def write(self, picture: Picture, row: UInt8Array) -> Letterbox:
        """Write a picture into a row of one of the engine's slots; safe from every thread."""
        if self.answers is None:
            return letterbox_into(picture, row, fit=self.engine.info.fit)
        return pack_into(picture, row)

    def decoding(self, thresholds: Thresholds) -> Decode:
        """What reads the engine's outputs, by these thresholds; safe from every thread."""
        head, answers = self.head, self.answers
        if answers is None:
            return lambda outputs, row, letterbox: (head.decode(outputs, row, letterbox, thresholds), None)
        return lambda outputs, row, letterbox: answers.read(outputs, row, letterbox, thresholds)


@asynccontextmanager
async def open_detector(config: Config) -> AsyncIterator[Detector]:
    """The configured detector, warmed up, while the block lasts; with its server, where that is managed.

    Raises:
        ConfigError: a class named in the configuration is none of the model's, or the server's cascade was built for
            something else.
        FatalError: the model, its engine or its server cannot be opened.
    """
    async with AsyncExitStack() as opened:
        config = await opened.enter_async_context(served(config))
        if config.cascade == "server":
            yield await _open_cascade(config, opened)
            return
        engine = await open_engine(config.engine, config.model)
        opened.push_async_callback(engine.close)
        _refuse_cascade(engine)
        head = recognise(engine.info, resolve_labels(config.model.labels), kind=config.model.head)
        check_classes(config, head.labels)
        _mention_built_in_limits(config, engine)
        secondaries = await opened.enter_async_context(open_secondaries(config, head))
        yield Detector(engine=engine, head=head, secondaries=secondaries)


async def _open_cascade(config: Config, opened: AsyncExitStack) -> Detector:
    """The detector with all that looks at what it finds, as one model of the server."""
    try:
        engine = await open_engine(config.engine, cascade_model(config.model))
    except ModelError as error:
        raise ModelError(f"cascade: server: {error} {BUILD_IT}") from error
    opened.push_async_callback(engine.close)
    cascade = read_cascade(config, engine.info)
    check_classes(config, cascade.head.labels)
    return Detector(engine=engine, head=cascade.head, secondaries=cascade.readers, answers=cascade.answers)


@asynccontextmanager
async def served(config: Config) -> AsyncIterator[Config]:
    """The configuration with its inference server started, while the block lasts, where it asks for one of its own.

    Raises:
        FatalError: the server cannot be had, or the model cannot be made ready for it.
    """
    async with AsyncExitStack() as opened:
        yield await _start_server(opened, config) if config.engine.managed else config


async def _start_server(opened: AsyncExitStack, config: Config) -> Config:
    """Start a Triton over the configured repository, or over one built from the model's file; how to reach it."""
    from streamproc.triton_server.installation import find_server
    from streamproc.triton_server.managed import managed_server

    engine, model = config.engine, config.model
    repository = engine.repository
    installation = await find_server(on_progress=_log.info)
    if repository is None:
        repository = await asyncio.to_thread(_build, model, has_backends=installation.kind != "wheel")
    names = [model.name, *(one.name for one in config.models.values())]
    if config.cascade == "server":
        names.append(cascade_model(model).name)
    server = managed_server(
        repository, models=tuple(dict.fromkeys(names)), choice=installation.kind, on_progress=_log.info
    )
    url = await opened.enter_async_context(server)
    reached = {
        "engine": engine.model_copy(update={"managed": False, "repository": None, "url": url}),
        "model": model.model_copy(update={"path": None, "pixels": None}),  # the built model has both within
    }
    return config.model_copy(update=reached)


def _build(model: ModelConfig, *, has_backends: bool) -> Path:
    from streamproc.repository.cached import cached_repository
    from streamproc.repository.options import BuildOptions
    from streamproc.triton_server.folders import cache_folder

    options = BuildOptions(
        repository=cache_folder() / "models",
        backend="onnxruntime" if has_backends else "python",
        name=model.name,
        size=model.size,
        pixels=model.pixels,
        fit=model.fit,
        labels=model.labels,
        head=model.head,
    )
    return cached_repository(model.file, options)


def _refuse_cascade(engine: Engine) -> None:
    """A cascade is none of the detectors, though it has one within."""
    if engine.info.metadata.get("task") == TASK:
        raise ModelError(
            f"model {engine.info.name}: the server has a whole cascade by this name; expected a detector. Write its "
            "detector's name in model.name, and cascade: server."
        )


def _mention_built_in_limits(config: Config, engine: Engine) -> None:
    """A model that suppresses boxes itself has limits of its own, which no configuration changes."""
    sections: tuple[ModelConfig | CameraConfig, ...] = (config.model, *config.cameras.values())
    least, own = (engine.info.metadata.get(f"suppression.{key}") for key in ("confidence", "iou"))
    lowest = min(section.confidence for section in sections if section.confidence is not None)
    if least is not None and lowest < float(least):
        _log.warning(
            "model %s: a confidence of %g is asked for, but the model as it is served gives nothing below %s. "
            "Build it again with --confidence, or ask for more.",
            config.model.name,
            lowest,
            least,
        )
    if own is not None and any(section.iou not in (None, float(own)) for section in sections):
        _log.warning(
            "model %s: iou has no effect, since the model as it is served suppresses overlapping boxes itself, at %s. "
            "Build it again with --iou, or write iou: %s.",
            config.model.name,
            own,
            own,
        )
