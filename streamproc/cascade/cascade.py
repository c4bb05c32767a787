"""The graph of secondary models: what one finds, the next ones look at.

Detections never wait for models that are asked from here: what one says of a live camera's object is attached to the
object's track when it comes, and goes out with the next results. Frames that must not be lost wait for all that follows
from them, so that a recording gives the same answers on every machine. Where a server runs the whole graph, the answers
come with the detections, and are taken as seldom as models would be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from streamproc.about import About, Reading
from streamproc.cascade.answers import Answers
from streamproc.cascade.identities import Identities
from streamproc.cascade.memory import CameraMemory, Policy, Subject
from streamproc.cascade.stage import Item, QueuedStage, Stage, StageCounts
from streamproc.config import DETECTOR, ReidConfig, SecondaryConfig
from streamproc.crops import corners_of
from streamproc.engines.base import Outputs
from streamproc.models.heads import Answer, Classified, Embedded, TextRead
from streamproc.models.spec import Head
from streamproc.secondary import CropReader, Secondary
from streamproc.types import Detections, Frame

__all__ = ["Cascade", "StageCounts"]

_DEFAULT = Policy(vote=3, refresh_s=2.0)
_FORGET_S = 5.0
"""A track that has not been seen for so long does not come back: the tracker lost it before."""


class Cascade:
    """All secondary models of a worker. Lives on one event loop.

    Args:
        models: their configuration, by name.
        readers: what reads them; those with an engine are asked, of the others the answers come with the detections.
        labels: the detector's classes.
        reid: how objects that come back get their ids again; None where they do not.
    """

    def __init__(
        self,
        models: Mapping[str, SecondaryConfig],
        readers: Mapping[str, CropReader],
        labels: Sequence[str],
        reid: ReidConfig | None = None,
    ) -> None:
        self._labels = labels
        self._reid = reid
        self._forget_s = _FORGET_S if reid is None else reid.within_s
        self._identities: dict[str, Identities] = {}
        self._memories: dict[str, CameraMemory] = {}
        self._published = {name: model.publish for name, model in models.items()}
        self._crops = ThreadPoolExecutor(1, thread_name_prefix="crops")
        self._closed = asyncio.Event()
        self._stages = {
            name: self._stage(name, model, readers[name], policy_of(name, models)) for name, model in models.items()
        }
        self._on: dict[str, list[Stage]] = {}
        for stage in self._stages.values():
            self._on.setdefault(stage.config.on, []).append(stage)

    def _stage(self, name: str, model: SecondaryConfig, reader: CropReader, policy: Policy) -> Stage:
        if isinstance(reader, Secondary):
            return QueuedStage(name, model, reader, policy, crops=self._crops, found=self._found)
        return Stage(name, model, reader, policy)

    async def run(self) -> None:
        """Work on what is seen, until :meth:`close`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for stage in self._queued():
                    tasks.create_task(stage.run(), name=f"model {stage.name}")
                await self._closed.wait()
        finally:
            self._crops.shutdown(wait=False)

    def close(self) -> None:
        """Take no more; :meth:`run` ends when what is under way is done."""
        self._closed.set()
        for stage in self._queued():
            stage.close()

    def _queued(self) -> list[QueuedStage]:
        return [stage for stage in self._stages.values() if isinstance(stage, QueuedStage)]

    async def see(
        self, frame: Frame, detections: Detections, answers: Answers | None = None
    ) -> tuple[Detections, tuple[About | None, ...]]:
        """Let the models look at a frame's tracked objects: the objects, with the ids of those they are known to be,
        and what is known of each by now.

        ``answers``: what the server's models say of the detections, in this order; None where models are to be asked.
        """
        memory = self._memories.setdefault(frame.camera, CameraMemory(forget_s=self._forget_s))
        track_ids = detections.track_ids.tolist()
        memory.seen(track_ids, frame.pts_s)
        # An object without a track may be looked at where the answer comes in time, which is all it has.
        in_time = answers is not None or not frame.live
        subjects = [memory.subject(track) or (Subject() if in_time else None) for track in track_ids]
        items = _items(frame, subjects, detections, self._labels)
        if answers is not None:
            await self._hear(items, answers)
        elif waits := [wait for _, label, item in items for wait in self._offer(DETECTOR, label, item)]:
            await asyncio.gather(*waits)
        if self._reid is not None:
            detections = self._identified(self._reid, frame, detections, memory)
            subjects = [memory.subject(track) or one for track, one in zip(track_ids, subjects, strict=True)]
        return detections, self._about(subjects, detections.boxes.tolist())

    def _identified(self, reid: ReidConfig, frame: Frame, detections: Detections, memory: CameraMemory) -> Detections:
        """The same objects, with the ids of those that they are known to be."""
        identities = self._identities.get(frame.camera)
        if identities is None:
            identities = Identities(similarity=reid.similarity, within_s=reid.within_s)
            self._identities[frame.camera] = identities
        track_ids = detections.track_ids.tolist()
        subjects = {track: memory.subject(track) for track in track_ids}
        looks = {
            track: look
            for track, subject in subjects.items()
            if subject is not None and (look := subject.look(reid.model)) is not None
        }
        ids = identities.settle(track_ids, detections.class_ids.tolist(), looks, frame.pts_s)
        if ids == track_ids:
            return detections
        for track, known in zip(track_ids, ids, strict=True):
            if track != known:
                memory.join(track, known)
        return replace(detections, track_ids=np.array(ids, dtype=np.int64))

    def recall(self, frame: Frame, detections: Detections) -> tuple[About | None, ...]:
        """What is known by now of objects that no model is to look at."""
        memory = self._memories.get(frame.camera)
        subjects = [memory.subject(track) if memory else None for track in detections.track_ids.tolist()]
        return self._about(subjects, detections.boxes.tolist())

    def counts(self) -> Mapping[str, StageCounts]:
        """What each model was asked so far."""
        return {name: stage.counts for name, stage in self._stages.items()}

    def forget(self, camera: str) -> None:
        """The camera has gone; another may keep its tracks."""
        self._memories.pop(camera, None)
        self._identities.pop(camera, None)

    def _about(self, subjects: Iterable[Subject | None], boxes: Iterable[Sequence[float]]) -> tuple[About | None, ...]:
        return tuple(
            subject.about(box, self._published) if subject is not None else None
            for subject, box in zip(subjects, boxes, strict=True)
        )

    def _offer(self, on: str, label: str, item: Item) -> list[asyncio.Future[None]]:
        """Offer an object to every model that stands on what found it; what to wait for."""
        waits = []
        for stage in self._on.get(on, ()):
            assert isinstance(stage, QueuedStage), f"model {stage.name} has no engine to ask"
            if stage.wants(label, item):
                done = None if item.frame.live else asyncio.get_running_loop().create_future()
                stage.offer(replace(item, done=done))
                if done is not None:
                    waits.append(done)
        return waits

    def _found(self, stage: Stage, item: Item, answer: Answer | None) -> None:
        """Keep what a model said, and pass on the objects that it found."""
        waits: list[asyncio.Future[None]] = []
        if isinstance(answer, Detections):
            for _, label, inner in _inner(stage, item, answer):
                waits += self._offer(stage.name, label, inner)
        elif answer:
            _keep(stage, item.subject, answer)
        if item.done is None or item.done.done():
            return
        if waits:
            asyncio.gather(*waits).add_done_callback(partial(_resolve, item.done))
        else:
            item.done.set_result(None)

    async def _hear(self, items: Iterable[tuple[int, str, Item]], answers: Answers) -> None:
        """Take the answers that are due about objects, and about what was found in these."""
        due = [one for number, label, item in items for one in self._due(DETECTOR, number, label, item, answers)]
        if not due:
            return
        loop = asyncio.get_running_loop()
        said = await loop.run_in_executor(self._crops, lambda: [one.read() for one in due])
        for one, answer in zip(due, said, strict=True):
            one.stage.counts.empty += not answer
            if answer:
                _keep(one.stage, one.subject, answer)

    def _due(self, on: str, number: int, label: str, item: Item, answers: Answers) -> Iterator[_Due]:
        """What is still to be read about an object, the ``number``-th of the model ``on``. What was found in it is kept
        at once: it tells what else is due."""
        for stage in self._on.get(on, ()):
            if not stage.wants(label, item):
                continue
            told = answers[stage.name]
            rows = told.rows.get(number)
            if rows is None:
                stage.counts.lost["unseen"] += 1
                continue
            item.subject.tried(stage.name, item.frame.pts_s)
            stage.counts.crops += 1
            if told.found is None:
                yield _Due(stage=stage, subject=item.subject, outputs=told.outputs, row=rows[0])
                continue
            rows = rows[: stage.reader.thresholds.max_detections]
            stage.counts.empty += not rows
            found = told.found.where(np.isin(np.arange(len(told.found)), rows))
            for index, inner_label, inner in _inner(stage, item, found):
                yield from self._due(stage.name, rows[index], inner_label, inner, answers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Due:
    """A row of a model's outputs that is about a subject, and is to be read."""

    stage: Stage
    subject: Subject
    outputs: Outputs
    row: int

    def read(self) -> Classified | TextRead | Embedded:
        head = self.stage.reader.head
        assert not isinstance(head, Head), f"model {self.stage.name} finds objects"
        return head.read(self.outputs, self.row)


def _items(
    frame: Frame, subjects: Sequence[Subject | None], found: Detections, labels: Sequence[str]
) -> Iterator[tuple[int, str, Item]]:
    """Objects to look at, each with its number and the name of its class; those without a subject are left out."""
    objects = zip(subjects, found.class_ids.tolist(), found.boxes.tolist(), corners_of(found), strict=True)
    for number, (subject, class_id, box, corners) in enumerate(objects):
        if subject is not None:
            yield number, labels[class_id], Item(frame=frame, subject=subject, box=tuple(box), corners=corners)


def _inner(stage: Stage, item: Item, found: Detections) -> Iterator[tuple[int, str, Item]]:
    """The objects that a model has found in another one, which keeps them."""
    labels = stage.reader.labels
    subjects = item.subject.contains(stage.name, found, labels, item.box, stage.policy)
    return _items(item.frame, subjects, found, labels)


def _resolve(done: asyncio.Future[None], _: object) -> None:
    if not done.done():
        done.set_result(None)


def _keep(stage: Stage, subject: Subject, answer: Classified | TextRead | Embedded) -> None:
    match answer:
        case Classified():
            readings = tuple(Reading(value=label, confidence=confidence) for label, confidence in answer.labels)
            subject.classified(stage.name, readings, stage.policy)
        case TextRead():
            subject.read(stage.name, Reading(value=answer.text, confidence=answer.confidence), stage.policy)
        case Embedded():
            subject.embedded(stage.name, answer.embedding, stage.policy)


def policy_of(name: str, models: Mapping[str, SecondaryConfig]) -> Policy:
    """How often a model looks at one object: as its configuration says, or as often as those on its objects need."""
    model = models[name]
    dependents = [policy_of(one, models) for one, other in models.items() if other.on == name]
    if model.per_track is not None:
        return Policy(vote=model.per_track.vote, refresh_s=model.per_track.refresh_s, every_s=model.every_s)
    if dependents:
        together = dependents[0].together(dependents[1:])
        return Policy(vote=together.vote, refresh_s=together.refresh_s, every_s=max(model.every_s, together.every_s))
    return Policy(vote=_DEFAULT.vote, refresh_s=_DEFAULT.refresh_s, every_s=model.every_s)
