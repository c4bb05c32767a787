"""What is known of each object, reading by reading, and when the next one is due.

Pure: it is told the time, which is the media time of the frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.about import About, Child, Reading
from streamproc.boxes import iou
from streamproc.models.heads.embedding import normalised
from streamproc.types import Detections

__all__ = ["CameraMemory", "Policy", "Subject"]

_SAME_CHILD_IOU: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often a model looks at one object: ``vote`` times as soon as it may, then every ``refresh_s``; never twice
    within ``every_s``. Its answer is what the last ``vote`` readings say together."""

    vote: int
    refresh_s: float
    every_s: float = 0.0

    def together(self, others: Iterable[Policy]) -> Policy:
        """Often enough for all of them."""
        every = (self, *others)
        return Policy(
            vote=max(one.vote for one in every),
            refresh_s=min(one.refresh_s for one in every),
            every_s=min(one.every_s for one in every),
        )


class Subject:
    """One object, and all that models have said of it."""

    def __init__(self) -> None:
        self._tries: dict[str, tuple[int, float]] = {}
        self._classes: dict[str, deque[tuple[Reading, ...]]] = {}
        self._texts: dict[str, deque[Reading]] = {}
        self._embeddings: dict[str, deque[NDArray[np.float32]]] = {}
        self._children: dict[str, list[_ChildSubject]] = {}
        self._misses: dict[str, int] = {}
        self._looks: dict[str, NDArray[np.float32]] = {}

    def tries(self, model: str) -> int:
        """How often a model was asked about it."""
        return self._tries.get(model, (0, 0.0))[0]

    def is_due(self, model: str, policy: Policy, now_s: float) -> bool:
        """Whether a model should look at it now."""
        if model not in self._tries:
            return True
        count, last_s = self._tries[model]
        return now_s - last_s >= (policy.every_s if count < policy.vote else max(policy.refresh_s, policy.every_s))

    def tried(self, model: str, now_s: float) -> None:
        """A model looks at it, in a picture of ``now_s``."""
        self._tries[model] = (self.tries(model) + 1, now_s)

    def classified(self, model: str, readings: tuple[Reading, ...], policy: Policy) -> None:
        """A classifier has answered, best first."""
        self._classes.setdefault(model, deque(maxlen=policy.vote)).append(readings)

    def read(self, model: str, reading: Reading, policy: Policy) -> None:
        """A text was read."""
        self._texts.setdefault(model, deque(maxlen=policy.vote)).append(reading)

    def embedded(self, model: str, embedding: NDArray[np.float32], policy: Policy) -> None:
        """An embedding was made; (d,) of length 1."""
        self._embeddings.setdefault(model, deque(maxlen=policy.vote)).append(embedding)
        self._looks[model] = embedding

    def look(self, model: str) -> NDArray[np.float32] | None:
        """The last embedding, (d,) of length 1, where it has not been asked for yet."""
        return self._looks.pop(model, None)

    def contains(
        self, model: str, found: Detections, labels: Sequence[str], box: Sequence[float], policy: Policy
    ) -> tuple[Subject, ...]:
        """Objects were found within it, while it was at ``box``; the same one as before is the same subject again.

        What was there before is believed in until it was missed as often as there are votes.
        """
        before = self._children.get(model, [])
        self._misses[model] = 0 if len(found) else self._misses.get(model, 0) + 1
        if not len(found) and self._misses[model] < policy.vote:
            return ()
        children = []
        for child_box, class_id, confidence in zip(
            found.boxes.tolist(), found.class_ids.tolist(), found.confidence.tolist(), strict=True
        ):
            inner = _within(child_box, box)
            known = max(before, key=lambda child: iou(child.inner, inner), default=None)
            if known is not None and iou(known.inner, inner) > _SAME_CHILD_IOU:
                before = [child for child in before if child is not known]
                subject = known.subject
            else:
                subject = Subject()
            children.append(_ChildSubject(subject=subject, inner=inner, label=labels[class_id], confidence=confidence))
        self._children[model] = children
        return tuple(child.subject for child in children)

    def about(self, box: Sequence[float], published: Mapping[str, bool]) -> About | None:
        """All that is known, for the object at ``box`` now; None while that is nothing. Embeddings only of the models
        whose are ``published``."""
        about = About(
            attributes={model: _elect(votes) for model, votes in self._classes.items()},
            texts={model: _agree(votes) for model, votes in self._texts.items()},
            embeddings={
                model: _mean(every) for model, every in self._embeddings.items() if published.get(model, False)
            },
            children=tuple(
                child.placed(model, box, published) for model, found in self._children.items() for child in found
            ),
        )
        return about if about.attributes or about.texts or about.embeddings or about.children else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChildSubject:
    """``inner``: its box as fractions of its parent's."""

    subject: Subject
    inner: tuple[float, float, float, float]
    label: str
    confidence: float

    def placed(self, model: str, parent: Sequence[float], published: Mapping[str, bool]) -> Child:
        x1, y1, x2, y2 = parent
        left, top, right, bottom = self.inner
        width, height = x2 - x1, y2 - y1
        box = (x1 + left * width, y1 + top * height, x1 + right * width, y1 + bottom * height)
        return Child(
            model=model,
            label=self.label,
            confidence=self.confidence,
            box=box,
            about=self.subject.about(box, published) or About(),
        )


class CameraMemory:
    """The subjects behind one camera's tracks; those not seen for ``forget_s`` are forgotten."""

    def __init__(self, *, forget_s: float) -> None:
        self._forget_s = forget_s
        self._tracks: dict[int, Subject] = {}
        self._seen_s: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._tracks)

    def subject(self, track_id: int) -> Subject | None:
        """The subject behind a track; None where it is none yet."""
        return self._tracks.get(track_id)

    def seen(self, track_ids: Iterable[int], now_s: float) -> None:
        """These tracks are in the picture of media time ``now_s``; those long gone are forgotten."""
        for track_id in track_ids:
            if track_id:
                self._tracks.setdefault(track_id, Subject())
                self._seen_s[track_id] = now_s
        gone = [track_id for track_id, last_s in self._seen_s.items() if abs(now_s - last_s) > self._forget_s]
        for track_id in gone:
            del self._tracks[track_id], self._seen_s[track_id]

    def join(self, track_id: int, known_id: int) -> Subject:
        """A track is of an object that had another one before; what is known of that is known of this."""
        subject = self._tracks.setdefault(known_id, self._tracks[track_id])
        self._tracks[track_id] = subject
        self._seen_s[known_id] = self._seen_s[track_id]
        return subject


def _elect(votes: Iterable[tuple[Reading, ...]]) -> tuple[Reading, ...]:
    """The classes by their mean confidence over all votes, best first; as many as one vote has at most."""
    every = list(votes)
    sums: dict[str, float] = {}
    for readings in every:
        for reading in readings:
            sums[reading.value] = sums.get(reading.value, 0.0) + reading.confidence
    ranked = sorted(sums.items(), key=lambda item: -item[1])[: max(len(readings) for readings in every)]
    return tuple(Reading(value=value, confidence=total / len(every)) for value, total in ranked)


def _agree(votes: Iterable[Reading]) -> Reading:
    """The text with the greatest sum of confidences; its confidence is that sum, spread over all votes."""
    return _elect((reading,) for reading in votes)[0]


def _mean(embeddings: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The direction in the middle; (d,) of length 1."""
    total: NDArray[np.float32] = np.sum(list(embeddings), axis=0, dtype=np.float32)
    return normalised(total)


def _within(box: Sequence[float], parent: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = parent
    width, height = max(x2 - x1, 1e-6), max(y2 - y1, 1e-6)
    return ((box[0] - x1) / width, (box[1] - y1) / height, (box[2] - x1) / width, (box[3] - y1) / height)
