"""The graph of secondary models: what one finds, the next ones look at.

Detections never wait for it: what a model says of a live camera's object is attached to the object's track when it
comes, and goes out with the next results. Frames that must not be lost wait for all that follows from them, so that
a recording gives the same answers on every machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from streamproc.about import About, Reading
from streamproc.cascade.corners import corners_of
from streamproc.cascade.identities import Identities
from streamproc.cascade.memory import CameraMemory, Policy, Subject
from streamproc.cascade.stage import Box, Item, Stage, StageCounts
from streamproc.config import DETECTOR, ReidConfig, SecondaryConfig
from streamproc.models.heads import Answer, Classified, Embedded, TextRead
from streamproc.secondary import Secondary
from streamproc.types import Detections, Frame

__all__ = ["Cascade", "StageCounts"]

_DEFAULT = Policy(vote=3, refresh_s=2.0)
_FORGET_S = 5.0
"""A track that has not been seen for so long does not come back: the tracker lost it before."""


class Cascade:
    """All secondary models of a worker. Lives on one event loop.

    Args:
        models: their configuration, by name.
        secondaries: the same, loaded.
        labels: the detector's classes.
        reid: how objects that come back get their ids again; None where they do not.
    """

    def __init__(
        self,
        models: Mapping[str, SecondaryConfig],
        secondaries: Mapping[str, Secondary],
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
        self._stages = {
            name: Stage(name, model, secondaries[name], policy_of(name, models), crops=self._crops, found=self._found)
            for name, model in models.items()
        }
        self._on: dict[str, list[Stage]] = {}
        for stage in self._stages.values():
            self._on.setdefault(stage.config.on, []).append(stage)

    async def run(self) -> None:
        """Work on what is seen, until :meth:`close`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, stage in self._stages.items():
                    tasks.create_task(stage.run(), name=f"model {name}")
        finally:
            self._crops.shutdown(wait=False)

    def close(self) -> None:
        """Take no more; :meth:`run` ends when what is under way is done."""
        for stage in self._stages.values():
            stage.close()

    async def see(self, frame: Frame, detections: Detections) -> tuple[Detections, tuple[About | None, ...]]:
        """Let the models look at a frame's tracked objects: the objects, with the ids of those they are known to be,
        and what is known of each by now."""
        memory = self._memories.setdefault(frame.camera, CameraMemory(forget_s=self._forget_s))
        track_ids = detections.track_ids.tolist()
        memory.seen(track_ids, frame.pts_s)
        # An object without a track may be looked at where somebody waits for the answer, which is all it has.
        subjects = [memory.subject(track) or (None if frame.live else Subject()) for track in track_ids]
        names = [self._labels[class_id] for class_id in detections.class_ids.tolist()]
        boxes: list[Box] = list(map(tuple, detections.boxes.tolist()))
        waits = []
        for subject, name, box, corners in zip(subjects, names, boxes, corners_of(detections), strict=True):
            if subject is not None:
                item = Item(frame=frame, subject=subject, box=box, corners=corners)
                waits += self._offer(DETECTOR, name, item)
        if waits:
            await asyncio.gather(*waits)
        if self._reid is not None:
            detections = self._identified(self._reid, frame, detections, memory)
            subjects = [memory.subject(track) or one for track, one in zip(track_ids, subjects, strict=True)]
        return detections, self._about(subjects, boxes)

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
            if (stage.config.classes is None or label in stage.config.classes) and stage.wants(item):
                done = None if item.frame.live else asyncio.get_running_loop().create_future()
                stage.offer(replace(item, done=done))
                if done is not None:
                    waits.append(done)
        return waits

    def _found(self, stage: Stage, item: Item, answer: Answer | None) -> None:
        """Keep what a model said, and pass on the objects that it found."""
        waits: list[asyncio.Future[None]] = []
        if isinstance(answer, Detections):
            labels = stage.secondary.labels
            children = item.subject.contains(stage.name, answer, labels, item.box, stage.policy)
            names = [labels[class_id] for class_id in answer.class_ids.tolist()]
            places = zip(answer.boxes.tolist(), corners_of(answer), strict=True)
            for child, name, (box, corners) in zip(children, names, places, strict=True):
                one = Item(frame=item.frame, subject=child, box=tuple(box), corners=corners)
                waits += self._offer(stage.name, name, one)
        elif answer:
            _keep(stage, item.subject, answer)
        if item.done is None or item.done.done():
            return
        if waits:
            asyncio.gather(*waits).add_done_callback(partial(_resolve, item.done))
        else:
            item.done.set_result(None)


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
