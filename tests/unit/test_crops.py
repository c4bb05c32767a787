"""What a model sees of an object: which four keypoints are corners, and how far it sees beyond them."""

from __future__ import annotations

import numpy as np
import pytest

from streamproc.crops import corners_of, grown_corners
from streamproc.types import Detections

SLANTED = ((10, 10), (50, 20), (50, 40), (10, 30))


def one(*points: tuple[float, float]) -> Detections:
    keypoints = np.array([[(*point, 0.9) for point in points]], np.float32)
    box = np.array([[0, 0, 60, 60]], np.float32)
    return Detections.of(box, np.ones(1, np.float32), np.zeros(1, np.int64), keypoints=keypoints)


@pytest.mark.parametrize("turn", range(4))
def test_any_corner_may_be_the_top_left_one(turn: int) -> None:
    """Plates lie on their side, and upside down."""
    points = SLANTED[turn:] + SLANTED[:turn]
    (corners,) = corners_of(one(*points))
    assert corners is not None
    np.testing.assert_array_equal(corners, points)


@pytest.mark.parametrize(
    "points",
    [
        SLANTED[:3],
        (*SLANTED, (30, 25)),
        SLANTED[::-1],
        ((10, 10), (50, 40), (50, 20), (10, 30)),
        ((10, 10), (50, 20), (20, 20), (10, 30)),
        ((10, 10), (30, 10), (50, 10), (10, 30)),
        ((10, 10), (10, 10), (50, 40), (10, 30)),
        ((10, 10),) * 4,
        ((10, 10), (50, 20), (float("nan"), 40), (10, 30)),
    ],
    ids=["three", "five", "mirrored", "crossed", "dented", "in a line", "two in one", "all in one", "no number"],
)
def test_other_keypoints_are_none(points: tuple[tuple[float, float], ...]) -> None:
    assert corners_of(one(*points)) == [None]


def test_without_keypoints_there_are_none() -> None:
    found = one(*SLANTED)
    assert corners_of(Detections.of(found.boxes, found.confidence, found.class_ids)) == [None]
    assert corners_of(found.where(np.zeros(1, np.bool_))) == []


@pytest.mark.parametrize("share", [0, 0.05, 2])
def test_they_grow_as_a_box_does(share: float) -> None:
    x1, y1, x2, y2 = 20.0, 30.0, 60.0, 40.0
    across, down = share * (x2 - x1), share * (y2 - y1)
    larger = grown_corners(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32), share)
    expected = (x1 - across, y1 - down), (x2 + across, y2 + down)
    np.testing.assert_allclose((larger.min(axis=0), larger.max(axis=0)), expected, rtol=1e-6)
