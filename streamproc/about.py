"""What secondary models say of an object: names, texts, embeddings, and objects within it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["About", "Child", "Reading"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A class or a text, and how sure that is: ``confidence`` 0..1."""

    value: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Everything said of one object, by the names that the models have in the configuration.

    ``attributes``: classes, best first. ``texts``: what is written there. ``embeddings``: (d,) float32, of length 1.
    ``children``: objects found within it, best first.
    """

    attributes: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict)
    texts: Mapping[str, Reading] = field(default_factory=dict)
    embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    children: tuple[Child, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An object within another one, found by the secondary detector ``model``.

    ``box``: x1, y1, x2, y2 in source pixels; ``about``: what further models say of it.
    """

    model: str
    label: str
    confidence: float
    box: tuple[float, float, float, float]
    about: About
