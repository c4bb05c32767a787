"""Keypoints on their way between stages: carried by whatever selects or moves detections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from streamproc.types import Detections, Letterbox

SIZE = (64, 48)


def detections(keypoints: NDArray[np.float32] | None, count: int = 3) -> Detections:
    """Some objects side by side, each 20 pixels wide and high."""
    left = 20 * np.arange(count, dtype=np.float32)
    boxes = np.stack([left, np.full_like(left, 10), left + 20, np.full_like(left, 30)], axis=1)
    confidence = np.linspace(0.9, 0.5, count, dtype=np.float32)
    return Detections.of(boxes, confidence, np.arange(count), keypoints=keypoints)


def numbered(count: int = 3, points: int = 2) -> NDArray[np.float32]:
    """Keypoints within the picture, all different."""
    return np.linspace(0.1, 0.9, count * points * 3, dtype=np.float32).reshape(count, points, 3)


@pytest.mark.parametrize("shape", [(3, 2), (2, 2, 3), (3, 2, 2), (3, 2, 3, 1)])
def test_keypoints_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected keypoints of shape \(3, k, 3\), got \("):
        detections(np.zeros(shape, np.float32))


@pytest.mark.parametrize("points", [0, 1, 17])
def test_any_number_of_keypoints_is_taken(points: int) -> None:
    found = detections(np.zeros((3, points, 3), np.float32))
    assert found.keypoints is not None
    assert found.keypoints.shape == (3, points, 3)


def test_without_keypoints_there_are_none_anywhere() -> None:
    found = detections(None)
    for each in (found, found.where(np.array([True, False, True])), found.moved(np.ones((3, 2)), SIZE)):
        assert each.keypoints is None


@given(keep=st.lists(st.booleans(), min_size=3, max_size=3).map(np.array))
def test_a_selection_keeps_the_keypoints_of_its_objects(keep: NDArray[np.bool_]) -> None:
    kept = detections(numbered()).where(keep)
    np.testing.assert_array_equal(kept.keypoints, numbered()[keep])


def test_identities_leave_keypoints_as_they_are() -> None:
    tracked = replace(detections(numbered()), track_ids=np.array([7, 0, 8]))
    np.testing.assert_array_equal(tracked.keypoints, numbered())


@settings(max_examples=50, deadline=None)
@given(
    by=arrays(np.float64, (3, 2), elements=st.floats(-100, 100)),
    places=arrays(np.float32, (3, 2, 2), elements=st.floats(0, 48, width=32)),
)
def test_keypoints_move_with_their_boxes_and_stay_in_the_picture(
    by: NDArray[np.float64], places: NDArray[np.float32]
) -> None:
    keypoints = np.concatenate([places, np.full((3, 2, 1), 0.7, np.float32)], axis=2)
    before = keypoints.copy()
    moved = detections(keypoints).moved(by, SIZE)
    np.testing.assert_array_equal(keypoints, before)
    assert moved.keypoints is not None
    assert len(moved.keypoints) == len(moved)
    expected = np.clip(places + by[:, None], 0, SIZE)[moved.class_ids]
    np.testing.assert_allclose(moved.keypoints[:, :, :2], expected, atol=1e-4)
    np.testing.assert_array_equal(moved.keypoints[:, :, 2], np.full((len(moved), 2), np.float32(0.7)))


@settings(max_examples=50, deadline=None)
@given(
    source=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    points=arrays(np.float32, (4, 2), elements=st.floats(-50, 700, width=32)),
)
def test_points_and_boxes_lie_alike_in_the_source_picture(source: tuple[int, int], points: NDArray[np.float32]) -> None:
    letterbox = Letterbox.fit(source, (640, 640))
    placed = letterbox.points_to_source(points)
    np.testing.assert_array_equal(letterbox.to_source(points.reshape(2, 4)), placed.reshape(2, 4))
    assert placed.dtype == np.float32
    assert (placed >= 0).all()
    assert (placed <= np.array(source)).all()


def test_points_go_back_to_where_they_came_from() -> None:
    letterbox = Letterbox.fit((1920, 1080), (640, 640))
    there: NDArray[np.float32] = np.array([[0, 0], [1920, 1080], [600, 300]], np.float32)
    inside: NDArray[np.float32] = there / np.float32(3) + np.array([0, 140], np.float32)
    np.testing.assert_allclose(letterbox.points_to_source(inside), there, atol=1e-3)
    assert letterbox.points_to_source(np.zeros((5, 17, 2), np.float32)).shape == (5, 17, 2)
