"""``cameras.yaml`` in, a checked :class:`Config` out; or every problem at once.

The models are in :mod:`streamproc.config.models`, and are to be had from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from streamproc.config.engine import EngineConfig
from streamproc.config.fields import NAME_PATTERN, unknown_class
from streamproc.config.files import Surroundings, find_file
from streamproc.config.model import ModelConfig
from streamproc.config.models import (
    BudgetConfig,
    CameraConfig,
    Config,
    FileConfig,
    ReidConfig,
    TrackingConfig,
    VideoConfig,
)
from streamproc.config.mqtt import MqttConfig
from streamproc.config.pixels import PixelsConfig
from streamproc.config.refusals import KeyPath, RefusedError, dotted, show
from streamproc.config.rtsp import RtspConfig
from streamproc.config.secondary import DETECTOR, SecondaryConfig
from streamproc.config.tls import GrpcTlsConfig, TlsConfig
from streamproc.config.translate import translate
from streamproc.config.tree import ConfigTree, at, read_tree
from streamproc.errors import ConfigError, ModelError, Problem
from streamproc.labels import COCO_80, read_labels

__all__ = [
    "DETECTOR",
    "BudgetConfig",
    "CameraConfig",
    "Config",
    "EngineConfig",
    "FileConfig",
    "GrpcTlsConfig",
    "ModelConfig",
    "MqttConfig",
    "PixelsConfig",
    "ReidConfig",
    "RtspConfig",
    "SecondaryConfig",
    "TlsConfig",
    "TrackingConfig",
    "VideoConfig",
    "check_classes",
    "config_schema",
    "load_config",
]


def load_config(path: Path, *, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a YAML file, with ``${NAME}`` filled in from ``environ`` and every named file found.

    Raises :class:`ConfigError` with all that is wrong. No message quotes a password or a value from the environment.
    """
    tree = read_tree(path, environ)
    problems = list(tree.problems)
    config: Config | None = None
    try:
        config = Config.model_validate(tree.values, context=_look_around(tree, path.parent))
    except ValidationError as exc:
        problems += translate(exc, tree=tree, schema=config_schema())
    if problems or config is None:
        raise ConfigError(str(path), problems)
    return config


def _look_around(tree: ConfigTree, folder: Path) -> Surroundings:
    """What checks in one section need of another; tolerant, since nothing is validated yet."""
    cameras = at(tree.values, ("cameras",))
    kind, managed, repository = (at(tree.values, ("engine", key)) for key in ("kind", "managed", "repository"))
    has_own_models = kind == "triton" and (managed is not True or repository is not None)
    return Surroundings(
        folder=folder.resolve(),
        engine_kind=kind if isinstance(kind, str) else "openvino",
        has_own_models=has_own_models,
        needs_model_file=not has_own_models and kind != "null",
        cameras=len(cameras) if isinstance(cameras, Mapping) else 0,
        labels=_written_labels(tree, folder),
    )


def _written_labels(tree: ConfigTree, folder: Path) -> tuple[str, ...] | None:
    """The class names where the file gives them; not those from the environment, which messages must not quote."""
    key: KeyPath = ("model", "labels")
    labels = at(tree.values, key)
    if labels == "coco":
        return COCO_80
    if isinstance(labels, list) and all(isinstance(name, str) for name in labels) and not tree.is_filled(key):
        return tuple(labels)
    if isinstance(labels, str):
        try:
            return read_labels(find_file(labels, folder, "a labels file"))
        except (RefusedError, ModelError):
            return None  # model.labels reports it
    return None


def check_classes(config: Config, labels: Sequence[str]) -> None:
    """Hold every camera's ``classes`` against the model's own labels, once those are known.

    Raises :class:`ConfigError` that names each unknown class and the nearest known one.
    """
    problems = []
    for name, camera in config.cameras.items():
        for index, wanted in enumerate(camera.classes or ()):
            if wanted not in labels:
                said = unknown_class(wanted, labels)
                key = dotted(("cameras", name, "classes", index))
                problems.append(Problem(key=key, found=show(wanted), expected=said.expected, remedy=said.remedy))
    if problems:
        raise ConfigError(f"model {config.model.name}", problems)


def config_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the configuration file as users write it, for editors and ``streamproc schema``."""
    schema = Config.model_json_schema(mode="validation")
    schema["properties"]["cameras"]["propertyNames"] = {"pattern": NAME_PATTERN, "not": {"const": "status"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "streamproc configuration",
    }
