"""One secondary model at work: objects wait, crops go into slots together, answers go to their subjects."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from streamproc.cascade.memory import Policy, Subject
from streamproc.channel import LoopSignal
from streamproc.config import SecondaryConfig
from streamproc.crops import Box, Corners, is_large_enough, object_into
from streamproc.engines.base import Outputs, Slot
from streamproc.errors import EngineAwayError, EngineError
from streamproc.models.heads import Answer
from streamproc.secondary import CropReader, Secondary
from streamproc.telemetry import RateLimitedLog
from streamproc.types import Frame, Letterbox, UInt8Array

__all__ = ["Item", "QueuedStage", "Stage", "StageCounts"]

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True, kw_only=True)
class Item:
    """An object that a model shall look at: in ``frame``, at ``box`` (xyxy, source pixels).

    ``corners``: None where they are not known. ``done`` is resolved when everything that follows from it is known; None
    where nobody waits for that.
    """

    frame: Frame
    subject: Subject
    box: Box
    corners: Corners | None = None
    done: asyncio.Future[None] | None = None


@dataclass(slots=True)
class StageCounts:
    """What a model was asked: ``batches`` of ``crops`` in all; ``empty`` of these had nothing that it knows.
    ``lost``: crops without an answer, by reason. A server forms its batches itself, of which nothing is counted here.
    """

    batches: int = 0
    crops: int = 0
    empty: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, other: StageCounts) -> None:
        """Another worker's."""
        self.batches += other.batches
        self.crops += other.crops
        self.empty += other.empty
        self.lost += other.lost


class Stage:
    """A secondary model's part in a cascade: which objects it is to look at, and what it was asked so far."""

    def __init__(self, name: str, config: SecondaryConfig, reader: CropReader, policy: Policy) -> None:
        self.name = name
        self.config = config
        self.reader = reader
        self.policy = policy
        self.counts = StageCounts()

    def wants(self, label: str, item: Item) -> bool:
        """Whether the model should look at an object, of the class ``label``, in this frame."""
        known = self.config.classes is None or label in self.config.classes
        return known and is_large_enough(item.box, self.config.crop.min_size) and self._is_due(item)

    def _is_due(self, item: Item) -> bool:
        return item.subject.is_due(self.name, self.policy, item.frame.pts_s)


class QueuedStage(Stage):
    """A stage with an engine of its own, and the objects that wait for it. Lives on one event loop.

    An object waits once: a fresher picture of it takes the place of the one that waits. Objects of which least is
    known go first; where more wait than there is room for, those of which most is known are left out, and so are seen
    again in a later frame.

    Args:
        crops: runs the work on pixels and outputs.
        found: is told, on the loop, what the model said of an item; None where that is lost.
    """

    def __init__(
        self,
        name: str,
        config: SecondaryConfig,
        secondary: Secondary,
        policy: Policy,
        *,
        crops: Executor,
        found: Callable[[Stage, Item, Answer | None], None],
    ) -> None:
        super().__init__(name, config, secondary, policy)
        self._engine = secondary.engine
        self._crops = crops
        self._found = found
        self._waiting: dict[Subject, Item] = {}
        self._busy: set[Subject] = set()
        self._changed = LoopSignal()
        self._closed = False
        self._warnings = RateLimitedLog(_log, interval_s=10.0)

    def _is_due(self, item: Item) -> bool:
        if item.subject in self._busy:
            return False
        return item.subject in self._waiting or super()._is_due(item)

    def offer(self, item: Item) -> None:
        """Let an object wait for its turn. One that somebody waits for is never left out, before the end."""
        if self._closed:
            self._lose(item, "shutdown")
            return
        replaced = self._waiting.pop(item.subject, None)
        if replaced is not None:
            self._lose(replaced, None)
        self._waiting[item.subject] = item
        spare = [one for one in self._waiting.values() if one.done is None]
        if len(spare) > self.config.max_waiting:
            least_urgent = max(reversed(spare), key=self._known)
            del self._waiting[least_urgent.subject]
            self._lose(least_urgent, "overload")
        self._changed.ring()

    def close(self) -> None:
        """Take no more, and end :meth:`run` when what is under way is done; what still waits is left out."""
        self._closed = True
        for item in self._waiting.values():
            self._lose(item, "shutdown")
        self._waiting.clear()
        self._changed.ring()

    async def run(self) -> None:
        """Look at what is offered, until closed."""
        async with asyncio.TaskGroup() as batches:
            while not self._closed:
                if not self._waiting:
                    await self._changed.wait()
                    continue
                async with AsyncExitStack() as stack:
                    slot = await stack.enter_async_context(self._engine.lease())
                    items = self._next()
                    if items:
                        self._busy.update(item.subject for item in items)
                        batches.create_task(self._look(items, slot, stack.pop_all()), name=f"model {self.name}")

    def _next(self) -> list[Item]:
        """As many as go into one batch, those of which least is known first."""
        first = sorted(self._waiting.values(), key=self._known)[: self._engine.max_batch]
        for item in first:
            del self._waiting[item.subject]
            item.subject.tried(self.name, item.frame.pts_s)
        return first

    def _known(self, item: Item) -> int:
        return item.subject.tries(self.name)

    async def _look(self, items: list[Item], slot: Slot, lease: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        answers: list[Answer] | None = None
        reason = "engine"
        try:
            async with lease:
                boxes = await loop.run_in_executor(self._crops, partial(self._crop, items, slot))
                patient = any(item.done is not None for item in items)
                outputs = await self._engine.infer(slot, len(items), patient=patient)
                answers = await loop.run_in_executor(self._crops, partial(self._read, outputs, boxes))
                self.counts.batches += 1
                self.counts.crops += len(items)
        except EngineAwayError:
            pass
        except EngineError as error:
            self._warnings.warning("failed", "%s; %d crop(s) have no answer", error, len(items))
        finally:
            self._busy.difference_update(item.subject for item in items)
        for index, item in enumerate(items):
            if answers is None:
                self._lose(item, reason)
            else:
                self.counts.empty += not answers[index]
                self._found(self, item, answers[index])

    def _crop(self, items: list[Item], slot: Slot) -> list[Letterbox]:
        return [self._write(item, row) for item, row in zip(items, slot.images, strict=False)]

    def _write(self, item: Item, row: UInt8Array) -> Letterbox:
        """Put an object into a row of a slot: straightened, where that is wanted and it has corners."""
        crop = self.config.crop
        corners = item.corners if crop.straighten else None
        # Nothing is placed by the letterbox of what is straightened: models that find objects never see that.
        return object_into(item.frame.picture, item.box, corners, row, fit=self._engine.info.fit, expand=crop.expand)

    def _read(self, outputs: Outputs, boxes: list[Letterbox]) -> list[Answer]:
        return [self.reader.read(outputs, row, letterbox) for row, letterbox in enumerate(boxes)]

    def _lose(self, item: Item, reason: str | None) -> None:
        """``reason``: None where a fresher picture of the same object takes its place."""
        if reason is not None:
            self.counts.lost[reason] += 1
        self._found(self, item, None)
