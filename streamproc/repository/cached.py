"""Repositories that streamproc builds for itself: one for each model file, kept in the user's cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from streamproc import __version__
from streamproc.errors import ModelError
from streamproc.repository.build import build
from streamproc.repository.config_pbtxt import CONFIG_FILE
from streamproc.repository.options import BuildOptions

__all__ = ["cached_repository"]


def cached_repository(source: Path, options: BuildOptions) -> Path:
    """The repository within ``options.repository`` that holds ``source`` built by these options, built if need be.

    Another file, other options or another release of streamproc make another repository.

    Raises:
        ConfigError, DependencyError, ModelError: as :func:`~streamproc.repository.build.build`.
    """
    key = _key(source, options)
    repository = options.repository / f"{source.stem}-{key}"
    if not (repository / (options.name or source.stem) / CONFIG_FILE).is_file():
        build(source, dataclasses.replace(options, repository=repository))
    return repository


def _key(source: Path, options: BuildOptions) -> str:
    digest = hashlib.sha256(json.dumps([__version__, dataclasses.asdict(options)], default=str).encode())
    try:
        with source.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as exc:
        raise ModelError(f"model file {source}: it cannot be read: {exc.strerror}. Check model.path.") from exc
    return digest.hexdigest()[:16]
