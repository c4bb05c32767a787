"""The shape of the house: which way imports point, who owns which library, what is public, how long a module is."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import streamproc

PACKAGE = Path(streamproc.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lower layers know nothing of higher ones; a room (a folder, or a single module) is a stage unless named here.
LAYERS = {
    "": 0,
    "errors": 0,
    "types": 0,
    "labels": 0,
    "about": 0,
    "boxes": 0,
    "backoff": 1,
    "channel": 1,
    "discretion": 1,
    "grids": 1,
    "ledger": 1,
    "motion": 1,
    "priority": 1,
    "telemetry": 2,
    "messages": 2,
    "config": 3,
    "graphs": 3,
    "cascade": 5,
    "crops": 5,
    "packing": 5,
    "sampling": 1,
    "detector": 5,
    "secondary": 5,
    "worker": 6,
    "fleet": 6,
    "fill": 5,
    "pipeline": 5,
    "report": 5,
    "check": 6,
    "app": 6,
    "simulate": 6,
    "cli": 7,
    "display": 7,
    "monitor": 5,
    "outputs": 5,
    "repository": 5,
    "serving": 5,
    "streams": 5,
    "triton_server": 5,
    "bench": 6,
    "watch": 6,
}
STAGE = 4

# Who may import a volatile library: a module, or a whole room (with the final slash).
OWNERS = {
    "aiomqtt": {"sinks/mqtt.py"},
    "amqtt": {"sinks/broker.py"},
    "av": {"rtsp/", "sources/", "sinks/encoding.py", "sinks/live_encoder.py", "sinks/video_file.py"},
    "grpc": {"engines/triton/"},
    "matplotlib": {"bench/plots.py"},
    "onnx": {"graphs/"},
    "onnxruntime": {"engines/onnxruntime.py", "graphs/precision.py", "repository/"},
    "nncf": {"graphs/openvino_int8.py"},
    "openvino": {"engines/openvino.py", "graphs/openvino_int8.py", "repository/served/"},
    "psutil": {"bench/"},
    "pycocotools": {"repository/accuracy.py"},
    "pydantic": {"config/"},
    "pynvml": {"bench/usage.py"},
    "rich": {"cli/", "display.py"},
    "supervision": {"sinks/annotate.py", "tracking.py"},
    "torch": {"repository/served/"},
    "trackers": {"tracking.py"},
    "tritonclient": {"engines/triton/", "repository/config_pbtxt.py", "triton_server/status.py", "bench/"},
    "typer": {"cli/"},
    "yaml": {"config/"},
}


def imports(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def room(dotted: str) -> str:
    """``streamproc.sinks.mqtt`` is in the room ``sinks``."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


def dotted(path: Path) -> str:
    parts = ("streamproc", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# What more than one stage stands on: contracts without behaviour of their own.
SHARED = {"streamproc.sinks.base", "streamproc.engines.base"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = room(dotted(path))
    for name in imports(path):
        if name.split(".")[0] != "streamproc" or name in SHARED:
            continue
        there = room(name)
        if there == here:
            continue
        mine, theirs = LAYERS.get(here, STAGE), LAYERS.get(there, STAGE)
        assert theirs < mine or (theirs == mine != STAGE), f"{dotted(path)} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_volatile_library_has_one_owner(path: Path) -> None:
    here = str(path.relative_to(PACKAGE))
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        allowed = owners is None or any(here == owner or here.startswith(owner) for owner in owners if owner)
        assert allowed, f"{here} imports {name}, which belongs to {sorted(owners or ())}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350


def test_public_names_exist() -> None:
    for info in pkgutil.walk_packages(streamproc.__path__, "streamproc."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{info.name}.__all__ names {name}, which it does not have"


def test_only_the_command_line_prints() -> None:
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] == "cli":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), path
