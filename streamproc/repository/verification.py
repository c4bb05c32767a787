"""Whether a built graph still finds what its source finds, on real pictures where there are some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamproc.boxes import ious
from streamproc.errors import ModelError
from streamproc.models.heads import Thresholds
from streamproc.models.spec import Head
from streamproc.repository.pictures import Sample
from streamproc.types import Detections, UInt8Array

__all__ = ["TOLERANCES", "GraphRunner", "GraphSession", "Runner", "Tolerance", "Verification", "compare"]

_BEST = 50  # of each picture's boxes before suppression: what is there on any picture, detections or not
_CLASS_COUNTS = 0.05  # below this score a box has no class to speak of


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How much may differ: ``share`` of the boxes of at least ``least`` need a partner of at least ``iou`` whose score
    is at most ``score`` away."""

    iou: float
    score: float
    share: float
    least: float


TOLERANCES: Mapping[str, Tolerance] = {
    "exact": Tolerance(iou=0.99, score=0.01, share=1.0, least=0.0),
    "fp16": Tolerance(iou=0.95, score=0.05, share=0.95, least=0.05),
    # Tells what is broken, not what is lost: int8 moves single scores far while the accuracy hardly drops.
    "int8": Tolerance(iou=0.7, score=0.3, share=0.7, least=0.4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a comparison found: of ``boxes`` that the source gives, ``matched`` are there; ``worst_iou`` and
    ``worst_score`` are the least overlap and the largest difference of a score among these."""

    pictures: int
    drawn: bool
    boxes: int
    matched: int
    worst_iou: float
    worst_score: float

    def __str__(self) -> str:
        where = "a drawn picture" if self.drawn else f"{self.pictures} picture{'s' if self.pictures > 1 else ''}"
        if not self.boxes:
            return f"nothing to compare on {where}: verify with pictures that show objects"
        return (
            f"{self.matched} of {self.boxes} boxes matched on {where} (IoU at least {self.worst_iou:.4f}, "
            f"scores within {self.worst_score:.4f})"
        )


class GraphSession(Protocol):
    """A graph that can be run."""

    def run(self, values: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """The outputs for the graph's one input; the first dimension is the batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRunner:
    """A graph that takes ``batch`` pictures at once, made into its input by ``feed``."""

    session: GraphSession
    feed: Callable[[UInt8Array], NDArray[Any]]
    batch: int
    open_batch: bool

    def run(self, samples: Sequence[Sample]) -> Iterator[tuple[Mapping[str, NDArray[Any]], int]]:
        """The outputs of the batch that every picture was in, and its row there."""
        for start in range(0, len(samples), self.batch):
            group = samples[start : start + self.batch]
            images = np.stack([sample.image for sample in group])
            if not self.open_batch and len(group) < self.batch:
                images = np.concatenate([images, np.zeros((self.batch - len(group), *images.shape[1:]), np.uint8)])
            outputs = self.session.run(self.feed(images))
            for row in range(len(group)):
                yield outputs, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner(GraphRunner):
    """A graph with the head that reads it."""

    head: Head

    def detect(self, samples: Sequence[Sample], thresholds: Thresholds) -> list[Detections]:
        """The detections of every picture, in its own pixels."""
        rows = zip(samples, self.run(samples), strict=True)
        return [self.head.decode(outputs, row, sample.letterbox, thresholds) for sample, (outputs, row) in rows]


def compare(
    what: str,
    reference: Runner,
    built: Runner,
    samples: Sequence[Sample],
    *,
    thresholds: Thresholds | None,
    tolerance: Tolerance,
    drawn: bool,
) -> Verification:
    """Hold a built graph against its reference; without ``thresholds`` by the best boxes before suppression.

    Raises:
        ModelError: they differ by more than the tolerance; the message names the picture and the box.
    """
    wanted, offered = (thresholds, thresholds) if thresholds else (_unsuppressed(_BEST), _unsuppressed(20 * _BEST))
    # At the limit of confidence a rounding error decides: what is nearer to it than the tolerance does not count.
    least = max(tolerance.least, thresholds.confidence + tolerance.score if thresholds else 0.0)
    # The graph counts boxes beside the picture in its limit, the decoder does not: of a long list the ends differ.
    most = max(1, thresholds.max_detections // 2) if thresholds else _BEST
    expected, found = reference.detect(samples, wanted), built.detect(samples, offered)
    boxes, matches, lost = 0, [(1.0, 0.0)], []
    for sample, there, here in zip(samples, expected, found, strict=True):
        for index, match in _matches(there, here, least, most, tolerance):
            boxes += 1
            if match:
                matches.append(match)
            else:
                lost.append(f"{sample.name}: {_describe(there, index, reference.head)}")
        for index, match in _matches(here, there, least, most, tolerance) if thresholds else ():
            if not match:
                lost.append(f"{sample.name}: {_describe(here, index, built.head)}, which is new")
    if len(lost) > (1 - tolerance.share) * boxes:
        raise ModelError(
            f"{what}: {len(lost)} of {boxes} boxes differ from the source model's by more than allowed (IoU "
            f"{tolerance.iou}, score {tolerance.score}), the first in {lost[0]}. Nothing was written. Choose another "
            "precision, leave fusing out, or verify with pictures like those of the cameras."
        )
    return Verification(
        pictures=len(samples),
        drawn=drawn,
        boxes=boxes,
        matched=len(matches) - 1,
        worst_iou=min(overlap for overlap, _ in matches),
        worst_score=max(difference for _, difference in matches),
    )


def _unsuppressed(count: int) -> Thresholds:
    return Thresholds(confidence=0.0, iou=1.0, class_ids=None, max_detections=count)


def _matches(
    one: Detections, other: Detections, least: float, most: int, tolerance: Tolerance
) -> Iterator[tuple[int, tuple[float, float] | None]]:
    """For each of the ``most`` best boxes of at least ``least``: its index, and overlap with and difference of score
    from the box that fits it best; None where none fits."""
    for index in np.flatnonzero(one.confidence >= least)[:most]:
        score = one.confidence[index]
        overlaps = ious(one.boxes[index], other.boxes)
        differences = np.abs(other.confidence - score)
        fits = (overlaps >= tolerance.iou) & (differences <= tolerance.score)
        if score >= _CLASS_COUNTS:
            fits &= other.class_ids == one.class_ids[index]
        if not fits.any():
            yield int(index), None
            continue
        best = int(np.argmax(np.where(fits, overlaps - differences, -np.inf)))
        yield int(index), (float(overlaps[best]), float(differences[best]))


def _describe(detections: Detections, index: int, head: Head) -> str:
    label = head.labels[int(detections.class_ids[index])]
    box = ", ".join(f"{value:.0f}" for value in detections.boxes[index])
    return f"{label} {detections.confidence[index]:.2f} at ({box})"
