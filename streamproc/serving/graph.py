"""A cascade run where its models are: the detector on whole pictures, the others on what was found in them.

What is shown to a model, and what is read in its outputs, is what the client shows and reads: the same functions do it.
Pure: whoever has the models gives a function that calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from streamproc.engines.base import Outputs
from streamproc.models.spec import Head, Thresholds, recognise
from streamproc.packing import unpack
from streamproc.preprocess import letterbox_into
from streamproc.serving.answer import Tensors, blank, put_looks, put_objects, put_outputs
from streamproc.serving.looks import Found, Look, best_of, crops_of, looks_of
from streamproc.serving.plan import ModelPlan, Plan, tensor_of
from streamproc.types import Detections, Letterbox, Picture, UInt8Array

if TYPE_CHECKING:
    from streamproc.config.model import HeadKind

__all__ = ["Call", "Cut", "Graph"]

Call: TypeAlias = Callable[[str, UInt8Array], Outputs]
"""Runs a model of the plan, by its name in the plan, on (rows, height, width, 3) pictures; its outputs by name, rows
first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """What is known between the two models of a straight line.

    ``tensors``: of the answer, by name: all but the second model's own outputs, which is the whole answer where there
    is no second model. ``crops``: (n, height, width, 3) for that model, picture by picture, n >= 1: a black one where
    there is nothing to look at; None where there is no such model.
    """

    tensors: Tensors
    crops: UInt8Array | None


class Graph:
    """The models of a plan, and how to read those that find objects. Safe from every thread.

    Raises:
        ModelError: one of these has outputs that no head reads.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._heads = {model.name: _head(model) for model in plan.models if model.finds}

    def run(self, packed: UInt8Array, call: Call) -> Tensors:
        """The answer for packed pictures, (batch, ...) as the plan's; each tensor has the batch first.

        A model is called with what there is of all pictures together, as much as it takes at once, and never with
        nothing.

        Raises:
            ValueError: the pictures are of another shape, or do not say what they are.
        """
        pictures = self._unpacked(packed)
        answer = blank(self._plan, len(pictures))
        found = {self._plan.detector.name: self._detect(pictures, call)}
        put_objects(answer, self._plan.detector, found[self._plan.detector.name])
        for model in self._plan.secondaries:
            looks = self._looks(model, found)
            put_looks(answer, model, looks)
            if model.finds:
                found[model.name] = self._find(model, pictures, looks, call)
                put_objects(answer, model, found[model.name])
            elif looks:
                put_outputs(answer, model, _told(model, pictures, looks, call))
        return answer

    def prepare(self, packed: UInt8Array) -> UInt8Array:
        """(batch, height, width, 3) RGB: packed pictures as the detector is to see them.

        Raises:
            ValueError: as for :meth:`run`.
        """
        return self._prepared(self._unpacked(packed))

    def cut(self, packed: UInt8Array, outputs: Outputs) -> Cut:
        """What follows from the detector's outputs, of a plan that is a straight line: crops for its second model.

        Raises:
            ValueError: the plan is no straight line, or as for :meth:`run`.
        """
        if not self._plan.is_straight:
            raise ValueError("expected the detector and at most one model that finds no objects")
        pictures = self._unpacked(packed)
        detector = self._plan.detector
        found = {detector.name: self._detected(pictures, outputs)}
        answer = blank(self._plan, len(pictures))
        put_objects(answer, detector, found[detector.name])
        if not self._plan.secondaries:
            return Cut(tensors=answer, crops=None)
        (model,) = self._plan.secondaries
        looks = self._looks(model, found)
        put_looks(answer, model, looks)
        told = {tensor_of(model, tensor.name) for tensor in model.info.outputs}
        width, height = model.info.size
        crops = crops_of(model, pictures, looks)[0] if looks else np.zeros((1, height, width, 3), dtype=np.uint8)
        return Cut(tensors={name: values for name, values in answer.items() if name not in told}, crops=crops)

    def answer(self, tensors: Outputs, outputs: Outputs) -> Tensors:
        """The answer of a straight line of two, from the tensors of :class:`Cut` and what its second model says of the
        crops."""
        (model,) = self._plan.secondaries
        answer = blank(self._plan, len(tensors[tensor_of(model, "parent")])) | dict(tensors)
        put_outputs(answer, model, outputs)
        return answer

    def _unpacked(self, packed: UInt8Array) -> list[Picture]:
        shape = self._plan.pictures.shape
        if packed.shape[1:] != shape or packed.dtype != np.uint8:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"pictures: expected uint8 (batch, {expected}), got {packed.dtype} {packed.shape}")
        return [unpack(row) for row in packed]

    def _prepared(self, pictures: Sequence[Picture]) -> UInt8Array:
        info = self._plan.detector.info
        width, height = info.size
        prepared = np.empty((len(pictures), height, width, 3), dtype=np.uint8)
        for picture, row in zip(pictures, prepared, strict=True):
            letterbox_into(picture, row, fit=info.fit)
        return prepared

    def _detect(self, pictures: Sequence[Picture], call: Call) -> list[Found]:
        """What the detector finds in each picture."""
        detector = self._plan.detector
        found: list[Found] = []
        for start in range(0, len(pictures), detector.max_batch):
            some = pictures[start : start + detector.max_batch]
            found += self._detected(some, call(detector.name, self._prepared(some)))
        return found

    def _detected(self, pictures: Sequence[Picture], outputs: Outputs) -> list[Found]:
        detector = self._plan.detector
        fitted = [Letterbox.fit(picture.size, detector.info.size, detector.info.fit) for picture in pictures]
        return [
            best_of([(0, self._read(detector, outputs, row, letterbox))], detector.most)
            for row, letterbox in enumerate(fitted)
        ]

    def _read(self, model: ModelPlan, outputs: Outputs, row: int, letterbox: Letterbox) -> Detections:
        thresholds = Thresholds(
            confidence=model.confidence, iou=model.iou, class_ids=None, max_detections=model.max_detections
        )
        return self._heads[model.name].decode(outputs, row, letterbox, thresholds)

    def _looks(self, model: ModelPlan, found: Mapping[str, Sequence[Found]]) -> list[Look]:
        assert model.on is not None  # or it would be the detector
        return looks_of(model, found[model.on], self._heads[model.on].labels)

    def _find(self, model: ModelPlan, pictures: Sequence[Picture], looks: Sequence[Look], call: Call) -> list[Found]:
        """What a model finds in each picture, within the objects that it is shown."""
        parts: list[list[tuple[int, Detections]]] = [[] for _ in pictures]
        for some in _batches(looks, model.max_batch):
            crops, letterboxes = crops_of(model, pictures, some)
            outputs = call(model.name, crops)
            for row, (look, letterbox) in enumerate(zip(some, letterboxes, strict=True)):
                parts[look.picture].append((look.parent, self._read(model, outputs, row, letterbox)))
        return [best_of(some, model.most) for some in parts]


def _told(model: ModelPlan, pictures: Sequence[Picture], looks: Sequence[Look], call: Call) -> Outputs:
    """What a model says of each object that it is shown, in its own outputs; ``looks``: at least one."""
    told = [call(model.name, crops_of(model, pictures, some)[0]) for some in _batches(looks, model.max_batch)]
    return {tensor.name: np.concatenate([one[tensor.name] for one in told]) for tensor in model.info.outputs}


def _batches(looks: Sequence[Look], most: int) -> list[Sequence[Look]]:
    return [looks[start : start + most] for start in range(0, len(looks), most)]


def _head(model: ModelPlan) -> Head:
    """How to read a model; the plan has its classes from the very same head, so that nothing is left to tell."""
    return recognise(model.info, model.labels, kind=cast("HeadKind", model.head))
