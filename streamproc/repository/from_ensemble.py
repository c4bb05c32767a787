"""The contents of a Triton ensemble of models that a repository holds: ``streamproc models build --ensemble``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from streamproc.config.ensemble import EnsembleConfig, load_ensemble
from streamproc.labels import resolve_labels
from streamproc.repository.build import BuiltModel, place
from streamproc.repository.contents import Contents, origin_of
from streamproc.repository.ensemble import join
from streamproc.repository.options import BuildOptions, check_options
from streamproc.repository.versions import list_models

__all__ = ["build_ensemble"]


def build_ensemble(path: Path, options: BuildOptions) -> BuiltModel:
    """Build an ensemble from a file of steps, whose models are in the repository already.

    Its batch is the least of theirs. Its name is the file's, unless ``options`` have one.

    Raises:
        ConfigError: the file, options that are of no use for an ensemble, or models that do not fit together.
        ModelError: the repository.
    """
    options = replace(options, name=options.name or path.stem)
    check_options(options, made_from="ensemble")
    wanted = load_ensemble(path)
    return place(options, lambda name: _contents(path, wanted, name, options))


def _contents(path: Path, wanted: EnsembleConfig, name: str, options: BuildOptions) -> Contents:
    models = {entry.name: entry for entry in list_models(options.repository) if entry.name != name}
    joined = join(wanted, models, source=str(path))
    labels = resolve_labels(options.labels) or ()
    return Contents(
        kind=f"{len(joined.steps)} step{'s' if len(joined.steps) > 1 else ''}",
        labels=labels,
        inputs=joined.inputs,
        outputs=joined.outputs,
        max_batch=joined.max_batch,
        parameters={"names": str(dict(enumerate(labels)))} if labels else {},
        origin=origin_of(path),
        notes=joined.notes,
        steps=joined.steps,
        warm_up=False,  # its models have been warmed up by themselves
        write=lambda _folder, _version: None,
    )
