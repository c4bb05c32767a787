"""Engines as tests open them: by the path of a model and the settings that matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from streamproc.config import EngineConfig, ModelConfig, PixelsConfig
from streamproc.engines.base import Engine

__all__ = ["Kind", "open_model"]


class Kind(Protocol):
    """An engine class."""

    async def open(self, engine: EngineConfig, model: ModelConfig) -> Engine: ...


async def open_model(
    kind: Kind,
    path: Path,
    *,
    name: str,
    size: tuple[int, int] | None = None,
    pixels: PixelsConfig | None = None,
    **settings: Any,
) -> Engine:
    """An open engine; ``settings`` are keys of the engine's section."""
    return await kind.open(EngineConfig(**settings), ModelConfig(path=path, name=name, size=size, pixels=pixels))
