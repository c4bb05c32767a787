from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.sinks.sequence import Sequencer

MOST_HELD = 4


def numbers() -> Sequencer[int]:
    return Sequencer(MOST_HELD)


def test_what_comes_in_order_goes_out_at_once() -> None:
    order = numbers()
    assert [order.put(seq, seq, settles=seq % 3 == 0) for seq in range(10)] == [[seq] for seq in range(10)]


def test_the_order_begins_with_the_first_that_comes() -> None:
    order = numbers()
    assert order.put(100, 100, settles=False) == [100]
    assert order.missed(99)
    assert not order.missed(101)


def test_others_wait_for_the_one_before_them() -> None:
    order = numbers()
    order.put(0, 0, settles=True)
    assert order.put(3, 3, settles=False) == []
    assert order.put(2, 2, settles=False) == []
    assert order.put(1, 1, settles=True) == [1, 2, 3]


def test_one_that_settles_waits_for_none() -> None:
    order = numbers()
    order.put(0, 0, settles=True)
    assert order.put(2, 2, settles=False) == []
    assert order.put(6, 6, settles=False) == []
    assert order.put(4, 4, settles=True) == [2, 4]
    assert [order.missed(seq) for seq in (1, 3, 5)] == [True, True, False]
    assert order.put(5, 5, settles=False) == [5, 6]


def test_too_many_do_not_wait() -> None:
    order = numbers()
    order.put(0, 0, settles=True)
    assert [order.put(seq, seq, settles=False) for seq in (3, 4, 7, 8)] == 4 * [[]]
    assert order.put(9, 9, settles=False) == [3, 4]
    assert order.missed(2)
    assert order.drain() == [7, 8, 9]
    assert order.drain() == []


def test_a_number_whose_turn_is_over_is_refused() -> None:
    order = numbers()
    order.put(5, 5, settles=True)
    with pytest.raises(AssertionError, match="number 5 comes after its turn"):
        order.put(5, 5, settles=True)


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), unique_by=lambda event: event[0], max_size=60))
def test_whatever_comes_the_order_is_kept(events: list[tuple[int, bool]]) -> None:
    order, out, missed = numbers(), list[int](), set[int]()
    for count, (seq, settles) in enumerate(events, 1):
        if order.missed(seq):
            missed.add(seq)
            assert out
            assert seq < out[-1]
            continue
        free = order.put(seq, seq, settles=settles)
        out += free
        assert not settles or seq in free
        assert count - len(missed) - len(out) <= MOST_HELD
    assert out == sorted(set(out))
    assert sorted([*out, *missed, *order.drain()]) == sorted(seq for seq, _ in events)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, MOST_HELD - 1)), max_size=80))
def test_nothing_is_missed_while_results_are_waited_for(frames: list[tuple[bool, int]]) -> None:
    """Frames that are dropped are known of a few frames earlier than the results before them."""
    order, out = numbers(), [0]
    order.put(0, 0, settles=True)
    known = sorted((seq if inferred else seq - early, seq, inferred) for seq, (inferred, early) in enumerate(frames, 1))
    for _, seq, inferred in known:
        out += order.put(seq, seq, settles=inferred)
    assert out == list(range(len(frames) + 1))
