"""The edge is found, in few tries, and one try that errs does not move it."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streamproc.bench.search import Edge, find_edge


def search(edge: int, limit: int = 100, *, errs: tuple[int, ...] = (), **settings: float) -> tuple[Edge, list[int]]:
    """What is found where ``edge`` is the most that holds, and what was tried; the first try of ``errs`` errs."""
    tried: list[int] = []

    async def holds(number: int) -> bool:
        assert 1 <= number <= limit
        tried.append(number)
        wrong = number in errs and tried.count(number) == 1
        return (number <= edge) != wrong

    return asyncio.run(find_edge(holds, limit=limit, **settings)), tried  # type: ignore[arg-type]


@given(
    edge=st.integers(0, 120), limit=st.integers(1, 100), first=st.integers(1, 150), growth=st.sampled_from([1.2, 2, 8])
)
def test_finds_the_edge_from_wherever_it_starts(edge: int, limit: int, first: int, growth: float) -> None:
    found, tried = search(edge, limit, first=first, growth=growth)
    assert found == Edge(most=min(edge, limit), is_limit=edge >= limit)
    assert max(Counter(tried).values(), default=0) <= 3


@given(edge=st.integers(0, 100), wrong=st.integers(1, 100), first=st.integers(1, 100))
def test_one_try_that_errs_moves_nothing(edge: int, wrong: int, first: int) -> None:
    found, tried = search(edge, 101, errs=(wrong,), first=first)
    assert found.most == edge
    assert len(tried) < 30


def test_tries_few_and_both_sides_of_the_edge_twice() -> None:
    found, tried = search(13, first=4)
    assert found == Edge(most=13, is_limit=False)
    assert tried == [4, 8, 16, 12, 14, 13, 14, 13]


def test_a_good_guess_saves_tries() -> None:
    _, tried = search(40, first=41, growth=1.2)
    assert len(tried) <= 9


def test_the_limit_is_tried_once() -> None:
    assert search(50, 3) == (Edge(most=3, is_limit=True), [1, 2, 3])


def test_not_even_one_is_tried_twice() -> None:
    found, tried = search(0, first=4)
    assert (found.most, tried) == (0, [4, 2, 1, 1])


def test_a_camera_is_not_lost_to_a_hiccup() -> None:
    found, tried = search(6, errs=(6,), first=6)
    assert found.most == 6
    assert tried.count(6) == 3
