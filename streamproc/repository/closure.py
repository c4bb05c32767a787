"""Modules of streamproc for a Python that has no streamproc: copied with all that they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import streamproc

__all__ = ["copy_modules", "modules_behind"]

_PACKAGE = streamproc.__name__
_ROOT = Path(streamproc.__file__).parent


def modules_behind(module: str) -> Mapping[str, Path]:
    """The files of a module of streamproc, of what it imports, of what that imports, and so on, by their dotted names.

    Found in the source: what is imported for a type checker alone is left out. Packages come with their modules, as
    Python runs them first.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in found:  # None: a name within a module, not a module
            continue
        found[name] = path
        package = name.rpartition(".")[0]
        waiting += [*([package] if package else []), *_imported(path)]
    return dict(sorted(found.items()))


def copy_modules(module: str, folder: Path) -> None:
    """Copy a module and those behind it into a new folder, which is to be on the path of the Python that runs them.

    Raises:
        OSError: they cannot be read or written.
    """
    for path in modules_behind(module).values():
        target = folder / _PACKAGE / path.relative_to(_ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def _file_of(name: str) -> Path | None:
    """The file of a module or package of streamproc; None where the name is of none."""
    root, *parts = name.split(".")
    if root != _PACKAGE:
        return None
    path = _ROOT.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported(path: Path) -> Iterator[str]:
    """What a file imports, wherever in it; of ``from a import b`` both a and a.b, either of which may be a module."""
    waiting: list[ast.AST] = [ast.parse(path.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)
