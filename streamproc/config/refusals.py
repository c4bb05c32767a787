"""The words in which a configuration is refused: found X, expected Y, remedy Z."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from typing import TypeAlias

__all__ = ["KeyPath", "RefusedError", "did_you_mean", "dotted", "show"]

KeyPath: TypeAlias = tuple[str | int, ...]

# Wider than telemetry.redact: this text is unchecked, so a password may hold '@' or '/', or stand without a host.
_URL_CREDENTIALS = re.compile(r"://.*@", re.DOTALL)
_URL_PORT_OR_SECRET = re.compile(r"(://[^/?#\s:\[@*]+):(?!\d+(?:[/?#\s]|$)).*", re.DOTALL)
_URL_SECRET_PARAMETER = re.compile(r"(?i)((?:pass|pwd|secret|token|key|auth)[a-z_]*=)[^&\s]*")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_SHOWN = 80


class RefusedError(ValueError):
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
        case float() if math.isnan(value):
            return "not-a-number"
        case int() | float():
            return str(value)
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


def _quoted(text: str) -> str:
    text = _URL_CREDENTIALS.sub("://***@", text)
    text = _URL_PORT_OR_SECRET.sub(r"\1:***", text)
    text = _URL_SECRET_PARAMETER.sub(r"\1***", text)
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN] + "…"
    return repr(text)
