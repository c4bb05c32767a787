"""Class names out of what an exporter wrote into a model file."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from streamproc.errors import ModelError

__all__ = ["names_in"]


def names_in(model: str, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names in class-id order; None when the file has none.

    ``names`` holds a Python or JSON literal: ``{0: 'person', 1: 'bicycle'}``, ``{"0": "person"}`` or a list. OpenVINO
    files hold ``labels`` instead, separated by spaces, with ``_`` for the spaces within a name.

    Raises:
        ModelError: there are names, but they cannot be read.

    >>> names_in("m", {"names": "{0: 'person', 1: 'fire hydrant'}"})
    ('person', 'fire hydrant')
    >>> names_in("m", {"labels": "person fire_hydrant"})
    ('person', 'fire hydrant')
    """
    text = metadata.get("names")
    if text is None:
        labels = metadata.get("labels", "").split()
        return tuple(label.replace("_", " ") for label in labels) or None
    try:
        return _in_order(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as exc:
        raise ModelError(
            f"model {model}: the class names in its metadata cannot be read ({text[:60]!r}); expected a dictionary "
            "from class number to name, or a list. Set model.labels."
        ) from exc


def _in_order(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, Mapping):
        numbered = {int(number): name for number, name in names.items()}
        if sorted(numbered) != list(range(len(numbered))):
            raise ValueError("class numbers with gaps")
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError("not names")
    return tuple(names) or None
