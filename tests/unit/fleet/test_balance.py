"""When a camera moves, and that it never makes anything worse."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamproc.fleet.balance import Load, Move, best_move


def spreads() -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(st.floats(0, 1), max_size=6), min_size=2, max_size=5)


@given(spreads())
def test_a_move_makes_the_busiest_worker_less_busy_and_ends(spread: list[list[float]]) -> None:
    costs = {f"{worker}.{index}": cost for worker, part in enumerate(spread) for index, cost in enumerate(part)}
    places = [[f"{worker}.{index}" for index in range(len(part))] for worker, part in enumerate(spread)]
    for _ in range(100):
        totals = [sum(costs[name] for name in place) for place in places]
        move = best_move(costs, [Load(cameras=tuple(place), movable=frozenset(costs)) for place in places])
        if move is None:
            return
        places[move.source].remove(move.camera)
        places[move.target].append(move.camera)
        after = [sum(costs[name] for name in place) for place in places]
        assert max(after[move.source], after[move.target]) < totals[move.source]
        assert places[move.source], "nobody is left without cameras"
    raise AssertionError("cameras move for ever")


def test_what_may_not_move_stays() -> None:
    both = Load(cameras=("file", "stream"), movable=frozenset({"stream"}))
    nothing = Load(cameras=(), movable=frozenset())
    assert best_move({"file": 0.9, "stream": 0.4}, [both, nothing]) == Move(camera="stream", source=0, target=1)
    files = Load(cameras=("file", "stream"), movable=frozenset())
    assert best_move({"file": 0.9, "stream": 0.4}, [files, nothing]) is None


def test_workers_with_little_to_do_are_left_alone() -> None:
    loads = [Load(cameras=("a", "b"), movable=frozenset("ab")), Load(cameras=(), movable=frozenset())]
    assert best_move({"a": 0.1, "b": 0.1}, loads) is None
