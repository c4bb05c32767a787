"""pydantic's findings in the house's words.

What was expected is told from the JSON Schema, so that a message and the schema an editor uses cannot disagree. A
value that came from the environment is shown as it was written (``${NAME}``), and passwords are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from streamproc.config.refusals import KeyPath, RefusedError, did_you_mean, dotted, show
from streamproc.config.tree import ConfigTree, at
from streamproc.errors import Problem

__all__ = ["translate"]


def translate(error: ValidationError, *, tree: ConfigTree, schema: Mapping[str, Any]) -> list[Problem]:
    """The findings as problems, but for keys whose problem the tree already told.

    ``schema`` is the JSON Schema of the whole configuration.
    """
    findings = error.errors(include_url=False)
    problems = []
    for finding in findings:
        path: KeyPath = finding["loc"]
        about_name = path[-1:] == ("[key]",) and finding["type"] != "extra_forbidden"
        if about_name:  # pydantic's way of saying that the key is at fault, not its value
            path = path[:-1]
        if path in tree.settled or _follows(finding, findings):
            continue
        if finding["type"] == "missing" and isinstance(path[-1], int):
            path = path[:-1]  # a list that is too short: the list is at fault
            problems.append(_bad_value(path, at(tree.written, path), None, tree, schema))
        elif finding["type"] == "extra_forbidden":
            problems.append(_unknown_key(path, schema))
        elif finding["type"] == "missing":
            problems.append(_missing_key(path, schema))
        else:
            value = path[-1] if about_name else at(tree.written, path)
            problems.append(_bad_value(path, value, finding.get("ctx", {}).get("error"), tree, schema))
    return problems


def _follows(finding: ErrorDetails, findings: list[ErrorDetails]) -> bool:
    """Whether a finding only comes of another one, as pydantic counts bad items as absent ones."""
    path = finding["loc"]
    inner = any(len(other["loc"]) > len(path) and other["loc"][: len(path)] == path for other in findings)
    return finding["type"] == "default_factory_not_called" or (finding["type"] == "too_short" and inner)


def _unknown_key(path: KeyPath, schema: Mapping[str, Any]) -> Problem:
    known = list(_settle(_node(path[:-1], schema), schema).get("properties", {}))
    remedy = did_you_mean(str(path[-1]), known) or "Remove it, or look the key up with `streamproc schema config`."
    return Problem(key=dotted(path), found="an unknown key", expected=_one_of(known), remedy=remedy)


def _missing_key(path: KeyPath, schema: Mapping[str, Any]) -> Problem:
    node = _node(path, schema)
    first, _, _ = re.split(r"(;|\. |\.$)", node["description"], maxsplit=1)
    expected = first[0].lower() + first[1:] if node.get("type") == "string" else _describe(node, schema)
    return Problem(key=dotted(path), found="nothing", expected=expected, remedy=_example(path, node, "Add"))


def _bad_value(path: KeyPath, value: object, cause: object, tree: ConfigTree, schema: Mapping[str, Any]) -> Problem:
    secret = path[-1:] == ("password",) or (path[-2:-1] == ("headers",) and value != path[-1])
    hidden = value is not None and secret
    found = "a hidden value" if hidden else show(value)
    if isinstance(cause, RefusedError):
        if cause.found is not None and not tree.is_filled(path):
            found = cause.found
        return Problem(key=dotted(path), found=found, expected=cause.expected, remedy=cause.remedy)
    node = _node(path, schema)
    expected, remedy = _describe(node, schema), _remedy(path, value, node, schema)
    return Problem(key=dotted(path), found=found, expected=expected, remedy=remedy)


def _remedy(path: KeyPath, value: object, node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind = _settle(node, schema).get("type")
    if kind == "string" and isinstance(value, bool | int | float):
        return "Put it in quotes to make it text."
    if kind == "array" and isinstance(value, str):
        return f"Put it in brackets to make it a list: {path[-1]}: [...]."
    if kind == "object" and (inner := _settle(node, schema)).get("properties"):
        first = next(iter(inner.get("required", inner["properties"])))
        return f"Write its keys below it, such as {first}: {_yaml(_sample(inner['properties'][first]))}."
    choices = _settle(node, schema).get("enum")
    if choices and isinstance(value, str):
        return did_you_mean(value, choices) or "This version knows no others: choose one of them."
    return _example(path, node, "Write")


def _example(path: KeyPath, node: Mapping[str, Any], verb: str) -> str:
    key = path[-1]
    sample = _sample(node)
    if sample is None:
        return "Correct the value, or remove it."
    return f"{verb}, for example, {'' if isinstance(key, int) else f'{key}: '}{_yaml(sample)}."


def _sample(node: Mapping[str, Any]) -> object:
    """A value to show: the first example, or else the default."""
    return next(iter(node.get("examples", ())), node.get("default"))


def _yaml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
        case float():
            return f"{value:g}"
        case list():
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
    if "properties" in inner:
        return f"a section with the keys {', '.join(inner['properties'])}"
    if "anyOf" in inner:
        return " or ".join(_describe(option, schema) for option in inner["anyOf"] if option.get("type") != "null")
    if "const" in inner:
        return str(inner["const"])
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
        case "object":
            named = "a section with at least one camera, each under its name"
            return named if "minProperties" in inner else "a section of names and texts"
        case _:
            return "text that is not empty" if inner.get("minLength") else "text"


def _number_words(node: Mapping[str, Any]) -> str:
    noun = "a whole number" if node["type"] == "integer" else "a number"
    low = f"above {node['exclusiveMinimum']:g}" if "exclusiveMinimum" in node else f"from {node.get('minimum', 0):g}"
    joint = " and up to " if "exclusiveMinimum" in node else " to "
    step = f", a multiple of {node['multipleOf']:g}" if "multipleOf" in node else ""
    return f"{noun} {low}{joint}{node['maximum']:g}{step}"


def _one_of(words: Iterable[object]) -> str:
    shown = [str(word) for word in words]
    return f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0] if shown else "no key here"
