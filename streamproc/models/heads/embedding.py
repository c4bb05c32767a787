"""Embeddings: vectors that lie close for pictures of the same thing, for re-identification and search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.models.heads import Embedded

__all__ = ["EmbeddingReader", "normalised", "similarities"]


class EmbeddingReader:
    """(batch, d), or the same with sides of 1 behind."""

    name = "embedding"

    def __init__(self, tensor: str) -> None:
        self._tensor = tensor

    def read(self, outputs: Mapping[str, NDArray[Any]], row: int) -> Embedded:
        """The embedding of one picture; see :class:`Reader`."""
        return Embedded(embedding=normalised(outputs[self._tensor][row].reshape(-1)))


def normalised(vector: NDArray[Any]) -> NDArray[np.float32]:
    """A new vector (d,) of the same direction and of length 1 (L2); zero where that is zero or has values that are not
    finite, so that it resembles nothing.

    >>> normalised(np.array([3, 0, 4])).tolist()
    [0.6000000238418579, 0.0, 0.800000011920929]
    """
    wide = vector.astype(np.float64)  # in which no square of a float32 overflows or vanishes
    length = np.sqrt(wide @ wide)
    if not 0 < length < np.inf:
        return np.zeros(len(wide), dtype=np.float32)
    scaled: NDArray[np.float32] = (wide / length).astype(np.float32)
    return scaled


def similarities(these: NDArray[np.float32], those: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines, (n, m) in -1..1, between each of ``these`` (n, d) and each of ``those`` (m, d), of length 1 or 0.

    >>> similarities(np.eye(2, dtype=np.float32), np.array([[0.6, 0.8]], dtype=np.float32)).round(1).tolist()
    [[0.6000000238418579], [0.800000011920929]]
    """
    cosines: NDArray[np.float32] = np.clip(these @ those.T, -1, 1)
    return cosines
