"""Whether a camera should move from one worker to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Load", "Move", "best_move"]

_UNEVEN: Final = 0.25
"""Of the mean: a worker that is busier by less is left alone."""
_IDLE: Final = 0.3
"""Cores: a worker below this load is not worth helping."""
_WORTH: Final = 0.9
"""What is left of the greatest load must be no more than this, or the move is not worth its second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One worker's cameras, and which cameras of all may move."""

    cameras: tuple[str, ...]
    movable: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """``camera`` from worker ``source`` to worker ``target``, by their places in the list."""

    camera: str
    source: int
    target: int


def best_move(costs: Mapping[str, float], loads: Sequence[Load]) -> Move | None:
    """The move that evens out the busiest and the idlest worker most; None where all is even enough, or where no move
    makes it better. A worker keeps at least one camera.

    Args:
        costs: what each camera takes, in cores.

    >>> loads = [Load(cameras=("a", "b", "c"), movable=frozenset("abcd")), Load(cameras=("d",), movable=frozenset())]
    >>> best_move({"a": 0.5, "b": 0.3, "c": 0.4, "d": 0.2}, loads)
    Move(camera='a', source=0, target=1)
    >>> best_move({"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.25}, loads) is None
    True
    """
    if len(loads) < 2:
        return None
    totals = [sum(costs[camera] for camera in load.cameras) for load in loads]
    source, target = totals.index(max(totals)), totals.index(min(totals))
    busiest, mean = totals[source], sum(totals) / len(totals)
    movable = [camera for camera in loads[source].cameras if camera in loads[source].movable]
    if busiest < max(_IDLE, (1 + _UNEVEN) * mean) or len(loads[source].cameras) < 2 or not movable:
        return None
    best = min(movable, key=lambda camera: max(busiest - costs[camera], totals[target] + costs[camera]))
    if max(busiest - costs[best], totals[target] + costs[best]) > _WORTH * busiest:
        return None
    return Move(camera=best, source=source, target=target)
