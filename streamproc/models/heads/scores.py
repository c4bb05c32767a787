"""Scores of classes that exclude each other: probabilities, whichever form a model gives them in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["are_probabilities", "log_probabilities"]

# Of 1000 classes a float16 softmax sums to 1 within 0.001. Logits that look so by accident lose nothing but a little
# of their contrast: their order stays.
_SUM_TOLERANCE = 0.01


def are_probabilities(values: NDArray[Any]) -> bool:
    """Whether all rows along the last axis are distributions: nothing negative, and a sum of 1.

    >>> are_probabilities(np.array([[0.9, 0.1], [0.25, 0.75]])), are_probabilities(np.array([0.9, -0.1, 0.2]))
    (True, False)
    """
    sums = values.sum(axis=-1, dtype=np.float64)
    return bool((values >= 0).all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all())


def log_probabilities(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """Natural logarithms of the probabilities of classes, which lie along the last axis; a new array.

    Takes probabilities as they are (a distribution in every row) and everything else as logits, of which a softmax
    makes probabilities; logarithms of probabilities are logits, too. None where a row has a NaN, +inf, or nothing
    above -inf.
    """
    scores = values.astype(np.float64)
    best = scores.max(axis=-1, keepdims=True)
    if not np.isfinite(best).all():
        return None
    if are_probabilities(scores):
        with np.errstate(divide="ignore"):
            logarithms: NDArray[np.float64] = np.log(scores)
        return logarithms
    scores -= best  # exp cannot overflow
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores
