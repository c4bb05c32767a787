"""One camera's frames in order again: some are inferred, others give way, and either takes its own time to tell."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Sequencer"]

T = TypeVar("T")


class Sequencer(Generic[T]):
    """Hands items on in the order of their numbers, which have no gaps but come mixed up.

    An item that ``settles`` comes in order with its like, and after everything before it that comes at all: it goes
    out at once, behind those that were held. Any other is held while an earlier number is missing, but no more than
    ``most_held`` of them: then the missing number is given up. The first item of all is where the order begins.
    Not thread-safe, and never waits.
    """

    def __init__(self, most_held: int) -> None:
        self._most_held = most_held
        self._next: int | None = None
        self._held: dict[int, T] = {}

    def __len__(self) -> int:
        """Items that are held."""
        return len(self._held)

    def missed(self, seq: int) -> bool:
        """Whether this number's turn is over; it cannot be put any more."""
        return self._next is not None and seq < self._next

    def put(self, seq: int, item: T, *, settles: bool) -> list[T]:
        """What goes out now that this item is here, in order.

        >>> frames = Sequencer[str](most_held=8)
        >>> frames.put(4, "inferred", settles=True)
        ['inferred']
        >>> frames.put(6, "dropped", settles=False)  # while 5 is being inferred
        []
        >>> frames.put(5, "inferred", settles=True)
        ['inferred', 'dropped']
        """
        assert not self.missed(seq), f"number {seq} comes after its turn"
        self._held[seq] = item
        if settles:
            out = [self._held.pop(number) for number in sorted(self._held) if number <= seq]
            self._next = seq + 1
        else:
            out = []
            if self._next is None or len(self._held) > self._most_held:
                self._next = min(self._held)
        while self._next in self._held:
            out.append(self._held.pop(self._next))
            self._next += 1
        return out

    def drain(self) -> list[T]:
        """Everything that is held, in order."""
        held, self._held = self._held, {}
        return [held[number] for number in sorted(held)]
