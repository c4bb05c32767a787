"""The motion filter in plain numbers against the general equations with matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.motion import BoxFilter

BOX = (100.0, 200.0, 140.0, 290.0)
DOUBTS = pytest.mark.parametrize("doubt", [(1.0, 1.0), (10.0, 10_000.0)])

MOVE = np.kron(np.array([[1.0, 1.0], [1.0, 1.0]]), np.eye(2))
RESIZE = np.kron(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.eye(2)) / 4


class Textbook:
    """A Kalman filter of x1, y1, x2, y2 and their speeds, whose corners vary together when a box moves and in opposite
    directions when it grows: any book's equations, on (8,) and (8, 8)."""

    def __init__(self, box: tuple[float, ...], doubt: tuple[float, float]) -> None:
        self.state = np.array([*box, 0, 0, 0, 0], dtype=np.float64)
        self.observe_size(box)
        self.covariance = np.zeros((8, 8))
        self.covariance[:4, :4] = doubt[0] * self.noise
        self.covariance[4:, 4:] = doubt[1] * self.area * (1.0**2 * MOVE + 0.3**2 * RESIZE)

    def observe_size(self, box: tuple[float, ...]) -> None:
        self.area = max((box[2] - box[0]) * (box[3] - box[1]), 1.0)
        self.noise: NDArray[np.float64] = self.area * 0.06**2 * np.eye(4)

    def predict(self, step_s: float) -> None:
        transition = np.eye(8)
        transition[:4, 4:] = step_s * np.eye(4)
        in_time = np.array([[step_s**3 / 3, step_s**2 / 2], [step_s**2 / 2, step_s]])
        noise = self.area * np.kron(in_time, 0.2**2 * MOVE + 0.1**2 * RESIZE)
        self.state = transition @ self.state
        self.covariance = transition @ self.covariance @ transition.T + noise

    def correct(self, box: tuple[float, ...]) -> None:
        seen = np.eye(4, 8)
        innovation = seen @ self.covariance @ seen.T + self.noise
        gain = self.covariance @ seen.T @ np.linalg.inv(innovation)
        self.state = self.state + gain @ (np.array(box) - seen @ self.state)
        self.covariance = (np.eye(8) - gain @ seen) @ self.covariance


def boxes() -> st.SearchStrategy[tuple[float, ...]]:
    at, side = st.floats(-500, 4000), st.floats(20, 900)
    return st.tuples(at, at, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@DOUBTS
@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([1e-6, 0.04, 0.2, 1.0]), st.none() | boxes(), st.booleans()), min_size=1, max_size=12
    )
)
def test_agrees_with_the_general_equations(
    doubt: tuple[float, float], steps: list[tuple[float, tuple[float, ...] | None, bool]]
) -> None:
    ours, book = BoxFilter(BOX, doubt), Textbook(BOX, doubt)
    for step_s, box, resized in steps:
        ours.predict(step_s)
        book.predict(step_s)
        x1, y1, x2, y2 = book.state[:4]
        if x2 - x1 < 1 or y2 - y1 < 1:
            return  # where ours keeps a pixel
        if box is not None:
            for motion in (ours, book):
                if resized:
                    motion.observe_size(box)
                motion.correct(box)
        np.testing.assert_allclose([*ours.corners, *ours.speeds], book.state, rtol=1e-6, atol=1e-5)


@DOUBTS
def test_one_long_step_leaves_the_uncertainty_of_many_short_ones(doubt: tuple[float, float]) -> None:
    long, short = BoxFilter(BOX, doubt), BoxFilter(BOX, doubt)
    long.predict(0.48)
    for _ in range(12):
        short.predict(0.04)
    for motion in (long, short):
        motion.correct((130.0, 190.0, 180.0, 280.0))
    assert long.corners == pytest.approx(short.corners, rel=1e-9)
    assert long.speeds == pytest.approx(short.speeds, rel=1e-9)


def test_a_shrinking_box_never_turns_inside_out() -> None:
    motion = BoxFilter((0.0, 0.0, 40.0, 80.0))
    motion.predict(0.04)
    motion.observe_size((15.0, 30.0, 25.0, 50.0))
    motion.correct((15.0, 30.0, 25.0, 50.0))
    for _ in range(40):
        motion.predict(0.5)
        x1, y1, x2, y2 = motion.corners
        assert x2 - x1 >= 1.0 - 1e-9
        assert y2 - y1 >= 1.0 - 1e-9


def test_a_copy_knows_the_same_and_goes_its_own_way() -> None:
    motion = BoxFilter(BOX)
    motion.predict(0.1)
    motion.correct((110.0, 200.0, 150.0, 290.0))
    kept = motion.copy()
    corners, speeds = kept.corners, kept.speeds
    motion.predict(0.5)
    motion.correct((300.0, 300.0, 350.0, 400.0))
    assert (kept.corners, kept.speeds) == (corners, speeds)
    again = kept.copy()
    for copy in (kept, again):
        copy.predict(0.5)
        copy.correct((300.0, 300.0, 350.0, 400.0))
    assert kept.corners == again.corners == pytest.approx(motion.corners)
