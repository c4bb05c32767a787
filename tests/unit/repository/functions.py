"""Modules with functions to serve, written into folders."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PLATES", "save_module"]

PLATES = '''
"""A module as a user writes it."""

import numpy as np

calls = []


def tidy(text, score):
    """Clean up what was read.

    More about it.
    """
    calls.append(len(text))
    if any(b"bad" in item for item in text.ravel()):
        raise ValueError("bad text")
    return np.array([[item.strip().upper()] for item in text[:, 0]], object), score * np.float32(2)


def by_name(text, score):
    return {"score": score, "text": text}


def wrong_type(text, score):
    return text, score.astype(np.float64)


def wrong_shape(text, score):
    return text, score[:, :1]


def too_few(text, score):
    return score


def other_names(text, score):
    return {"text": text, "points": score}


def nothing(text, score):
    return text, None


def numbers_for_text(text, score):
    return score, score


def leaves(text, score):
    raise SystemExit("enough")


def repeats(text, score):
    return [str(item) for item in text.ravel()], score


def reuses(text, score):
    if len(text) > 1:
        raise MemoryError("one at a time")
    buffer[:] = score
    return text, buffer


buffer = np.zeros((1, 2), np.float32)
ANSWER = 42


async def later(text, score):
    return text, score
'''


def save_module(folder: Path, name: str = "plates.py", text: str = PLATES) -> Path:
    """Write a module, with the folders on the way to it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
