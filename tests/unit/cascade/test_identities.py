"""Who comes back, and who only looks alike."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.cascade.identities import Identities

PERSON, CAR = 0, 2


def look(*values: float) -> NDArray[np.float32]:
    vector = np.array(values, np.float32)
    result: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return result


RED, BLUE, REDDISH = look(1, 0, 0), look(0, 0, 1), look(1, 0.2, 0)


def identities() -> Identities:
    return Identities(similarity=0.7, within_s=30.0)


def test_one_that_comes_back_gets_its_id_again_and_keeps_it() -> None:
    who = identities()
    assert who.settle([1], [PERSON], {1: RED}, 0.0) == [1]
    assert who.settle([], [], {}, 1.0) == []
    assert who.settle([2], [PERSON], {}, 5.0) == [2]
    assert who.settle([2], [PERSON], {2: REDDISH}, 5.1) == [1]
    assert who.settle([2, 3], [PERSON, PERSON], {3: BLUE}, 5.2) == [1, 3]


def test_one_that_looks_otherwise_is_new() -> None:
    who = identities()
    who.settle([1], [PERSON], {1: RED}, 0.0)
    assert who.settle([2], [PERSON], {2: BLUE}, 1.0) == [2]


def test_so_is_one_beside_the_one_that_it_looks_like() -> None:
    who = identities()
    who.settle([1], [PERSON], {1: RED}, 0.0)
    assert who.settle([1, 2], [PERSON, PERSON], {2: RED}, 1.0) == [1, 2]


def test_nor_does_who_was_there_before_become_one_who_left_since() -> None:
    who = identities()
    who.settle([1, 2], [PERSON, PERSON], {1: RED}, 0.0)
    assert who.settle([2], [PERSON], {2: RED}, 1.0) == [2]


def test_a_car_is_no_person() -> None:
    who = identities()
    who.settle([1], [PERSON], {1: RED}, 0.0)
    assert who.settle([2], [CAR], {2: RED}, 1.0) == [2]


def test_of_two_that_look_alike_neither_is_chosen() -> None:
    who = identities()
    who.settle([1, 2], [PERSON, PERSON], {1: RED, 2: RED}, 0.0)
    assert who.settle([3], [PERSON], {3: RED}, 1.0) == [3]


def test_after_a_while_nobody_is_remembered() -> None:
    who = identities()
    who.settle([1], [PERSON], {1: RED}, 0.0)
    assert who.settle([2], [PERSON], {2: RED}, 31.0) == [2]
    assert len(who) == 1


def test_objects_without_a_track_have_no_id() -> None:
    assert identities().settle([0, 0, 4], [PERSON] * 3, {}, 0.0) == [0, 0, 4]


@given(
    st.lists(
        st.dictionaries(st.integers(1, 12), st.sampled_from([RED, BLUE, REDDISH, look(1, 1, 0), None]), max_size=6),
        max_size=30,
    )
)
def test_no_two_objects_of_a_frame_ever_share_an_id(frames: list[dict[int, NDArray[np.float32] | None]]) -> None:
    who = identities()
    for number, frame in enumerate(frames):
        looks = {track: seen for track, seen in frame.items() if seen is not None}
        ids = who.settle(list(frame), [PERSON] * len(frame), looks, number * 2.0)
        assert len(set(ids)) == len(ids)
        assert all(ids)
        assert len(who) <= 12
