"""The contents of a served model around an existing TensorRT plan, which does not tell its tensors by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.labels import resolve_labels
from streamproc.repository.config_pbtxt import MODEL_FILES
from streamproc.repository.contents import Contents, described, origin_of
from streamproc.repository.dependencies import needing_onnx
from streamproc.repository.heads import recognise_served
from streamproc.repository.options import BuildOptions
from streamproc.repository.plans import Plan, check_plan, copy_plan, read_plan

__all__ = ["from_plan", "tensors_of_plan"]


def from_plan(path: Path, name: str, options: BuildOptions) -> Contents:
    """A served model from an existing plan, its tensors told by the file's own metadata or by ``options.onnx``.

    Raises:
        ModelError: it is no plan, the server cannot load it, or nothing tells its tensors.
    """
    plan = read_plan(path)
    notes = check_plan(
        plan,
        tensorrt_version=options.tensorrt_version,
        compute_capability=options.compute_capability,
        built_on=options.plan_compute_capability,
    )
    info, batch = _told_by_source(options.onnx, name, options) if options.onnx else tensors_of_plan(plan, name)
    head = recognise_served(info, resolve_labels(options.labels), options.head)
    return Contents(
        kind=head.name,
        labels=head.labels,
        inputs=info.inputs,
        outputs=info.outputs,
        max_batch=batch,
        parameters=described(info.metadata, head),
        origin=origin_of(path, "the plan's own") | {"tensorrt_version": plan.tensorrt_version or "unknown"},
        verified=(),
        notes=notes,
        to_do=None,
        write=lambda folder, _: copy_plan(plan, folder / MODEL_FILES["tensorrt"]),
    )


def tensors_of_plan(plan: Plan, name: str) -> tuple[ModelInfo, int]:
    """The tensors of a plan that Ultralytics exported, by its metadata, and the largest batch, 0 where it is fixed.

    The first dimension is -1 where the batch is open. The names and types are the exporter's own for detectors:
    ``images`` and ``output0``, float32.

    Raises:
        ModelError: there is no such metadata, or it does not tell enough.
    """
    told = plan.metadata
    size, names = told.get("imgsz"), told.get("names")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise ModelError(
            f"plan {plan.path}: nothing tells its tensors, as it has no exporter's metadata in front, or none with "
            "imgsz. Name the ONNX file that it was built from (onnx)."
        )
    if not names:
        raise ModelError(
            f"plan {plan.path}: its metadata names no classes. Name the ONNX file it was built from (onnx)."
        )
    arguments = told.get("args")
    arguments = arguments if isinstance(arguments, dict) else {}
    height, width = size
    open_batch = bool(arguments.get("dynamic", told.get("dynamic", False)))
    cells = sum(math.ceil(height / stride) * math.ceil(width / stride) for stride in (8, 16, 32))
    own_suppression = bool(arguments.get("nms", told.get("nms", False)) or told.get("end2end", False))
    first = -1 if open_batch else _told_batch(plan)
    shape = (first, 300, 6) if own_suppression else (first, 4 + len(names) + _keypoint_rows(told), cells)
    info = ModelInfo(
        name=name,
        size=(width, height),
        inputs=(TensorInfo(name="images", dtype="float32", shape=(first, 3, height, width)),),
        outputs=(TensorInfo(name="output0", dtype="float32", shape=shape),),
        metadata={key: str(value) for key, value in told.items()},
    )
    return info, _told_batch(plan) if open_batch else 0


def _keypoint_rows(told: Mapping[str, Any]) -> int:
    """How many rows keypoints take behind the classes. What is no shape is refused when the model is recognised."""
    shape = told.get("kpt_shape")
    return math.prod(shape) if isinstance(shape, list) and all(isinstance(side, int) for side in shape) else 0


def _told_batch(plan: Plan) -> int:
    """The batch that a plan was exported for, the largest where it is open."""
    batch = plan.metadata.get("batch")
    return batch if isinstance(batch, int) and batch > 0 else 1


def _told_by_source(path: Path, name: str, options: BuildOptions) -> tuple[ModelInfo, int]:
    """The same, from the ONNX file that a plan was built from."""
    with needing_onnx("models build"):
        from streamproc.repository.source import read_source
    source = read_source(path, name=name, size=options.size, max_batch=options.max_batch, kind=options.head)
    width, height = source.intake.size
    picture = (3, height, width) if source.intake.channels_first else (height, width, 3)
    first = source.fixed_batch or -1
    taken = TensorInfo(name=source.intake.tensor, dtype=source.intake.dtype, shape=(first, *picture))
    given = tuple(replace(tensor, shape=(first, *tensor.shape[1:])) for tensor in source.info.outputs)
    return replace(source.info, inputs=(taken,), outputs=given), source.max_batch
