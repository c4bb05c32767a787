"""A model that is ready to be written into a repository, whatever it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from streamproc.config.ensemble import StepConfig
from streamproc.engines.base import TensorInfo
from streamproc.repository.heads import ServedHead

__all__ = ["Contents", "described", "origin_of"]

# What the exporter wrote that a client or a person may want to know; the rest is about the export itself.
_KEPT_METADATA = ("task", "stride", "imgsz", "fit", "description", "author", "license", "version", "date")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A model that is ready to be written.

    ``kind`` says what it is, for people; ``labels`` are its classes, if it has any. ``write`` fills a version's folder,
    given its number. ``parameters`` go into config.pbtxt, ``origin`` beside the version. ``verified`` says how it was
    held against its source; ``to_do`` is what the user has to do before a server can load it, None if nothing.
    ``file``: what the backend loads from a version's folder, None for its usual one. ``steps``: the models that an
    ensemble consists of. ``warm_up``: whether black pictures are put through it before it counts as ready.
    """

    kind: str
    labels: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch: int
    parameters: Mapping[str, str]
    origin: Mapping[str, str]
    verified: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    to_do: str | None = None
    file: str | None = None
    steps: tuple[StepConfig, ...] = ()
    warm_up: bool = True
    write: Callable[[Path, int], None]


def described(metadata: Mapping[str, str], head: ServedHead) -> dict[str, str]:
    """What config.pbtxt tells a client: what the exporter wrote that matters, and the classes as they are named now."""
    found = {key: metadata[key] for key in _KEPT_METADATA if key in metadata}
    return found | head.metadata


def origin_of(path: Path, precision: str | None = None) -> dict[str, str]:
    """What is written beside a version about where it came from."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"source": path.name, "sha256": digest} | ({} if precision is None else {"precision": precision})
