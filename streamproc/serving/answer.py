"""The tensors of a served cascade's answer: in their fixed shapes, with nothing in them, and filled row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.serving.looks import Found, Look
from streamproc.serving.plan import DETECTIONS, KEYPOINTS, ModelPlan, Plan, tensor_of

__all__ = ["Tensors", "blank", "put_looks", "put_objects", "put_outputs"]

Tensors: TypeAlias = dict[str, NDArray[Any]]

_NOBODY = -1
"""The parent of a row that is about no object."""


def blank(plan: Plan, pictures: int) -> Tensors:
    """An answer for so many pictures in which nothing was found."""
    parents = {tensor_of(model, "parent") for model in plan.secondaries}
    answer: Tensors = {}
    for tensor in plan.outputs():
        is_text = tensor.dtype == "string"
        nothing: object = _NOBODY if tensor.name in parents else b"" if is_text else 0
        answer[tensor.name] = np.full((pictures, *tensor.shape), nothing, dtype=object if is_text else tensor.dtype)
    return answer


def put_objects(answer: Tensors, model: ModelPlan, found: Sequence[Found]) -> None:
    """Write what a model has found in each picture into the first rows of its tensors."""
    secondary = model.on is not None
    objects = answer[tensor_of(model, "objects") if secondary else DETECTIONS]
    keypoints = answer[tensor_of(model, KEYPOINTS) if secondary else KEYPOINTS] if model.keypoints else None
    for picture, one in enumerate(found):
        count = len(one.objects)
        rows = objects[picture, :count]
        rows[:, :4], rows[:, 4], rows[:, 5] = one.objects.boxes, one.objects.confidence, one.objects.class_ids
        if keypoints is not None and one.objects.keypoints is not None:
            keypoints[picture, :count] = one.objects.keypoints
        if secondary:
            answer[tensor_of(model, "parent")][picture, :count] = one.parents


def put_looks(answer: Tensors, model: ModelPlan, looks: Sequence[Look]) -> None:
    """Write which objects a model is shown, and where its rows are the crops, whose these are."""
    for look in looks:
        answer[tensor_of(model, "looked")][look.picture, look.parent] = 1
        if not model.finds:
            answer[tensor_of(model, "parent")][look.picture, look.row] = look.parent


def put_outputs(answer: Tensors, model: ModelPlan, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Write a model's outputs, a row a crop, picture by picture, to where the answer's parents say that crops were.

    Rows beyond these are of no crop, and left out.
    """
    pictures, rows = np.nonzero(answer[tensor_of(model, "parent")] != _NOBODY)
    for tensor in model.info.outputs:
        answer[tensor_of(model, tensor.name)][pictures, rows] = outputs[tensor.name][: len(rows)]
