"""Embeddings have length 1, or are nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.models.heads import Embedded
from streamproc.models.heads.embedding import EmbeddingReader, similarities


def embed(*values: float, dtype: type = np.float32) -> Embedded:
    """The second of two pictures."""
    return EmbeddingReader("out").read({"out": np.array([np.ones(len(values)), values], dtype=dtype)}, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_length(dtype: type) -> None:
    found = embed(3, 0, -4, dtype=dtype)
    assert found.embedding.dtype == np.float32
    np.testing.assert_allclose(found.embedding, [0.6, 0, -0.8], rtol=1e-6)
    assert found


@pytest.mark.parametrize("values", [(0, 0, 0), (math.nan, 1, 2), (math.inf, 1, 2), (math.inf, -math.inf, 0)])
def test_what_has_no_direction_is_nothing(values: tuple[float, ...]) -> None:
    found = embed(*values)
    assert found.embedding.tolist() == [0, 0, 0]
    assert not found


def test_sides_of_one_behind() -> None:
    batch = np.array([3, 4], dtype=np.float32).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(EmbeddingReader("out").read({"out": batch}, 0).embedding, [0.6, 0.8], rtol=1e-6)


def test_a_copy() -> None:
    batch = np.array([[1, 0]], dtype=np.float32)
    found = EmbeddingReader("out").read({"out": batch}, 0)
    batch[:] = 7
    assert found.embedding.tolist() == [1, 0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=8))
def test_any_finite_vector(values: list[float]) -> None:
    length = np.linalg.norm(embed(*values).embedding.astype(np.float64))
    assert length == (pytest.approx(1, abs=1e-6) if any(values) else 0)


def test_similarities() -> None:
    these: NDArray[np.float32] = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    those: NDArray[np.float32] = np.array([[0.6, 0.8], [-1, 0]], dtype=np.float32)
    cosines = similarities(these, those)
    assert cosines.dtype == np.float32
    np.testing.assert_allclose(cosines, np.array([[0.6, -1], [0.8, 0], [0, 0]]), rtol=1e-6)
    assert similarities(these[:0], those).shape == (0, 2)
