"""What a served cascade answers, taken out of its tensors: what was found, and what other models say of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import Outputs
from streamproc.models.heads import Thresholds
from streamproc.serving.plan import DETECTIONS, KEYPOINTS, ModelPlan, Plan, tensor_of
from streamproc.types import Detections, Letterbox

__all__ = ["AnswerReader", "Answers", "Decode", "Told"]

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """What one model says of a picture's objects; copies, independent of the slot.

    ``rows``: of each object that it was shown, by its number among those of the model that it stands on, the rows that
    are about it, best first. They are rows of ``found`` where it finds objects, and of each of ``outputs`` otherwise,
    when ``found`` is None.
    """

    rows: Mapping[int, Sequence[int]]
    found: Detections | None
    outputs: Outputs


Answers: TypeAlias = Mapping[str, Told]
"""What is said of one picture, by the models' names."""

Decode: TypeAlias = Callable[[Outputs, int, Letterbox], tuple[Detections, Answers | None]]
"""Reads one picture of a batch: what was found in it, and what is said of that already; None where nobody was asked."""


class AnswerReader:
    """Reads the answers to a plan, as far as they are wanted. Safe from every thread.

    Args:
        thresholds: what counts as an object for each model that is wanted, by name; the detector's are given later.
    """

    def __init__(self, plan: Plan, thresholds: Mapping[str, Thresholds]) -> None:
        self._plan = plan
        self._thresholds = thresholds
        self._secondaries = [model for model in plan.secondaries if model.name in thresholds]

    @property
    def size(self) -> tuple[int, int]:
        """Up to which (width, height) pictures are sent as they are."""
        return self._plan.size

    def read(
        self, outputs: Outputs, row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> tuple[Detections, Answers]:
        """The detections of one picture of a batch, in source pixels, best first, and what is said of those.

        ``letterbox``: how the picture that the server saw lies in the camera's. ``thresholds``: what counts as a
        detection.
        """
        detector = self._plan.detector
        keypoints = outputs[KEYPOINTS][row] if detector.keypoints else None
        found, kept = _objects(outputs[DETECTIONS][row], keypoints, letterbox, thresholds, thresholds.max_detections)
        numbers = {detector.name: _numbers(kept, detector.most)}
        answers = {}
        for model in self._secondaries:
            assert model.on is not None
            told, kept = self._told(model, outputs, row, letterbox, numbers[model.on])
            answers[model.name] = told
            numbers[model.name] = _numbers(kept, model.most)
        return found, answers

    def _told(
        self, model: ModelPlan, outputs: Outputs, row: int, letterbox: Letterbox, numbers: Rows
    ) -> tuple[Told, Rows]:
        """What a model says, and which rows of its answer that is.

        ``numbers``: those of the objects that it stands on, by their rows in the answer; -1 where one is not wanted.
        """
        parents = outputs[tensor_of(model, "parent")][row]
        kept = np.flatnonzero(parents >= 0)
        kept = kept[numbers[parents[kept]] >= 0]
        found, own = None, {}
        if model.finds:
            keypoints = outputs[tensor_of(model, KEYPOINTS)][row][kept] if model.keypoints else None
            objects = outputs[tensor_of(model, "objects")][row][kept]
            found, sure = _objects(objects, keypoints, letterbox, self._thresholds[model.name])
            kept = kept[sure]
        else:
            own = {tensor.name: outputs[tensor_of(model, tensor.name)][row][kept] for tensor in model.info.outputs}
        shown = numbers[np.flatnonzero(outputs[tensor_of(model, "looked")][row])]
        rows: dict[int, list[int]] = {number: [] for number in shown.tolist() if number >= 0}
        for index, parent in enumerate(numbers[parents[kept]].tolist()):
            rows[parent].append(index)
        return Told(rows=rows, found=found, outputs=own), kept


def _objects(
    values: NDArray[np.float32],
    keypoints: NDArray[Any] | None,
    letterbox: Letterbox,
    thresholds: Thresholds,
    most: int | None = None,
) -> tuple[Detections, Rows]:
    """The objects in rows of (x1, y1, x2, y2, confidence, class) that count, and which rows these are."""
    kept = np.flatnonzero(values[:, 4] >= thresholds.confidence)
    if thresholds.class_ids is not None:
        kept = kept[np.isin(values[kept, 5], list(thresholds.class_ids))]
    boxes = letterbox.to_source(values[kept, :4])
    # Rows without an object have no box either, nor has what lies beside the picture.
    visible = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))[:most]
    kept = kept[visible]
    points = None
    if keypoints is not None:
        places = letterbox.points_to_source(keypoints[kept, :, :2])
        points = np.concatenate([places, keypoints[kept, :, 2:]], axis=2)
    class_ids = values[kept, 5].astype(np.int64)
    return Detections.of(boxes[visible], values[kept, 4], class_ids, keypoints=points), kept


def _numbers(kept: Rows, rows: int) -> Rows:
    """The place of each row among those that were kept, -1 where it was not.

    >>> _numbers(np.array([0, 3]), 4).tolist()
    [0, -1, -1, 1]
    """
    numbers = np.full(rows, -1, dtype=np.int64)
    numbers[kept] = np.arange(len(kept))
    return numbers
