"""How well a detector does on pictures whose objects are known: mAP by pycocotools."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import Engine
from streamproc.errors import DependencyError, ModelError
from streamproc.models.heads import Thresholds
from streamproc.models.spec import Head
from streamproc.repository.pictures import Sample, read_samples
from streamproc.types import Detections

__all__ = ["Accuracy", "LabelledSet", "read_labelled", "score"]

# What mAP is published with: everything that is at all likely counts, ranked.
_THRESHOLDS = Thresholds(confidence=0.001, iou=0.65, class_ids=None, max_detections=300)
_FOLDERS = (".", "images")  # where pictures lie beside their annotations


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Mean average precision, 0..1, over ``pictures``: at IoU 0.50 to 0.95, and at 0.50."""

    map50_95: float
    map50: float
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """Pictures by the number that their annotations give them, the ``truth`` as pycocotools holds it, and the numbers
    of categories by name."""

    path: Path
    pictures: Mapping[int, Path]
    truth: Any
    categories: Mapping[str, int]


def read_labelled(place: Path) -> LabelledSet:
    """A set in COCO's form: a .json file of annotations, or a folder with just one; its pictures beside it, or in a
    folder ``images`` there.

    Raises:
        DependencyError: pycocotools is not installed.
        ModelError: it is no such set, or its pictures are missing.
    """
    try:
        from pycocotools.coco import COCO
    except ModuleNotFoundError as exc:
        raise DependencyError(
            "measuring accuracy needs the Python package pycocotools, which is not installed. "
            "Run: pip install 'streamproc[int8]'"
        ) from exc
    path = _annotations(place)
    try:
        content = json.loads(path.read_bytes())
        names = {int(picture["id"]): str(picture["file_name"]) for picture in content["images"]}
        categories = {str(category["name"]): int(category["id"]) for category in content["categories"]}
        truth = COCO()
        truth.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelError(
            f"labelled set {path}: these are no annotations in COCO's form: {exc!r}. Name others."
        ) from exc
    pictures = {number: _picture(path, name) for number, name in sorted(names.items())}
    if not pictures or not truth.anns:
        raise ModelError(f"labelled set {path}: it has {len(pictures)} pictures and {len(truth.anns)} objects.")
    return LabelledSet(path=path, pictures=pictures, truth=truth, categories=categories)


async def score(engine: Engine, head: Head, labelled: LabelledSet) -> Accuracy:
    """Detect the objects of every picture, and hold them against the truth.

    Raises:
        ModelError: the set names none of the model's classes, or a picture cannot be read.
        EngineError: an inference failed.
    """
    known = [labelled.categories.get(label, -1) for label in head.labels]
    if max(known) < 0:
        shown = ", ".join(sorted(labelled.categories)[:5])
        raise ModelError(
            f"labelled set {labelled.path}: its categories ({shown}, ...) are none of the model's classes "
            f"({', '.join(head.labels[:5])}, ...). Name the classes with --labels, or another set."
        )
    found: list[NDArray[np.float64]] = []
    waiting = iter(labelled.pictures.items())

    async def work() -> None:
        for number, path in waiting:
            samples = read_samples([path], engine.info.size, engine.info.fit)
            (sample,) = await asyncio.to_thread(list[Sample], samples)
            async with engine.lease() as slot:
                slot.images[0] = sample.image
                outputs = await engine.infer(slot, 1)
                found.append(_rows(number, head.decode(outputs, 0, sample.letterbox, _THRESHOLDS), known))

    async with asyncio.TaskGroup() as tasks:
        for number in range(engine.slots):
            tasks.create_task(work(), name=f"score {number}")
    return await asyncio.to_thread(_evaluate, labelled, np.vstack(found))


def _rows(number: int, detections: Detections, known: list[int]) -> NDArray[np.float64]:
    """(n, 7): picture, x, y, width, height, score, category, as pycocotools takes them."""
    categories = np.array(known)[detections.class_ids]
    boxes = detections.boxes.astype(np.float64)
    columns = (
        np.full(len(boxes), number),
        boxes[:, :2],
        boxes[:, 2:] - boxes[:, :2],
        detections.confidence,
        categories,
    )
    return np.column_stack(columns)[categories >= 0]


def _evaluate(labelled: LabelledSet, rows: NDArray[np.float64]) -> Accuracy:
    from pycocotools.cocoeval import COCOeval

    pictures = len(labelled.pictures)
    if not len(rows):
        return Accuracy(map50_95=0.0, map50=0.0, pictures=pictures)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table of its own
        evaluation = COCOeval(labelled.truth, labelled.truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Accuracy(map50_95=float(evaluation.stats[0]), map50=float(evaluation.stats[1]), pictures=pictures)


def _annotations(place: Path) -> Path:
    if place.is_file():
        return place
    files = sorted(place.glob("*.json"))
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise ModelError(
            f"labelled set {place}: expected a .json file with annotations in COCO's form, or a folder with just one; "
            f"found {found}. Name the file."
        )
    return files[0]


def _picture(annotations: Path, name: str) -> Path:
    for folder in _FOLDERS:
        path = annotations.parent / folder / name
        if path.is_file():
            return path
    raise ModelError(
        f"labelled set {annotations}: its picture {name} is neither beside it nor in images/. Copy the pictures there."
    )
