"""What is wrong with a configuration, in the house's words: found X, expected Y, remedy Z.

Validators raise :class:`Rejection`; pydantic's own findings are put into words from the JSON Schema, so that a message
and the schema an editor uses cannot disagree. A value that came from the environment is shown as it was written
(``${NAME}``), passwords are never shown, and credentials are cut out of URLs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from streamproc.errors import Problem

__all__ = ["KeyPath", "Rejection", "did_you_mean", "dotted", "show", "translate"]

KeyPath = tuple[str | int, ...]

_URL_CREDENTIALS = re.compile(r"://.*@", re.DOTALL)
_URL_PORT_OR_SECRET = re.compile(r"(://[^/?#\s:\[@*]+):(?!\d+(?:[/?#\s]|$)).*", re.DOTALL)
_URL_SECRET_PARAMETER = re.compile(r"(?i)((?:pass|pwd|secret|token|key|auth)[a-z_]*=)[^&\s]*")
_HIDDEN_KEYS = {"password"}
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_SHOWN = 80


class Rejection(ValueError):
    """A value that a validator refuses.

    ``expected`` and ``remedy`` never quote the value: it may hold a secret. ``found`` may, and is given only where it
    says more than the value itself; it is replaced when the value came from the environment.
    """

    def __init__(self, *, expected: str, remedy: str, found: str | None = None) -> None:
        super().__init__(f"found {found or 'another value'}; expected {expected}. {remedy}")
        self.found = found
        self.expected = expected
        self.remedy = remedy


def dotted(path: KeyPath) -> str:
    """A key's path as messages write it.

    >>> dotted(("cameras", "gate", "classes", 1))
    'cameras.gate.classes[1]'
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _PLAIN_KEY.fullmatch(step) else _quoted(step))
    return text


def show(value: object) -> str:
    """A value as found, fit to be read aloud and free of URL credentials."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            text = str(value) if abs(value) < 10**20 else f"{value:.3g}" if isinstance(value, float) else "a huge number"
            return "not-a-number" if text == "nan" else text
        case str():
            return _quoted(value) if value.strip() else "empty text"
        case Mapping():
            return "a section with keys" if value else "an empty section"
        case _:
            return "a list" if value else "an empty list"


def did_you_mean(word: str, known: Collection[str]) -> str | None:
    """The question that names the nearest known word; None when nothing is near."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f"Did you mean '{by_folded[near[0]]}'?" if near else None


def translate(
    error: ValidationError, *, written: object, filled: Collection[KeyPath], schema: Mapping[str, Any]
) -> list[Problem]:
    """pydantic's findings as problems.

    ``written`` is the tree as it stands in the file, ``filled`` the paths whose text the environment completed,
    ``schema`` the JSON Schema of the whole configuration.
    """
    problems = []
    for finding in error.errors(include_url=False):
        if finding["type"] == "default_factory_not_called":
            continue  # the key that the default depends on is reported itself
        path: KeyPath = tuple(step for step in finding["loc"] if step != "[key]")
        if finding["type"] == "extra_forbidden":
            problems.append(_unknown_key(path, schema))
        elif finding["type"] == "missing":
            problems.append(_missing_key(path, schema))
        else:
            about_key = "[key]" in finding["loc"]
            rejection = finding.get("ctx", {}).get("error")
            problems.append(_bad_value(path, rejection, about_key, written, filled, schema))
    return problems


def _unknown_key(path: KeyPath, schema: Mapping[str, Any]) -> Problem:
    known = list(_node(path[:-1], schema).get("properties", {}))
    remedy = did_you_mean(str(path[-1]), known) or "Remove it, or look the key up with `streamproc schema config`."
    return Problem(key=dotted(path), found="an unknown key", expected=_one_of(known), remedy=remedy)


def _missing_key(path: KeyPath, schema: Mapping[str, Any]) -> Problem:
    node = _node(path, schema)
    return Problem(key=dotted(path), found="nothing", expected=_describe(node, schema), remedy=_example(path, node, "Add"))


def _bad_value(
    path: KeyPath,
    rejection: object,
    about_key: bool,
    written: object,
    filled: Collection[KeyPath],
    schema: Mapping[str, Any],
) -> Problem:
    value: object = str(path[-1]) if about_key else _at(written, path)
    found = "a hidden value" if path[-1:] and path[-1] in _HIDDEN_KEYS else show(value)
    if isinstance(rejection, Rejection):
        from_environment = any(other[: len(path)] == path for other in filled)
        if rejection.found is not None and not from_environment:
            found = rejection.found
        return Problem(key=dotted(path), found=found, expected=rejection.expected, remedy=rejection.remedy)
    node = _node(path, schema)
    return Problem(
        key=dotted(path),
        found=found,
        expected=_describe(node, schema),
        remedy=_remedy(path, value, node, schema),
    )


def _remedy(path: KeyPath, value: object, node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind = _settle(node, schema).get("type")
    if kind == "string" and isinstance(value, bool | int | float):
        return "Put it in quotes to make it text."
    if kind == "array" and isinstance(value, str):
        return f"Put it in brackets to make it a list: {path[-1]}: [...]."
    choices = _settle(node, schema).get("enum")
    if choices and isinstance(value, str) and (question := did_you_mean(value, choices)):
        return question
    return _example(path, node, "Write")


def _example(path: KeyPath, node: Mapping[str, Any], verb: str) -> str:
    examples = node.get("examples") or ([node["default"]] if node.get("default") is not None else [])
    key = path[-1] if path else ""
    if not examples:
        return f"{verb} a suitable value." if isinstance(key, int) else f"{verb} the key '{key}' with its value."
    return f"{verb}, for example, {_yaml(examples[0])}." if isinstance(key, int) else f"{verb}, for example, {key}: {_yaml(examples[0])}."


def _yaml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_yaml(item) for item in value) + "]"
        case _:
            return str(value)


def _settle(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node behind a ``$ref`` and behind "or null"."""
    while True:
        options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        elif len(options) == 1:
            node = options[0]
        else:
            return node


def _node(path: KeyPath, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema's node for a key, with its own description and examples; empty for an unknown key."""
    node: Mapping[str, Any] = schema
    for step in path:
        inner = _settle(node, schema)
        if isinstance(step, int):
            prefix = inner.get("prefixItems", [])
            node = prefix[step] if step < len(prefix) else inner.get("items", {})
        else:
            named = [*inner.get("patternProperties", {}).values(), inner.get("additionalProperties")]
            anything = next((item for item in named if isinstance(item, Mapping)), {})
            node = inner.get("properties", {}).get(step, anything)
    return node if "$ref" not in node else {**_settle(node, schema), **node}


def _describe(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a node accepts, in words."""
    inner = _settle(node, schema)
    if "enum" in inner:
        return _one_of(inner["enum"])
    match inner.get("type"):
        case "number" | "integer":
            return _number_words(inner)
        case "boolean":
            return "true or false"
        case "array" if inner.get("minItems") == inner.get("maxItems") is not None:
            item = (inner.get("prefixItems") or [{}])[0]
            return f"a list of {inner['minItems']}, each {_describe(item, schema)}"
        case "array":
            return "a list of texts, at least one" if inner.get("minItems") else "a list of texts"
        case "object" if "properties" not in inner:
            return "a section with at least one camera, each under its name"
        case "object":
            return f"a section with the keys {', '.join(inner['properties'])}"
        case _:
            return "text that is not empty" if inner.get("minLength") else "text"


def _number_words(node: Mapping[str, Any]) -> str:
    noun = "a whole number" if node["type"] == "integer" else "a number"
    low = f"above {node['exclusiveMinimum']:g}" if "exclusiveMinimum" in node else f"from {node.get('minimum', 0):g}"
    joint = " and up to " if "exclusiveMinimum" in node else " to "
    return f"{noun} {low}{joint}{node['maximum']:g}"


def _one_of(words: Iterable[object]) -> str:
    shown = [str(word) for word in words]
    return f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0] if shown else "no key here"


def _at(tree: object, path: KeyPath) -> object:
    for step in path:
        if isinstance(tree, Mapping) and step in tree:
            tree = tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        else:
            return None
    return tree


def _quoted(text: str) -> str:
    text = _URL_CREDENTIALS.sub("://***@", text)
    text = _URL_PORT_OR_SECRET.sub(r"\1:***", text)
    text = _URL_SECRET_PARAMETER.sub(r"\1***", text)
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN] + "…"
    return repr(text)
