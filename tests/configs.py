"""Configurations for tests, and a folder with the files that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from streamproc.config import Config, load_config
from streamproc.errors import ConfigError, Problem

__all__ = ["GATE", "MODEL", "SECRET", "camera", "load", "make_world", "problems", "with_section"]

MODEL = "model: {path: yolov8n.onnx}"
GATE = "cameras: {gate: {url: 'rtsp://10.0.0.5/stream1'}}"
SECRET = "s3cr3t-Zq9"


def make_world(parent: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the configuration with files to name; the working directory becomes its empty neighbour."""
    world, elsewhere = parent / "world", parent / "elsewhere"
    world.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("yolov8n.onnx", "m.pt", "m.engine", "m.xml", "m.bin", "lonely.xml", "a.pem", "b.mp4", "a.mp4"):
        (world / name).touch()
    (world / "folder").mkdir()
    (world / "labels.txt").write_text("# ours\nperson\n\ncar\n", encoding="utf-8")
    (world / "no_labels.txt").write_text("# none\n", encoding="utf-8")
    (world / "latin1.txt").write_bytes(b"caf\xe9\n")
    return world


def load(folder: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Config:
    """Load this text as ``cameras.yaml`` in the folder."""
    path = folder / "cameras.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, environ=environ or {})


def problems(folder: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> list[Problem]:
    """What is wrong with this text."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ)
    return list(caught.value.problems)


def with_section(section: str) -> str:
    """The smallest configuration with one of its sections replaced or added."""
    name = section.partition(":")[0]
    rest = [text for key, text in (("model", MODEL), ("cameras", GATE)) if key != name]
    return "\n".join([*rest, section]) + "\n"


def camera(keys: str) -> str:
    """The smallest configuration, its one camera having these keys."""
    return with_section(f"cameras: {{gate: {{{keys}}}}}")
