"""The configured model in its engine, with the head that reads it: opened in one way for a run and for a check."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, check_classes
from streamproc.engines.base import Engine
from streamproc.engines.factory import open_engine
from streamproc.labels import resolve_labels
from streamproc.models.spec import Head, recognise
from streamproc.secondary import Secondary, open_secondaries

__all__ = ["Detector", "open_detector", "served"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A loaded model: ``engine`` runs it, ``head`` reads its outputs; ``secondaries`` look at what it finds."""

    engine: Engine
    head: Head
    secondaries: Mapping[str, Secondary] = field(default_factory=dict)

    def __str__(self) -> str:
        """What was opened, for people."""
        info = self.engine.info
        details = ", ".join(f"{key} {value}" for key, value in self.engine.description.items())
        return (
            f"{info.name}: {self.head.name}, {len(self.head.labels)} classes, {info.size[0]}x{info.size[1]}; {details}"
        )


@asynccontextmanager
async def open_detector(config: Config) -> AsyncIterator[Detector]:
    """The configured detector, warmed up, while the block lasts; with its server, where that is managed.

    Raises:
        ConfigError: a class named in the configuration is none of the model's.
        FatalError: the model, its engine or its server cannot be opened.
    """
    async with AsyncExitStack() as opened:
        config = await opened.enter_async_context(served(config))
        engine = await open_engine(config.engine, config.model)
        opened.push_async_callback(engine.close)
        head = recognise(engine.info, resolve_labels(config.model.labels), kind=config.model.head)
        check_classes(config, head.labels)
        _mention_built_in_limits(config, engine)
        secondaries = await opened.enter_async_context(open_secondaries(config, head))
        yield Detector(engine=engine, head=head, secondaries=secondaries)


@asynccontextmanager
async def served(config: Config) -> AsyncIterator[Config]:
    """The configuration with its inference server started, while the block lasts, where it asks for one of its own.

    Raises:
        FatalError: the server cannot be had, or the model cannot be made ready for it.
    """
    async with AsyncExitStack() as opened:
        if config.engine.managed:
            engine, model = await _start_server(opened, config.engine, config.model)
            config = config.model_copy(update={"engine": engine, "model": model})
        yield config


async def _start_server(
    opened: AsyncExitStack, engine: EngineConfig, model: ModelConfig
) -> tuple[EngineConfig, ModelConfig]:
    """Start a Triton over the configured repository, or over one built from the model's file; how to reach it."""
    from streamproc.triton_server.installation import find_server
    from streamproc.triton_server.managed import managed_server

    repository = engine.repository
    installation = await find_server(on_progress=_log.info)
    if repository is None:
        repository = await asyncio.to_thread(_build, model, has_backends=installation.kind != "wheel")
    server = managed_server(repository, models=(model.name,), choice=installation.kind, on_progress=_log.info)
    url = await opened.enter_async_context(server)
    return (
        engine.model_copy(update={"managed": False, "repository": None, "url": url}),
        model.model_copy(update={"path": None, "pixels": None}),  # the built model has both within
    )


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
