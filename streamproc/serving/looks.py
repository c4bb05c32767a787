"""What a model of a cascade is shown of a batch of pictures, and what it finds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamproc.crops import Box, Corners, corners_of, is_large_enough, object_into
from streamproc.serving.plan import ModelPlan
from streamproc.types import Detections, Letterbox, Picture, UInt8Array

__all__ = ["Found", "Look", "best_of", "crops_of", "looks_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The objects that a model has found in a picture, best first.

    ``parents``: (n,) int32, the number of the object that each was found in; 0 where the whole picture was seen.
    """

    objects: Detections
    parents: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """An object that a model is shown: the ``row``-th of those that it is shown of a picture, the ``picture``-th of a
    batch, where it is object number ``parent``. ``corners``: those that it is to be straightened by, if any."""

    picture: int
    row: int
    parent: int
    box: Box
    corners: Corners | None


def looks_of(model: ModelPlan, found: Sequence[Found], labels: Sequence[str]) -> list[Look]:
    """The objects that a model is shown of those found in each picture, whose classes are ``labels``; best first.

    A model that finds objects is shown all that it wants to see; one that does not, as many as the answer has room for.
    """
    every: list[Look] = []
    for picture, one in enumerate(found):
        looks: list[Look] = []
        objects = one.objects
        places = zip(objects.boxes.tolist(), objects.class_ids.tolist(), corners_of(objects), strict=True)
        for parent, (box, class_id, corners) in enumerate(places):
            is_wanted = model.classes is None or labels[class_id] in model.classes
            if is_wanted and is_large_enough(box, model.crop_min_size):
                around = corners if model.crop_straighten else None
                looks.append(Look(picture=picture, row=len(looks), parent=parent, box=tuple(box), corners=around))
        every += looks if model.finds else looks[: model.most]
    return every


def crops_of(
    model: ModelPlan, pictures: Sequence[Picture], looks: Sequence[Look]
) -> tuple[UInt8Array, list[Letterbox]]:
    """(n, height, width, 3) RGB of what a model is shown, and how each of it lies in its whole picture."""
    info = model.info
    width, height = info.size
    crops = np.empty((len(looks), height, width, 3), dtype=np.uint8)
    letterboxes = [
        object_into(pictures[look.picture], look.box, look.corners, crop, fit=info.fit, expand=model.crop_expand)
        for look, crop in zip(looks, crops, strict=True)
    ]
    return crops, letterboxes


def best_of(parts: Sequence[tuple[int, Detections]], most: int) -> Found:
    """The ``most`` best of all that was found within objects of a picture, (parent, objects within it) each; among
    equals the first."""
    if not parts:
        nothing = Detections.of(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
        return Found(objects=nothing, parents=np.empty(0, np.int32))
    found = [objects for _, objects in parts]
    parents = np.repeat(np.array([parent for parent, _ in parts], np.int32), [len(objects) for objects in found])
    confidence = np.concatenate([objects.confidence for objects in found])
    keypoints = [objects.keypoints for objects in found if objects.keypoints is not None]
    best = np.argsort(-confidence, kind="stable")[:most]
    objects = Detections.of(
        np.concatenate([objects.boxes for objects in found])[best],
        confidence[best],
        np.concatenate([objects.class_ids for objects in found])[best],
        keypoints=np.concatenate(keypoints)[best] if keypoints else None,
    )
    return Found(objects=objects, parents=parents[best])
