"""A Python function that is to be served: found, looked at, and copied with what belongs to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamproc.errors import ConfigError, ModelError, Problem

__all__ = ["FUNCTION_FILE", "Function", "copy_function", "find_function", "parse_target"]

FUNCTION_FILE = "function.json"
"""In the version's folder of a model that calls a function: its module and name."""

_TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)
_IMPORT_TIMEOUT_S = 120.0  # frameworks with compiled kernels take tens of seconds
_NOT_COPIED = ("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of a module.

    ``file`` is the module's, ``parts`` are the files and package folders that it is made of. ``description``: the first
    line of its docstring, empty if it has none.
    """

    module: str
    name: str
    file: Path
    parts: tuple[Path, ...]
    description: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def parse_target(text: str) -> tuple[str, str]:
    """The module and the function of ``module:function``.

    Raises:
        ConfigError: it is not of that form.

    >>> parse_target("tools.plates:tidy")
    ('tools.plates', 'tidy')
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        remedy = "Write the module as in an import statement, a colon, and the function's name."
        expected = "module:function, such as tools.plates:tidy"
        raise ConfigError("models build", [Problem(key="python", found=repr(text), expected=expected, remedy=remedy)])
    return match[1], match[2]


def find_function(module: str, name: str, *, inputs: int) -> Function:
    """Import the module in another process, and look at the function, which is to take ``inputs`` arrays.

    Modules are looked for in the current directory, in PYTHONPATH, and among the installed ones.

    Raises:
        ModelError: the module cannot be found or imported, or it has no such function.
    """
    told = _probed(module, name, inputs)
    if "problem" in told:
        raise ModelError(f"{module}:{name}: {told['problem']}")
    parts = tuple(Path(part) for part in told["parts"])
    return Function(module=module, name=name, file=Path(told["file"]), parts=parts, description=told["description"])


def _probed(module: str, name: str, inputs: int) -> dict[str, Any]:
    command = [sys.executable, "-B", "-m", "streamproc.repository.function_probe", module, name, str(inputs)]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_IMPORT_TIMEOUT_S, check=False
        )
        told: dict[str, Any] = json.loads(done.stdout.decode(errors="replace").strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired as exc:
        raise ModelError(
            f"{module}:{name}: importing the module did not end within {_IMPORT_TIMEOUT_S:g} s. Let it do its work in "
            "functions."
        ) from exc
    except ValueError as exc:
        tail = " ".join(done.stderr.decode(errors="replace").strip().splitlines()[-2:])
        raise ModelError(
            f"{module}:{name}: importing the module ended the process with code {done.returncode}. {tail}"
        ) from exc
    return told


def copy_function(function: Function, folder: Path, *, leave_out: Path) -> None:
    """Copy its files and packages into a new folder, but for caches, hidden files and the folder to ``leave_out``.

    Raises:
        OSError: they cannot be read or written.
    """
    barred = leave_out.resolve()

    def ignored(place: str, names: list[str]) -> set[str]:
        usual = shutil.ignore_patterns(*_NOT_COPIED)(place, names)
        return usual | {name for name in names if (Path(place) / name).resolve() == barred}

    folder.mkdir()
    for part in function.parts:
        if part.is_dir():
            shutil.copytree(part, folder / part.name, ignore=ignored)
        else:
            shutil.copy2(part, folder / part.name)
