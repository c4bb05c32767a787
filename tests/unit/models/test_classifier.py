"""Labels out of logits and probabilities, and out of nonsense."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.models.heads import Classified
from streamproc.models.heads.classifier import ClassifierReader

NAMES = ("red", "green", "blue")
NAN, INF = math.nan, math.inf


def classify(*values: float, top: int = 3, dtype: type = np.float32) -> Classified:
    """The second of two pictures."""
    batch: NDArray[Any] = np.array([np.zeros(len(values)), values], dtype=dtype)
    return ClassifierReader("out", NAMES, top=top).read({"out": batch}, 1)


def test_logits() -> None:
    found = classify(math.log(1), math.log(7), math.log(2))
    assert [name for name, _ in found.labels] == ["green", "blue", "red"]
    assert [confidence for _, confidence in found.labels] == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_stay_as_they_are(dtype: type) -> None:
    found = classify(0.125, 0.625, 0.25, dtype=dtype)
    assert [name for name, _ in found.labels] == ["green", "blue", "red"]
    assert [confidence for _, confidence in found.labels] == pytest.approx([0.625, 0.25, 0.125])


def test_logarithms_of_probabilities() -> None:
    assert dict(classify(*np.log([0.1, 0.7, 0.2]), top=1).labels) == {"green": pytest.approx(0.7)}


@pytest.mark.parametrize("values", [(0.2, 0.2, 0.2), (-0.5, 1.0, 0.5), (0, 3, 1)])
def test_what_is_no_distribution_is_made_one(values: tuple[float, ...]) -> None:
    assert sum(confidence for _, confidence in classify(*values).labels) == pytest.approx(1)


def test_the_best_only() -> None:
    assert classify(1, 5, 2, top=2).labels[1][0] == "blue"
    assert len(classify(1, 5, 2, top=2).labels) == 2
    assert len(classify(1, 5, 2, top=9).labels) == 3


def test_equals_stay_in_order() -> None:
    assert [name for name, _ in classify(2, 2, 2).labels] == list(NAMES)


def test_sides_of_one_behind() -> None:
    batch = np.array([1, 5, 2], dtype=np.float32).reshape(1, 3, 1, 1)
    assert ClassifierReader("out", NAMES).read({"out": batch}, 0).labels[0][0] == "green"


@pytest.mark.parametrize("values", [(NAN, 1, 2), (NAN, NAN, NAN), (INF, 1, 2), (-INF, -INF, -INF)])
def test_nonsense_is_no_answer(values: tuple[float, ...]) -> None:
    assert not classify(*values)


def test_an_impossible_class() -> None:
    found = classify(-INF, 0, 0)
    assert dict(found.labels) == {"green": pytest.approx(0.5), "blue": pytest.approx(0.5), "red": 0.0}
    assert found


def test_extremes_do_not_overflow() -> None:
    assert classify(3e38, -3e38, 0, top=1).labels == (("red", 1.0),)


@given(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), st.floats(-50, 50, width=32))
def test_logits_may_be_shifted(values: list[float], shift: float) -> None:
    if abs(sum(values) - 1) < 0.05 or abs(sum(values) + 3 * shift - 1) < 0.05:
        return  # may look like probabilities
    plain = dict(classify(*values, dtype=np.float64).labels)
    shifted = dict(classify(*(value + shift for value in values), dtype=np.float64).labels)
    assert shifted == {name: pytest.approx(confidence, abs=1e-6) for name, confidence in plain.items()}
