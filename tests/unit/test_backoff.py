"""Waiting times between attempts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streamproc.backoff import Backoff, RetryDelays

REASONS = st.sampled_from(["auth", "timeout", "refused", "eof"])


@given(seed=st.integers(), attempts=st.integers(1, 30))
def test_backoff_stays_below_its_doubling_limit(seed: int, attempts: int) -> None:
    backoff = Backoff(0.5, 10.0, random.Random(seed).random)
    for attempt in range(attempts):
        assert 0.05 <= backoff.next_s() <= min(10.0, 0.5 * 2**attempt)
    backoff.reset()
    assert backoff.next_s() <= 0.5


def highest() -> float:
    return 1.0


def test_the_ceiling_doubles_to_the_cap() -> None:
    retry = RetryDelays(random=highest)
    assert [retry.delay_s("timeout", 0.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_healthy_minute_resets_it_and_a_shorter_one_does_not() -> None:
    retry = RetryDelays(random=highest)
    delays = [retry.delay_s("eof", online_s) for online_s in (0.0, 0.0, 59.9, 60.0, 0.0)]
    assert delays == [0.5, 1.0, 2.0, 0.5, 1.0]


@given(failures=st.lists(st.tuples(REASONS, st.floats(0, 1e6)), max_size=40), share=st.floats(0, 1))
def test_every_delay_is_within_its_bounds(failures: list[tuple[str, float]], share: float) -> None:
    retry = RetryDelays(random=lambda: share)
    for reason, online_s in failures:
        delay_s = retry.delay_s(reason, online_s)
        floor_s = RetryDelays.auth_floor_s if reason == "auth" else 0.0
        assert floor_s <= delay_s <= floor_s + RetryDelays.cap_s


@given(st.integers(0, 30))
def test_wrong_passwords_are_tried_at_most_once_a_minute(failures: int) -> None:
    retry = RetryDelays()
    assert all(retry.delay_s("auth", 0.0) >= 60.0 for _ in range(failures))
