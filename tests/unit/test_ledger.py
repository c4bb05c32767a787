"""The books: sums, ages, costs, and that they outlive who keeps them."""

from __future__ import annotations

import mmap
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.ledger import AgeHistogram, CameraLedger, Cost, DropReason, Stage, open_ledgers


def test_reasons_have_distinct_labels() -> None:
    assert len({reason.label for reason in DropReason}) == len(DropReason)


@given(st.lists(st.sampled_from(["received", "decoded", "inferred", "published", *DropReason]), max_size=200))
def test_closed_books_add_up_whatever_happened(events: list[str | DropReason]) -> None:
    """Only events that could happen are applied: a frame leaves a stage after it entered it."""
    ledger = CameraLedger("gate")
    for event in events:
        room = ledger.tally().in_flight()
        match event:
            case "received":
                ledger.received()
            case "decoded" if room[Stage.DECODE] > 0:
                ledger.decoded(1)
            case "inferred" if room[Stage.INFER] > 0:
                ledger.inferred()
            case "published" if room[Stage.PUBLISH] > 0:
                ledger.published(12.0, 2)
            case DropReason() if room[event.stage] > 0:
                ledger.dropped(event)
            case _:
                pass
    ledger.close()
    tally = ledger.tally()
    assert set(tally.in_flight().values()) == {0}
    assert tally.received == tally.published + sum(tally.dropped.values())


@given(st.lists(st.floats(0.2, 50_000), min_size=1, max_size=300))
def test_percentiles_are_within_a_bin_of_the_truth(ages: list[float]) -> None:
    histogram = AgeHistogram()
    for age in ages:
        histogram.add(age)
    for percent in (50, 95, 99):
        value = histogram.percentile(percent)
        exact = float(np.percentile(ages, percent, method="inverted_cdf"))
        assert value == pytest.approx(exact, rel=0.021, abs=0.01)
    assert histogram.max_ms == pytest.approx(max(ages), abs=0.01)


def test_an_empty_histogram_says_so() -> None:
    histogram = AgeHistogram()
    assert histogram.percentile(99) is None
    assert histogram.max_ms is None


def test_merged_histograms_hold_both() -> None:
    one, other = AgeHistogram(), AgeHistogram()
    one.add(10)
    other.add(1000)
    one.merge(other)
    assert one.max_ms == 1000
    assert one.percentile(50) == pytest.approx(10, rel=0.02)


def test_what_came_since_a_copy() -> None:
    ages = AgeHistogram()
    ages.add(500)
    before = ages.copy()
    for age_ms in (10, 20):
        ages.add(age_ms)
    since = ages.since(before)
    assert since.bins() == [pytest.approx((10, 1), rel=0.02), pytest.approx((20, 1), rel=0.02)]
    assert since.max_ms == pytest.approx(20, rel=0.02)
    ages.add(900)
    assert ages.since(before).max_ms == 900
    assert ages.since(ages.copy()).max_ms is None


def test_time_spent_is_added_up() -> None:
    ledger = CameraLedger("gate")
    ledger.spent(Cost.TRACK, 5)
    ledger.spent(Cost.TRACK, 7)
    with ledger.spending(Cost.DRAW):
        ended_ns = time.thread_time_ns() + 1_000_000
        while time.thread_time_ns() < ended_ns:
            pass
    spent = ledger.spent_ns()
    assert spent[Cost.TRACK] == 12
    assert spent[Cost.DRAW] >= 1_000_000
    assert spent[Cost.DECODE] == 0


def test_shared_books_are_the_same_for_everybody_and_go_on() -> None:
    with mmap.mmap(-1, 2 * 8 * CameraLedger.CELLS) as memory:
        view = memoryview(memory)
        mine, theirs = open_ledgers(["gate", "yard"], view), open_ledgers(["gate", "yard"], view)
        mine["yard"].received(3)
        mine["yard"].decoded(1_000, 2.5)
        mine["yard"].dropped(DropReason.STALE)
        mine["yard"].reconnected("timeout")
        mine["yard"].issued(4)
        mine["yard"].issued(2)
        mine["yard"].published(12.0, 2_000)
        mine["yard"].predicted()
        assert theirs["yard"].tally() == mine["yard"].tally()
        assert theirs["gate"].tally() == CameraLedger("gate").tally()
        assert theirs["yard"].tally().predicted == 1
        assert theirs["yard"].position == (1_000, 2.5)
        assert theirs["yard"].last_track_id == 4
        assert theirs["yard"].reconnects == {"timeout": 1}
        assert theirs["yard"].span_ns() == (1_000, 2_000)
        assert theirs["yard"].ages.max_ms == 12
        assert theirs["gate"].position is None
        del mine, theirs
        view.release()
