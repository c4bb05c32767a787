"""Suppression against a slow, obvious one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.models.nms import class_aware_nms
from tests.detecting import obvious_nms

Boxes = NDArray[np.float32]


def suppress(boxes: Boxes, scores: list[float], class_ids: list[int], iou: float = 0.5) -> list[int]:
    kept = class_aware_nms(boxes, np.array(scores, dtype=np.float32), np.array(class_ids, dtype=np.int64), iou)
    assert kept.dtype == np.int64
    return [int(index) for index in kept]


def boxes_of(*rows: tuple[float, float, float, float]) -> Boxes:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("boxes", "scores", "class_ids", "kept"),
    [
        (boxes_of(), [], [], []),
        (boxes_of((0, 0, 10, 10)), [0.5], [3], [0]),
        (boxes_of((0, 0, 10, 10), (0, 0, 10, 10)), [0.5, 0.9], [1, 1], [1]),
        (boxes_of((0, 0, 10, 10), (0, 0, 10, 10)), [0.5, 0.5], [1, 1], [0]),
        (boxes_of((0, 0, 10, 10), (0, 0, 10, 10)), [0.5, 0.9], [0, 1], [1, 0]),
        (boxes_of((0, 0, 10, 10), (10, 0, 20, 10)), [0.5, 0.9], [1, 1], [1, 0]),
        # Exactly at the threshold: 50 of 100 is not more than one half.
        (boxes_of((0, 0, 10, 10), (0, 0, 10, 5)), [0.9, 0.5], [1, 1], [0, 1]),
        # The suppressed suppress nobody: the third overlaps only the second.
        (boxes_of((0, 0, 10, 10), (0, 3, 10, 13), (0, 6, 10, 16)), [0.9, 0.8, 0.7], [1, 1, 1], [0, 2]),
        # Outside the picture, other classes: shifting by class alone would lay these on one another.
        (boxes_of((-50, -50, -40, -40), (-29, -50, -19, -40)), [0.9, 0.8], [1, 0], [0, 1]),
        (boxes_of((0, 0, 1e5, 1e5), (5, 5, 6, 6), (8, 8, 9, 9)), [0.9, 0.8, 0.7], [79, 78, 78], [0, 1, 2]),
    ],
)
def test_cases(boxes: Boxes, scores: list[float], class_ids: list[int], kept: list[int]) -> None:
    assert suppress(boxes, scores, class_ids) == kept


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    classes=st.integers(1, 90),
    spread=st.sampled_from([5.0, 60.0, 1000.0]),
    iou=st.floats(0.05, 0.95),
)
def test_agrees_with_the_obvious_one(seed: int, count: int, classes: int, spread: float, iou: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(-spread, spread, (count, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 50, (count, 2))]).astype(np.float32)
    scores = random.permutation(np.linspace(0.01, 1, count)).astype(np.float32)
    class_ids = random.integers(0, classes, count)
    np.testing.assert_array_equal(
        class_aware_nms(boxes, scores, class_ids, iou), obvious_nms(boxes, scores, class_ids, iou)
    )
