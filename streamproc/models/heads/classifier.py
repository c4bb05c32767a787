"""Classifiers: the likeliest labels of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.models.heads import Classified
from streamproc.models.heads.scores import log_probabilities

__all__ = ["ClassifierReader"]


class ClassifierReader:
    """(batch, classes), or the same with sides of 1 behind: logits, their softmax, or its logarithm.

    ``labels`` names the classes, which exclude each other; ``top`` of them are given at most.
    """

    name = "classifier"

    def __init__(self, tensor: str, labels: tuple[str, ...], *, top: int = 1) -> None:
        self.labels = labels
        self._tensor = tensor
        self._top = top

    def read(self, outputs: Mapping[str, NDArray[Any]], row: int) -> Classified:
        """The best labels, best first, among equals the earlier; see :class:`Reader`."""
        scores = log_probabilities(outputs[self._tensor][row].reshape(-1))
        if scores is None:
            return Classified(labels=())
        best = np.argsort(-scores, kind="stable")[: self._top]
        confidences = np.exp(scores[best]).tolist()
        return Classified(labels=tuple((self.labels[index], one) for index, one in zip(best, confidences, strict=True)))
