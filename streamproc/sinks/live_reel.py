"""A watched camera's pictures on their way to the thread that draws them: in order, at a rate, and never many."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streamproc.channel import Closed
from streamproc.sinks.carry import Past
from streamproc.sinks.sequence import Sequencer
from streamproc.types import Frame, FrameResult

__all__ = ["Pace", "Reel", "Shot"]

# Viewers want the newest, and each picture that waits is one of its decoder's.
_WAITING = 2
_MOST_HELD = 8  # a third of a second at 24 FPS: what an inference within any sensible budget lets pass meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A picture to show, and what was found in it; None where it was not inferred, and ``past`` says what is known."""

    frame: Frame
    found: FrameResult | None
    past: Past

    @property
    def carried(self) -> bool:
        """Whether its objects are carried forward from earlier pictures."""
        return self.found is None

    def result(self) -> FrameResult:
        """What to draw on it."""
        return self.past.carried_to(self.frame) if self.found is None else self.found


class Pace:
    """Chooses pictures, evenly, so that no more than ``fps`` a second of media time are shown.

    Of inferred ones and others, the inferred ones come first: none of them is left out for one of the others.
    """

    _SLACK_S = 0.001  # containers round to a millisecond
    _MIXED_S = 1.0

    def __init__(self, fps: float | None) -> None:
        self._step_s = 1 / fps if fps is not None else 0.0
        self._due_s = self._last_s = self._other_s = float("-inf")

    def due(self, pts_s: float, *, inferred: bool) -> bool:
        """Whether to show the picture of this time; to be asked for each, in order."""
        next_s = pts_s + (pts_s - self._last_s)
        self._last_s = pts_s
        if inferred:
            # A quarter of a step early is in time: a camera with the same rate trembles around it. Among others a
            # whole step is: then one of those was just shown.
            mixed = pts_s - self._other_s < self._MIXED_S
            due = pts_s >= self._due_s - self._step_s * (1 if mixed else 1 / 4) - self._SLACK_S
        else:
            self._other_s = pts_s
            due = next_s > self._due_s + self._step_s / 2 + self._SLACK_S  # else the next one may be inferred
        if due:
            late_s = pts_s - self._due_s
            self._due_s = self._due_s + self._step_s if late_s < self._step_s else pts_s + self._step_s
        return due


class Reel:
    """Takes a camera's frames from any thread, as soon as it is known whether they are inferred; hands them on to one.

    Frames that were not inferred wait for the results of those before them. What is ready then waits for the thread:
    two pictures, or as many as came free together and one more until the thread has had its time for them. When it is
    slower than that, those that were not inferred give way first, the oldest before the others.

    Args:
        fps: hand on at most so many a second; None for all.
        on_lost: is told why each picture that is not handed on was lost: ``rate``; ``overload``, by a newer one;
            ``late``, known about after a later one was handed on. Called under a lock, must not wait.
    """

    def __init__(self, fps: float | None, on_lost: Callable[[str], None]) -> None:
        self._on_lost = on_lost
        self._changed = threading.Condition()
        self._order: Sequencer[tuple[Frame, FrameResult | None]] = Sequencer(_MOST_HELD)
        self._pace = Pace(fps)
        self._past = Past()
        self._waiting: deque[Shot] = deque()
        self._room = _WAITING
        self._closed = False

    def __len__(self) -> int:
        """Pictures that wait for the thread."""
        return len(self._waiting)

    def put(self, frame: Frame, found: FrameResult | None) -> None:
        """Add a frame with its result, or one that was not inferred; never waits. Raises :class:`Closed`.

        Results must come in order, and after everything that is known about the frames before them.
        """
        with self._changed:
            if self._closed:
                raise Closed
            if self._order.missed(frame.seq):
                if found is not None:
                    self._past = self._past.then(found)
                self._on_lost("late")
                return
            free = self._order.put(frame.seq, (frame, found), settles=found is not None)
            shots = [shot for known in free if (shot := self._shot(*known)) is not None]
            self._waiting.extend(shots)
            if found is not None or len(shots) > 1:
                self._room = max(_WAITING, 1 + len(shots))
            while len(self._waiting) > self._room:
                self._make_room()
            if shots:
                self._changed.notify()

    def get(self) -> Shot:
        """The next picture, waiting for one. Raises :class:`Closed` once it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._waiting))
            if not self._waiting:
                raise Closed
            self._room = max(_WAITING, self._room - 1)
            return self._waiting.popleft()

    def close(self) -> int:
        """Take and hand on nothing more; how many frames that leaves behind."""
        with self._changed:
            self._closed = True
            left = len(self._waiting) + len(self._order.drain())
            self._waiting.clear()
            self._changed.notify()
            return left

    def _shot(self, frame: Frame, found: FrameResult | None) -> Shot | None:
        if found is not None:
            self._past = self._past.then(found)
        if self._pace.due(frame.pts_s, inferred=found is not None):
            return Shot(frame=frame, found=found, past=self._past)
        self._on_lost("rate")
        return None

    def _make_room(self) -> None:
        oldest = next((index for index, shot in enumerate(self._waiting) if shot.carried), 0)
        del self._waiting[oldest]
        self._on_lost("overload")
