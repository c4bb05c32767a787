"""A served cascade without a server: its plan, its answers written down or computed, and an engine that gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.repository.cascades import plan_of_config
from streamproc.repository.config_pbtxt import read_config
from streamproc.serving.answer import blank
from streamproc.serving.plan import DETECTIONS, PLAN_PARAMETER, ModelPlan, Plan, served_name, tensor_of
from streamproc.types import Fit

__all__ = ["CANVAS", "CARS", "PLATES", "SHADES", "Object", "answer", "built_plan", "cascade_info", "finder", "reader"]

CANVAS = (400, 200)
CARS, PLATES, SHADES = ("person", "car"), ("plate",), ("dark", "bright")

Object: TypeAlias = tuple[float, float, float, float, float, int]
"""x1, y1, x2, y2 on the canvas, confidence, class."""


def finder(name: str = "detector", on: str | None = None, *, labels: Sequence[str] = CARS, **keys: Any) -> ModelPlan:
    """A model that finds objects end to end, in pictures of 64 x 64."""
    names = str(dict(enumerate(labels)))
    return _model(name, on, "boxes", (1, 8, 6), {"names": names}, finds=True, labels=tuple(labels), **keys)


def reader(name: str, on: str = "detector", *, tensor: str = "scores", outputs: int = 2, **keys: Any) -> ModelPlan:
    """A model that says numbers of a crop; with a name for each, as a classifier's."""
    names = {"names": str(dict(enumerate(SHADES)))} if outputs == len(SHADES) else {}
    return _model(name, on, tensor, (1, outputs), names, finds=False, **keys)


def _model(name: str, on: str | None, tensor: str, shape: tuple[int, ...], metadata: Any, **keys: Any) -> ModelPlan:
    fit: Fit = "letterbox" if keys["finds"] else "stretch"
    info = ModelInfo(
        name=f"served_{name}",
        size=(64, 64),
        inputs=(TensorInfo(name="images", dtype="uint8", shape=(-1, 64, 64, 3)),),
        outputs=(TensorInfo(name=tensor, dtype="float32", shape=shape),),
        metadata=metadata,
        fit=fit,
    )
    return ModelPlan(**{"name": name, "on": on, "info": info, "head": "auto", "most": 4, "max_batch": 4} | keys)


def cascade_info(plan: Plan, *, told: str | None = None) -> ModelInfo:
    """The served cascade as an engine sees it; ``told``: its parameter, where that is not to be its plan."""
    rows, width, _ = plan.pictures.shape
    return ModelInfo(
        name="served_detector_cascade",
        size=(width, rows),
        inputs=(replace(plan.pictures, shape=(-1, *plan.pictures.shape)),),
        outputs=tuple(TensorInfo(name=one.name, dtype=one.dtype, shape=(1, *one.shape)) for one in plan.outputs()),
        metadata={"task": "cascade", PLAN_PARAMETER: plan.to_json() if told is None else told},
    )


def built_plan(repository: Path, detector: str) -> Plan:
    """The plan of the cascade that a repository has for a detector."""
    plan = plan_of_config(read_config(repository / served_name(detector) / "config.pbtxt"))
    assert plan is not None
    return plan


def answer(plan: Plan, found: Sequence[Object], **said: Mapping[int, Sequence[Any]]) -> dict[str, NDArray[Any]]:
    """An answer for one picture: what the detector has found, and by each model's name what it says of the objects that
    it was shown, by their numbers: the objects in one, or a row of its output and no more."""
    tensors = blank(plan, 1)
    tensors[DETECTIONS][0, : len(found)] = np.reshape(found, (-1, 6))
    for name, about in said.items():
        model = plan.model(name)
        rows = [(parent, row) for parent, rows in about.items() for row in rows]
        if model.finds:
            rows.sort(key=lambda one: -one[1][4])
        tensors[tensor_of(model, "looked")][0, list(about)] = 1
        tensor = tensor_of(model, "objects" if model.finds else model.info.outputs[0].name)
        for index, (parent, row) in enumerate(rows):
            tensors[tensor_of(model, "parent")][0, index] = parent
            tensors[tensor][0, index] = row
    return tensors
