"""Clients that find the same may be compared; others may not."""

from __future__ import annotations

import numpy as np
import pytest

from streamproc.bench.agreement import check_agreement
from streamproc.errors import ModelError
from streamproc.types import Detections

Found = tuple[list[float], float, int]
CAR: Found = ([100, 100, 300, 200], 0.9, 2)
MAN: Found = ([10, 10, 60, 160], 0.8, 0)


def detections(*found: Found) -> Detections:
    return Detections.of(
        np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in found], dtype=np.float32),
        np.array([class_id for _, _, class_id in found], dtype=np.int64),
    )


def agreed(ours: Detections, theirs: Detections) -> int:
    return check_agreement(ours, theirs, confidence=0.25, iou=0.45)


def test_the_same_is_the_same() -> None:
    assert agreed(detections(CAR, MAN), detections(CAR, MAN)) == 2


def test_nothing_is_the_same_as_nothing() -> None:
    assert agreed(detections(), detections()) == 0


def test_small_differences_are_borne() -> None:
    assert agreed(detections(CAR), detections(([101, 99, 301, 201], 0.88, 2))) == 1


def test_what_is_near_the_threshold_may_be_missing() -> None:
    faint: Found = ([400, 400, 420, 420], 0.27, 1)
    assert agreed(detections(CAR, faint), detections(CAR)) == 1
    assert agreed(detections(CAR), detections(CAR, faint)) == 1


def test_tutorials_suppress_regardless_of_class() -> None:
    truck: Found = ([101, 101, 300, 200], 0.6, 7)
    assert agreed(detections(CAR, truck), detections(CAR)) == 1


@pytest.mark.parametrize(
    "other",
    [([100, 100, 300, 200], 0.9, 3), ([100, 100, 300, 260], 0.9, 2), ([100, 100, 300, 200], 0.7, 2)],
    ids=["class", "box", "score"],
)
def test_differences_are_told(other: Found) -> None:
    with pytest.raises(ModelError, match="only ours finds class 2 with"):
        agreed(detections(CAR), detections(other))


def test_what_only_the_other_finds_is_told() -> None:
    with pytest.raises(ModelError, match="only the tutorial's finds class 0"):
        agreed(detections(CAR), detections(CAR, MAN))
