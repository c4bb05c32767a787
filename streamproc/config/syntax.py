"""A YAML file as plain values, or what is wrong with its syntax.

YAML is read by the rules of YAML 1.2's core schema, as editors do, so that ``on``, ``no`` and ``12:30`` stay text.
Keys are taken as they are written: a camera may be called ``1``. Anchors and merge keys work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from streamproc.config.refusals import KeyPath, dotted
from streamproc.errors import ConfigError, Problem

__all__ = ["read_yaml"]

_MAX_VALUES = 100_000
_MAX_DEPTH = 20
_MAX_DIGITS = 30
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the implicit types of YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3.2)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


def _add_type(name: str, pattern: str, first: str) -> None:
    """``first``: what such a value can begin with; the empty value is looked up under the empty text."""
    _Loader.add_implicit_resolver(_TAG + name, re.compile(f"(?:{pattern})$"), ["", *first])


_add_type("null", "~|null|Null|NULL|", "~nN")
_add_type("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_add_type("int", _INT.pattern, "-+0123456789")
_add_type("float", _FLOAT.pattern, "-+.0123456789")
_add_type("merge", "<<", "<")


_MINIMAL = "Write at least the keys model and cameras; `streamproc schema config` describes them all."
# What PyYAML says, and what a person needs to hear: (part of its message, found, expected, remedy). Its own words are
# not passed on, because some of them quote the file.
_SYNTAX = (
    (
        "'\\t'",
        "a tab",
        "spaces",
        "Indent with spaces; YAML allows no tabs there.",
    ),
    (
        "undefined alias",
        "an alias (*name) without its anchor",
        "an anchor (&name) before it",
        "Quote text that begins with '*'.",
    ),
    (
        "duplicate anchor",
        "an anchor (&name) for the second time",
        "each anchor once",
        "Rename one of them.",
    ),
    (
        "mapping values are not allowed",
        "a ':' where no key can stand",
        "one key on a line",
        "Quote text that holds ': ', and indent the lines of one section alike.",
    ),
    (
        "unexpected end of stream",
        "the end of the file inside quotes",
        "a closing quote",
        "Close the quotes.",
    ),
    (
        "could not find expected ':'",
        "a line without ':'",
        "a key, ':' and a value",
        "Add the ':' behind the key, and indent the lines of one section alike.",
    ),
    (
        "another document",
        "a second document (---)",
        "one document",
        "Remove the line ---, or split the file.",
    ),
    (
        "expected ',' or",
        "an unfinished [list] or {section}",
        "',' or the closing bracket",
        'Close the bracket, or quote text that holds brackets, such as "${NAME}".',
    ),
    (
        "expected <block end>",
        "a line that does not fit those above it",
        "a key at the same indent",
        "Indent the lines of one section alike, with spaces.",
    ),
    (
        "tag handle",
        "a tag (!name)",
        "plain values",
        "Quote text that begins with '!'.",
    ),
    (
        "cannot start any token",
        "a character that needs quotes",
        "plain or quoted text",
        "Put the value in quotes.",
    ),
)


def read_yaml(path: Path, *, example: str = _MINIMAL) -> tuple[object, list[tuple[KeyPath, Problem]]]:
    """The file's values, and what is wrong inside its sections, each with its place.

    ``example`` is the remedy for a file without keys.

    Raises ConfigError for a file that gives no values.
    """
    reader = _Reader(path)
    return reader.value(_parse(path, example), ()), reader.found


def _parse(path: Path, example: str) -> yaml.MappingNode:
    """The file's top-level mapping; raises ConfigError when there is none."""
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as exc:
        raise _syntax_error(path, text, exc) from None
    except RecursionError:
        raise _unreadable(path, "sections nested too deep", "a handful of levels", "Check the brackets.") from None
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"):
        raise _unreadable(path, "an empty file", "a configuration", example)
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "plain text"
        raise _unreadable(path, f"{found} at the top level", "keys, each with its value", example)
    return node


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _unreadable(path, "no such file", "a YAML file", "Correct the path.") from None
    except IsADirectoryError:
        raise _unreadable(path, "a directory", "a YAML file", "Name a file inside it.") from None
    except UnicodeDecodeError as exc:
        remedy = "Save the file as UTF-8."
        raise _unreadable(path, f"a byte that is not UTF-8, at offset {exc.start}", "UTF-8 text", remedy) from None
    except (OSError, ValueError) as exc:
        raise _unreadable(path, f"a file that cannot be read ({exc})", "a YAML file", "Correct the path.") from None


def _unreadable(path: Path, found: str, expected: str, remedy: str, *, place: str = "") -> ConfigError:
    """The error of a file that gives no tree; ``place`` is a line where one is known."""
    return ConfigError(str(path), [Problem(key=place, found=found, expected=expected, remedy=remedy)])


def _syntax_error(path: Path, text: str, error: yaml.YAMLError) -> ConfigError:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        found = "a control character"
        return _unreadable(path, found, "printable text", "Remove it, or retype the line.", place=f"line {line}")
    problem = getattr(error, "problem", None) or ""
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    for part, found, expected, remedy in _SYNTAX:
        if part in problem:
            return _unreadable(path, found, expected, remedy, place=place)
    return _unreadable(path, "text that is not YAML", "YAML", "Compare the line with an example.", place=place)


class _Reader:
    """Turns PyYAML's nodes into plain values, noting what plain YAML readers let pass."""

    def __init__(self, path: Path) -> None:
        self.found: list[tuple[KeyPath, Problem]] = []
        self._path = path
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        """The node's value; aliases repeat what they stand for."""
        self._count += 1
        if self._count > _MAX_VALUES:
            found = "aliases that multiply to more than 100,000 values"
            raise _unreadable(self._path, found, "a configuration of human size", "Remove the nested aliases.")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open or len(path) > _MAX_DEPTH:
            found = "an alias to what holds it" if id(node) in self._open else "sections nested too deep"
            self._report(path, found=found, expected="a plain value", remedy="Write the value out.")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        merged: dict[str, object] = {}
        own: dict[str, object] = {}
        lines: dict[str, list[int]] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                for key, value in self._merge(value_node, path).items():
                    merged.setdefault(key, value)
            elif not isinstance(key_node, yaml.ScalarNode):
                remedy = "Put quotes around text that begins with '[' or '{'."
                self._report(path, found=f"a list or section as a key, on line {line}", expected="text", remedy=remedy)
            else:
                lines.setdefault(key_node.value, []).append(line)
                own.setdefault(key_node.value, self.value(value_node, (*path, key_node.value)))
        for key, at_lines in lines.items():
            if len(at_lines) > 1:
                self._report_twice((*path, key), at_lines)
        return {**merged, **own}

    def _report_twice(self, path: KeyPath, lines: list[int]) -> None:
        listed = f"{', '.join(map(str, lines[:-1]))} and {lines[-1]}"
        count = "twice" if len(lines) == 2 else f"{len(lines)} times"
        found = f"this key {count}, on lines {listed}"
        self._report(path, found=found, expected="each key once", remedy="Rename or remove all but one.")

    def _report(self, path: KeyPath, *, found: str, expected: str, remedy: str) -> None:
        self.found.append((path, Problem(key=dotted(path), found=found, expected=expected, remedy=remedy)))

    def _merge(self, node: yaml.Node, path: KeyPath) -> Mapping[str, object]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, object] = {}
        for part in nodes:
            value = self.value(part, path)
            if isinstance(value, dict):
                merged = {**value, **merged}
            else:
                remedy = "Let << name the anchor of a section, such as <<: *defaults."
                self._report((*path, "<<"), found="no section to merge", expected="an alias (*name)", remedy=remedy)
        return merged

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        kind = node.tag.removeprefix(_TAG)
        text: str = node.value
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "int" and _INT.fullmatch(text) and len(text) <= _MAX_DIGITS:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if kind in ("int", "float") and _FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if kind not in ("str", "merge"):
            remedy = "Remove the tag, or quote text that begins with '!'."
            self._report(path, found="a YAML tag (!name)", expected="a plain value", remedy=remedy)
        return text
