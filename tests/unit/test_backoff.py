"""Waiting times between attempts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streamproc.backoff import Backoff


@given(seed=st.integers(), attempts=st.integers(1, 30))
def test_backoff_stays_below_its_doubling_limit(seed: int, attempts: int) -> None:
    backoff = Backoff(0.5, 10.0, random.Random(seed).random)
    for attempt in range(attempts):
        assert 0.05 <= backoff.next_s() <= min(10.0, 0.5 * 2**attempt)
    backoff.reset()
    assert backoff.next_s() <= 0.5
