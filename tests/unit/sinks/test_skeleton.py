from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from streamproc.sinks.skeleton import draw_skeleton
from streamproc.types import UInt8Array

INK = (0, 200, 255)


def blank() -> UInt8Array:
    return np.zeros((120, 160, 3), np.uint8)


def points(count: int, *clear: tuple[int, int, int]) -> NDArray[np.float32]:
    """``count`` keypoints of no confidence, but for (index, x, y) of these."""
    keypoints = np.full((count, 3), 5, np.float32)
    keypoints[:, 2] = 0.1
    for index, x, y in clear:
        keypoints[index] = x, y, 0.8
    return keypoints


def drawn(keypoints: NDArray[np.float32], line: int = 1) -> NDArray[np.bool_]:
    bgr = blank()
    draw_skeleton(bgr, keypoints, INK, line=line)
    touched: NDArray[np.bool_] = np.any(bgr, axis=2)
    return touched


def test_a_limb_joins_two_clear_points_in_the_objects_colour() -> None:
    bgr = blank()
    draw_skeleton(bgr, points(17, (5, 20, 60), (7, 120, 60)), INK, line=2)  # left shoulder and elbow
    assert (bgr[60, 20:121] == INK).all()
    assert not bgr[:50].any()
    assert not bgr[70:].any()


@pytest.mark.parametrize("other", [0, 6, 8, 13, 16])
def test_points_that_are_no_limb_are_not_joined(other: int) -> None:
    touched = drawn(points(17, (7, 20, 60), (other, 120, 60)))
    assert touched[60, 20]
    assert touched[60, 120]
    assert not touched[60, 30:110].any()


def test_what_is_not_clear_is_not_drawn() -> None:
    keypoints = points(17, (5, 20, 60), (7, 120, 60))
    keypoints[7, 2] = 0.49
    touched = drawn(keypoints)
    assert touched[60, 20]
    assert not touched[:, 30:].any()
    assert not drawn(points(17)).any()


def test_other_numbers_of_keypoints_are_points_alone() -> None:
    touched = drawn(points(4, (0, 20, 20), (1, 120, 20), (2, 120, 100), (3, 20, 100)))
    assert touched[[20, 20, 100, 100], [20, 120, 120, 20]].all()
    assert not touched[30:90].any()
    assert not drawn(np.empty((0, 3), np.float32)).any()


def test_every_point_of_a_person_hangs_together() -> None:
    joined, apart = [0], set(range(1, 17))
    for one in joined:  # which grows meanwhile
        near = {other for other in apart if drawn(points(17, (one, 20, 60), (other, 120, 60)))[60, 70]}
        joined += near
        apart -= near
    assert not apart


@settings(max_examples=50, deadline=None)
@given(
    keypoints=arrays(
        np.float32, st.tuples(st.sampled_from([0, 4, 17]), st.just(3)), elements=st.floats(-5000, 5000, width=32)
    ),
    line=st.integers(1, 5),
)
def test_any_keypoints_can_be_drawn(keypoints: NDArray[np.float32], line: int) -> None:
    draw_skeleton(blank(), keypoints, INK, line=line)
