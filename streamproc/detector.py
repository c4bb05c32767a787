"""The configured model in its engine, with the head that reads it: opened in one way for a run and for a check."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from streamproc.config import Config, check_classes
from streamproc.engines.base import Engine
from streamproc.engines.factory import open_engine
from streamproc.labels import resolve_labels
from streamproc.models.spec import Head, recognise

__all__ = ["Detector", "open_detector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A loaded model: ``engine`` runs it, ``head`` reads its outputs."""

    engine: Engine
    head: Head

    def __str__(self) -> str:
        """What was opened, for people."""
        info = self.engine.info
        details = ", ".join(f"{key} {value}" for key, value in self.engine.description.items())
        return (
            f"{info.name}: {self.head.name}, {len(self.head.labels)} classes, {info.size[0]}x{info.size[1]}; {details}"
        )


@asynccontextmanager
async def open_detector(config: Config) -> AsyncIterator[Detector]:
    """The configured detector, warmed up, while the block lasts.

    Raises:
        ConfigError: a class named in the configuration is none of the model's.
        FatalError: the model or its engine cannot be opened.
    """
    engine = await open_engine(config.engine, config.model)
    try:
        head = recognise(engine.info, resolve_labels(config.model.labels))
        check_classes(config, head.labels)
        yield Detector(engine=engine, head=head)
    finally:
        await engine.close()
