"""A payload against its JSON Schema, in the few keywords that ours use."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["faults"]


def faults(value: Any, node: dict[str, Any], defs: dict[str, Any]) -> list[str]:
    """Where a value departs from a JSON Schema whose definitions are ``defs``; nothing where it does not."""
    if "$ref" in node:
        return faults(value, defs[node["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in node:
        branches = [faults(value, option, defs) for option in node["anyOf"]]
        return [] if [] in branches else [f"{value!r} fits no branch"]
    numbers = {"integer": int, "number": int | float}
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), **numbers}
    if "type" in node and not isinstance(value, kinds[node["type"]]):
        return [f"{value!r} is no {node['type']}"]
    found = [f"{value!r} is none of {node['enum']}"] if value not in node.get("enum", [value]) else []
    if isinstance(value, str) and not re.search(node.get("pattern", ""), value):
        found.append(f"{value!r} does not match {node['pattern']}")
    if isinstance(value, int | float) and not node.get("minimum", value) <= value <= node.get("maximum", value):
        found.append(f"{value!r} is out of range")
    if isinstance(value, dict):
        known, others = node.get("properties", {}), node.get("additionalProperties")
        found += [f"{key} is missing" for key in node.get("required", ()) if key not in value]
        for key, inner in value.items():
            if key in known or isinstance(others, dict):
                found += faults(inner, known.get(key, others), defs)
    if isinstance(value, list):
        items = node.get("prefixItems") or [node["items"]] * len(value)
        found += [fault for item, inner in zip(value, items, strict=True) for fault in faults(item, inner, defs)]
    return found
