"""Which frames go into the next batch, and when it closes.

:class:`Scheduler` is pure: it is told the time and what is waiting, and answers with a :class:`Plan`.
:class:`Batcher` is the loop around it, over the cameras' mailboxes.

A batch closes when it is full, when every live camera is aboard, or when waiting longer would make its oldest frame
late given the measured time a batch of that size takes. Cameras are served by weighted fair share (stride scheduling:
Waldspurger and Weihl, MIT/LCS/TM-528, 1995): each service moves a camera's virtual time on by 1/weight, and the
camera furthest behind is next. Under overload every camera therefore gets a rate in proportion to its weight, also one
whose frames happen to arrive at the wrong moments; but one that was away does not get to catch up on the past. Among
cameras equally far behind the freshest frame goes first, since the others will soon have a fresher one: at twice the
load that the engine can take, the median result is 15 ms younger than with the oldest first. A batch is no larger than
can be inferred in time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from streamproc.channel import Channel, LoopSignal
from streamproc.ledger import DropReason
from streamproc.types import Frame

__all__ = ["BatchTimes", "Batcher", "Plan", "Scheduler", "Waiting"]

_FRESH_SHARE = 8
"""A frame that has spent no more than this part of its allowed age is always worth a try."""

_CREDIT = 12
"""Services that a present camera may be behind by and still catch up on: half a second of a 24 FPS camera."""

_PATIENCE = 2
"""Services that a camera whose frames came at the wrong moments is behind by before room is kept for it."""


class BatchTimes:
    """How long a batch of each size takes from being closed to its results, in ns: a smoothed mean and deviation.

    Smoothing constants are those of TCP's round-trip estimator (RFC 6298, section 2), which solves the same problem.
    Sizes not measured lately are scaled from the nearest measured one: above it by half of what they are larger, so
    that engines to which batches are a gain get a chance to show it, below it not at all.
    """

    _GAIN = 1 / 8
    _DEVIATION_GAIN = 1 / 4
    _MEMORY = 16
    """Batches for which a size's times are kept: those of a slow hour would keep that size from being tried again."""
    _FALLEN = 1 / 2
    """A batch that takes less than this part of what its size took: what slowed everything down is gone."""

    def __init__(self) -> None:
        self._means: dict[int, float] = {}
        self._deviations: dict[int, float] = {}
        self._measured: dict[int, int] = {}
        self._count = 0

    def add(self, size: int, elapsed_ns: int) -> None:
        """Learn from one batch."""
        if elapsed_ns < self._FALLEN * self._means.get(size, 0.0):
            self._forget(list(self._means))
        self._count += 1
        self._measured[size] = self._count
        self._learn(size, elapsed_ns)
        self._forget([known for known, last in self._measured.items() if last <= self._count - self._MEMORY])

    def _learn(self, size: int, elapsed_ns: int) -> None:
        mean = self._means.get(size)
        if mean is None:
            self._means[size] = elapsed_ns
            self._deviations[size] = 0.0
            return
        error = elapsed_ns - mean
        self._means[size] = mean + self._GAIN * error
        self._deviations[size] += self._DEVIATION_GAIN * (abs(error) - self._deviations[size])

    def _forget(self, sizes: Sequence[int]) -> None:
        for size in sizes:
            del self._means[size], self._deviations[size], self._measured[size]

    def expect_ns(self, size: int) -> int:
        """Time that most batches of ``size`` stay within: mean + deviation; 0 before anything was measured."""
        if not self._means:
            return 0
        nearest = min(self._means, key=lambda known: (abs(known - size), known))
        expected = self._means[nearest] + self._deviations[nearest]
        return math.ceil(expected * max(1.0, (1 + size / nearest) / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The oldest frame that waits in one camera's mailbox, and how many wait there in all."""

    camera: str
    captured_ns: int
    live: bool
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now: drop the oldest frame of the ``stale`` cameras; then take one frame from each of ``take``, in
    this order (a camera may be named several times), or, where it is empty, wait until ``wake_at_ns`` or news."""

    stale: tuple[str, ...] = ()
    take: tuple[str, ...] = ()
    wake_at_ns: int | None = None


@dataclass(slots=True)
class _Lane:
    weight: float
    virtual_time: float = 0.0
    seen_ns: int | None = None
    denied: bool = False


class Scheduler:
    """The batching policy.

    Args:
        weights: every camera's share; twice the weight is twice the rate under overload.
        max_batch: most frames in one batch.
        frame_interval_ns: one frame's time at the budget's rate. Nobody waits longer than this for company.
        max_age_ns: age at which a live frame is worthless.
        expect_ns: expected time from now to the results of a batch of the given size.
        concurrency: batches that the engine works on at a time.
    """

    _ABSENT_AFTER_INTERVALS = 3
    """A camera that missed two frames in a row is not waited for."""

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        max_batch: int,
        frame_interval_ns: int,
        max_age_ns: int,
        expect_ns: Callable[[int], int],
        concurrency: int = 1,
    ) -> None:
        self._lanes = {camera: _Lane(weight) for camera, weight in weights.items()}
        self._max_batch = max_batch
        self._interval_ns = frame_interval_ns
        self._max_age_ns = max_age_ns
        self._expect_ns = expect_ns
        self._concurrency = concurrency
        self._virtual_now = 0.0
        self._waiting_since_ns: int | None = None

    def keeps_up(self, now_ns: int) -> bool:
        """Whether the engine gets through a frame of every present camera within one frame's time."""
        present = max(1, sum(self._present(lane, now_ns) for lane in self._lanes.values()))
        size = min(present, self._max_batch)
        return present * self._expect_ns(size) <= size * self._concurrency * self._interval_ns

    def admit(self, camera: str, weight: float) -> None:
        """Serve one more camera, which begins level with the others."""
        self._lanes[camera] = _Lane(weight, virtual_time=self._virtual_now)

    def dismiss(self, camera: str) -> None:
        """Serve a camera no longer; none of its frames may wait any more."""
        del self._lanes[camera]

    def plan(self, now_ns: int, waiting: Sequence[Waiting]) -> Plan:
        """Decide for the frames that wait at ``now_ns`` (monotonic clock). Taking what it says is the caller's duty."""
        # A fresh frame is tried however slow inference last seemed, or nobody would notice that it is fast again.
        useful_ns = max(self._max_age_ns - self._expect_ns(1), self._max_age_ns // _FRESH_SHARE)
        worthless_ns = now_ns - useful_ns
        stale = tuple(w.camera for w in waiting if w.live and w.captured_ns < worthless_ns)
        for w in waiting:
            self._see(w.camera, now_ns)
        if stale:
            for camera in stale:
                self._lanes[camera].denied = True
            return Plan(stale=stale)
        if not waiting:
            self._waiting_since_ns = None
            return Plan()
        chosen = self._choose(waiting)
        close_at_ns = max(self._close_at_ns(now_ns, chosen, waiting), self._held_until_ns(now_ns, chosen[0]))
        if now_ns < close_at_ns:
            return Plan(wake_at_ns=close_at_ns)
        chosen = self._in_time(now_ns, chosen, waiting)
        for camera in chosen:
            self._serve(self._lanes[camera])
        self._waiting_since_ns = None
        return Plan(take=tuple(chosen))

    def _choose(self, waiting: Sequence[Waiting]) -> list[str]:
        """The cameras furthest behind in virtual time, freshest frame first among equals, up to a full batch."""
        times = {w.camera: self._start(self._lanes[w.camera]) for w in waiting}
        left = {w.camera: w.count for w in waiting}
        captured = {w.camera: w.captured_ns for w in waiting}
        chosen: list[str] = []
        while left and len(chosen) < self._max_batch:
            camera = min(left, key=lambda c: (times[c], -captured[c], c))
            chosen.append(camera)
            times[camera] += 1 / self._lanes[camera].weight
            left[camera] -= 1
            if not left[camera]:
                del left[camera]
        return chosen

    def _in_time(self, now_ns: int, chosen: list[str], waiting: Sequence[Waiting]) -> list[str]:
        """The first of ``chosen``: as many as can be inferred together before one of them is too old, one at least."""
        captured = {w.camera: w.captured_ns for w in waiting if w.live}
        oldest_ns = list(accumulate((captured.get(camera, now_ns) for camera in chosen), min))
        size = len(chosen)
        while size > 1 and now_ns + self._expect_ns(size) > oldest_ns[size - 1] + self._max_age_ns:
            size -= 1
        return chosen[:size]

    def _close_at_ns(self, now_ns: int, chosen: list[str], waiting: Sequence[Waiting]) -> int:
        """When the batch must leave; ``now_ns`` when there is nothing to gain by waiting."""
        if self._waiting_since_ns is None:
            self._waiting_since_ns = now_ns
        aboard = set(chosen)
        if len(chosen) == self._max_batch or not any(
            camera not in aboard and self._present(lane, now_ns) for camera, lane in self._lanes.items()
        ):
            return now_ns
        if not all(w.live for w in waiting):
            return now_ns
        oldest_ns = min(w.captured_ns for w in waiting if w.camera in aboard)
        deadline_ns = oldest_ns + self._max_age_ns - self._expect_ns(len(chosen) + 1)
        return max(now_ns, min(deadline_ns, self._waiting_since_ns + self._interval_ns))

    def _held_until_ns(self, now_ns: int, best: str) -> int:
        """Until when room is kept for a camera that is behind ``best`` because its frames were stale at the wrong
        moments: its next frame is due a frame's time after its last. ``now_ns`` when there is none."""
        limit = self._start(self._lanes[best])
        due_ns = [
            lane.seen_ns + self._interval_ns
            for lane in self._lanes.values()
            if lane.denied and lane.seen_ns is not None and self._start(lane) + _PATIENCE / lane.weight <= limit
        ]
        return max(now_ns, *due_ns) if due_ns else now_ns

    def _present(self, lane: _Lane, now_ns: int) -> bool:
        return lane.seen_ns is not None and now_ns - lane.seen_ns < self._ABSENT_AFTER_INTERVALS * self._interval_ns

    def _see(self, camera: str, now_ns: int) -> None:
        """Note that a camera has a frame; one that was absent begins anew, hardly behind the others."""
        lane = self._lanes[camera]
        if not self._present(lane, now_ns):
            lane.virtual_time = max(lane.virtual_time, self._virtual_now - 1 / lane.weight)
        lane.seen_ns = now_ns

    def _start(self, lane: _Lane) -> float:
        """The lane's virtual time. It may stay behind to a limit: a camera between two frames, or whose frames were
        stale whenever there was room, gets its share later."""
        return max(lane.virtual_time, self._virtual_now - _CREDIT / lane.weight)

    def _serve(self, lane: _Lane) -> None:
        start = self._start(lane)
        self._virtual_now = max(self._virtual_now, start)
        lane.virtual_time = start + 1 / lane.weight
        lane.denied = False


class Batcher:
    """Forms batches from the cameras' mailboxes; of every frame it does not hand on ``not_inferred`` is told why.

    The mailboxes must ring ``signal`` whenever they change. It ends when all of them are closed and empty.
    """

    def __init__(
        self,
        mailboxes: Mapping[str, Channel[Frame]],
        scheduler: Scheduler,
        signal: LoopSignal,
        *,
        frame_interval_ns: int,
        not_inferred: Callable[[Frame, DropReason], None],
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._mailboxes = mailboxes
        self._scheduler = scheduler
        self._signal = signal
        self._interval_ns = frame_interval_ns
        self._not_inferred = not_inferred
        self._monotonic_ns = monotonic_ns

    async def next_batch(self) -> list[Frame]:
        """The next frames to infer, waiting for them; empty when there will be no more."""
        while True:
            now_ns = self._monotonic_ns()
            self._drop_superseded(now_ns)
            plan = self._scheduler.plan(now_ns, self._waiting())
            for camera in plan.stale:
                self._drop_oldest(camera, DropReason.STALE)
            if plan.stale:
                continue
            frames = [frame for camera in plan.take if (frame := self._mailboxes[camera].poll()) is not None]
            if frames:
                return frames
            if all(box.closed and not len(box) for box in self._mailboxes.values()):
                return []
            timeout_s = None if plan.wake_at_ns is None else (plan.wake_at_ns - now_ns) / 1e9
            await self._signal.wait(timeout_s)

    def _waiting(self) -> list[Waiting]:
        waiting = []
        for camera, box in self._mailboxes.items():
            frame = box.peek()
            if frame is not None:
                # Of a live camera only the newest frame counts; files give what they have, to fill a batch.
                count = 1 if frame.live else max(1, len(box))
                waiting.append(Waiting(camera=camera, captured_ns=frame.captured_ns, live=frame.live, count=count))
        return waiting

    def _drop_superseded(self, now_ns: int) -> None:
        """Give up frames that a newer one waits behind and that are more than a frame's time old: two frames that
        arrive together are both served, but a queue never builds up. Where the engine keeps up they may be twice as
        old: a keyframe takes ten times as long to decode as another picture, and the next comes right behind it."""
        for camera, box in self._mailboxes.items():
            while len(box) > 1 and (frame := box.peek()) is not None and frame.live:
                intervals = (now_ns - frame.captured_ns) / self._interval_ns
                if intervals <= 1 or (intervals <= 2 and self._scheduler.keeps_up(now_ns)):
                    break
                self._drop_oldest(camera, DropReason.OVERLOAD)

    def _drop_oldest(self, camera: str, reason: DropReason) -> None:
        frame = self._mailboxes[camera].poll()
        if frame is not None:
            self._not_inferred(frame, reason)
