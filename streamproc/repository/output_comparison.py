"""Whether a built graph still gives what its source gives, number by number: for models that give no boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.errors import ModelError
from streamproc.repository.pictures import Sample
from streamproc.repository.verification import GraphRunner

__all__ = ["EXACT", "ROUNDED", "OutputComparison", "compare_outputs"]

# Shares of the largest value of an output. Float32 differs by the order of its operations, 1e-5 or so through a whole
# network; float16 has 11 bits, and what is quantised steps over to the next of its 256 values where the former differs.
EXACT, ROUNDED = 0.001, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputComparison:
    """What a comparison found: the ``worst`` difference is a share of its output's largest value."""

    pictures: int
    drawn: bool
    worst: float

    def __str__(self) -> str:
        where = "a drawn picture" if self.drawn else f"{self.pictures} picture{'s' if self.pictures > 1 else ''}"
        return f"outputs within {self.worst:.2%} of their largest value on {where}"


def compare_outputs(
    what: str, reference: GraphRunner, built: GraphRunner, samples: Sequence[Sample], *, tolerance: float, drawn: bool
) -> OutputComparison:
    """Hold every output of a built graph against that of its reference, picture by picture.

    Raises:
        ModelError: one differs by more than ``tolerance`` x its largest value; the message names it and the picture.
    """
    worst = 0.0
    pairs = zip(samples, reference.run(samples), built.run(samples), strict=True)
    for sample, (expected, row), (found, other_row) in pairs:
        for name, values in expected.items():
            difference = _difference(values[row], found[name][other_row])
            if not difference <= tolerance:  # nor where it is not a number
                raise ModelError(
                    f"{what}: its output {name} differs from the source model's by {difference:.2%} of its largest "
                    f"value on {sample.name}, expected {tolerance:.1%} at most. Nothing was written. Choose another "
                    "precision, or leave fusing out."
                )
            worst = max(worst, difference)
    return OutputComparison(pictures=len(samples), drawn=drawn, worst=worst)


def _difference(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """The largest difference, as a share of the largest finite value expected.

    >>> _difference(np.array([4.0, -8.0, -np.inf]), np.array([4.0, -7.0, -np.inf]))
    0.125
    """
    one, other = expected.astype(np.float64), found.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0
    largest = np.abs(one, where=np.isfinite(one), out=np.zeros_like(one)).max()
    return float(np.abs(one[~same] - other[~same]).max() / max(largest, np.finfo(np.float32).tiny))
