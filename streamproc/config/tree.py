"""The configuration file as a tree of plain values, with ``${NAME}`` filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamproc.config.addresses import quote_userinfo
from streamproc.config.refusals import KeyPath, dotted
from streamproc.config.syntax import read_yaml
from streamproc.errors import Problem

__all__ = ["ConfigTree", "at", "read_tree"]


@dataclass(slots=True, kw_only=True)
class ConfigTree:
    """What was read.

    ``written`` is the tree as it stands in the file, ``values`` the same with variables filled in; ``filled`` the
    paths with a variable in them, and ``settled`` those whose ``problems`` are already told.
    """

    written: object = None
    values: object = None
    filled: set[KeyPath] = field(default_factory=set)
    settled: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def report(self, path: KeyPath, *, found: str, expected: str, remedy: str) -> None:
        """Note a problem; whatever validation says about the same key is then left out."""
        self.settled.add(path)
        self.problems.append(Problem(key=dotted(path), found=found, expected=expected, remedy=remedy))

    def is_filled(self, path: KeyPath) -> bool:
        """Whether the environment had a part in the value at this path, or below it."""
        return any(filled[: len(path)] == path for filled in self.filled)


def at(tree: object, path: KeyPath) -> object:
    """The value at a path; None where there is none."""
    for step in path:
        try:
            tree = tree[step]  # type: ignore[index]  # whatever cannot be indexed by the step has no such value
        except (TypeError, KeyError, IndexError):
            return None
    return tree


def read_tree(path: Path, environ: Mapping[str, str]) -> ConfigTree:
    """Read a file. Problems inside sections are collected in the tree; what leaves no tree raises ConfigError."""
    written, located = read_yaml(path)
    tree = ConfigTree(written=written)
    for key_path, problem in located:
        tree.settled.add(key_path)
        tree.problems.append(problem)
    tree.values = _fill(tree, tree.written, (), environ)
    return tree


# A variable, an escaped '${', or a '${' that begins neither.
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
_USERINFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@")


def _fill(tree: ConfigTree, value: object, path: KeyPath, environ: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {key: _fill(tree, item, (*path, key), environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(tree, item, (*path, index), environ) for index, item in enumerate(value)]
    return _fill_text(tree, value, path, environ) if isinstance(value, str) else value


def _fill_text(tree: ConfigTree, text: str, path: KeyPath, environ: Mapping[str, str]) -> str:
    """Variables in the user information of a URL are percent-encoded, so that a password may hold '@' and '/'."""
    userinfo = _USERINFO.match(text)
    userinfo_end = userinfo.end() if userinfo else 0

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if match[0] == "$${":
            return "${"
        if name is None:
            remedy = "Write ${NAME}, with a name of letters, digits and '_'; for a literal '${' write '$${'."
            tree.report(path, found="a '${' that names no variable", expected="${NAME}", remedy=remedy)
            return match[0]
        tree.filled.add(path)
        if name not in environ:
            remedy = (
                f"Set it before the start: export {name}=..., or write '$${{{name}}}' if the text is meant as it is."
            )
            tree.report(path, found=f"${{{name}}}", expected=f"{name} in the environment", remedy=remedy)
            return match[0]
        return quote_userinfo(environ[name]) if match.start() < userinfo_end else environ[name]

    return _VARIABLE.sub(replacement, text)
