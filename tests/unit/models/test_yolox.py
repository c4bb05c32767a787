"""YOLOX's decoder against a slow, obvious one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.grids import grids_of
from streamproc.models.heads import Thresholds
from streamproc.models.heads.yolo import ObjectnessDecoder
from streamproc.models.heads.yolox import YoloxDecoder
from streamproc.types import Detections, Letterbox

SIZE = (64, 96)
GRIDS = grids_of(126, SIZE)
CLASSES = 3
LETTERBOX = Letterbox.fit((200, 300), SIZE, "top_left")
ALL = Thresholds(confidence=0.3, iou=0.5, class_ids=None, max_detections=300)


def obvious(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 5 + classes) with boxes in input pixels, cell by cell."""
    rows = []
    places = [(x, y, stride) for width, height, stride in GRIDS for y in range(height) for x in range(width)]
    for (x, y, stride), row in zip(places, raw.tolist(), strict=True):
        box = [(row[0] + x) * stride, (row[1] + y) * stride, math.exp(row[2]) * stride, math.exp(row[3]) * stride]
        rows.append(box + row[4:])
    return np.array(rows, dtype=np.float32)


def decode(raw: NDArray[np.float32], thresholds: Thresholds = ALL) -> Detections:
    return YoloxDecoder("out", CLASSES, grids=GRIDS).decode({"out": raw[None]}, 0, LETTERBOX, thresholds)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), half=st.booleans())
def test_agrees_with_the_obvious_one(seed: int, half: bool) -> None:
    random = np.random.default_rng(seed)
    scores = random.uniform(0, 1, (126, 1 + CLASSES))
    raw: NDArray[Any] = np.hstack([random.normal(0, 1, (126, 4)), scores]).astype(np.float16 if half else np.float32)
    placed = obvious(raw.astype(np.float32))
    expected = ObjectnessDecoder("out", CLASSES).decode({"out": placed[None]}, 0, LETTERBOX, ALL)
    found = decode(raw)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("column", range(4))
def test_nonsense_is_dropped_or_limited(value: float, column: int) -> None:
    raw = np.zeros((126, 5 + CLASSES), dtype=np.float32)
    raw[:, 4:] = 0.9
    raw[:, column] = value
    found = decode(raw)
    assert np.isfinite(found.boxes).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_nothing_to_see() -> None:
    assert len(decode(np.zeros((126, 5 + CLASSES), dtype=np.float32))) == 0


def test_the_output_is_left_as_it_is() -> None:
    raw = np.full((126, 5 + CLASSES), 0.9, dtype=np.float32)
    raw.setflags(write=False)
    assert len(decode(raw)) > 0
