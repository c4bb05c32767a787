"""Imports a user's module to tell what a function of it takes and which files it is made of.

A program for a process of its own (``python -m``): what the import does, prints or breaks stays there, and a module of
the same name in another folder is another module. Its arguments are the module, the function and the count of inputs;
the last line of its output is a JSON object, with ``problem`` where something is wrong.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["probe"]

_INSTALLED = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
_SHOWN = 8


class _ProblemError(Exception):
    """What a person is told."""


def probe(module_name: str, function_name: str, inputs: int) -> dict[str, Any]:
    """What was found: ``file`` of the module, ``parts`` to copy (files and package folders), ``description``."""
    before = set(sys.modules)
    try:
        module = _imported(module_name)
        function = _function(module, function_name)
        _check_signature(function, inputs)
        return {
            "file": str(_source_of(module)),
            "parts": [str(path) for path in _parts(module, set(sys.modules) - before)],
            "description": (inspect.getdoc(function) or "").partition("\n")[0],
        }
    except _ProblemError as exc:
        return {"problem": str(exc)}


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            raise _ProblemError(
                f"there is no module {exc.name}. It is looked for in the current directory and in PYTHONPATH."
            ) from exc
        raise _ProblemError(_failed_import(exc)) from exc
    except (Exception, SystemExit) as exc:  # whatever a stranger's module does
        raise _ProblemError(_failed_import(exc)) from exc


def _failed_import(exc: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if frame.filename != __file__]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    remedy = "Correct the module."
    if isinstance(exc, ImportError):
        remedy = "Install what it needs here as well, or import that inside the function."
    return f"importing it failed with {type(exc).__name__}: {exc}{place}. {remedy}"


def _function(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        listed = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise _ProblemError(f"it has no {name}; it has {listed or 'nothing that can be called'}. Correct the name.")
    function = getattr(module, name)
    if not callable(function):
        raise _ProblemError(f"{name} is of type {type(function).__name__}; expected a function.")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise _ProblemError(f"{name} is a coroutine or generator; expected a plain function that returns arrays.")
    return function


def _check_signature(function: Any, inputs: int) -> None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return  # functions written in C do not always tell
    try:
        signature.bind(*range(inputs))
    except TypeError as exc:
        noun = "input is" if inputs == 1 else "inputs are"
        raise _ProblemError(
            f"it takes {signature}, but {inputs} {noun} declared: {exc}. It gets one array for each, in their order."
        ) from exc


def _source_of(module: ModuleType) -> Path:
    path = Path(getattr(module, "__file__", None) or "")
    if path.suffix != ".py":
        raise _ProblemError("it has no Python source that could be copied. Wrap it in a function of a module.")
    return path.absolute()


def _parts(module: ModuleType, new: set[str]) -> list[Path]:
    """The module's file or outermost package, and those that it imported from beside it."""
    own = _outermost(module.__name__, _source_of(module))
    home = own.parent
    if any(home == place or place in home.parents for place in _INSTALLED):
        return [own]  # what lies beside it there are other people's packages
    found = {own}
    for name in new:
        path = getattr(sys.modules.get(name), "__file__", None)
        if path and home in Path(path).absolute().parents:
            part = _outermost(name, Path(path).absolute())
            if part.parent == home:
                found.add(part)
    return sorted(found)


def _outermost(name: str, source: Path) -> Path:
    """The folder of a module's outermost package; the file itself where it is in none.

    ``a.b`` is a/b.py or a/b/__init__.py: as many folders up as the name has dots, one more for the latter.
    """
    depth = name.count(".") + (source.name == "__init__.py")
    return source.parents[depth - 1] if depth else source


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        told = probe(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.stdout.write(f"\n{json.dumps(told)}\n")
