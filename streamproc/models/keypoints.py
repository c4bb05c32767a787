"""Whether a raw output of the YOLO family holds keypoints behind its scores, and how many: its shape does not tell.

56 rows are the box and the 52 classes of a detector, or the box, the one class and the 17 keypoints of a pose model.
What decides is, in this order: what the configuration says, what the exporter wrote down, and how many classes are
named.
"""

from __future__ import annotations

import ast
import logging
from typing import TYPE_CHECKING, Literal

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.models.heads.pose import PoseLayout
from streamproc.models.metadata import names_in

if TYPE_CHECKING:  # a server that runs this has no configuration
    from streamproc.config.model import HeadKind

__all__ = ["pose_layout"]

_log = logging.getLogger(__name__)

_PERSON = PoseLayout(classes=1, keypoints=17, values=3)  # as trained on COCO, which nearly all pose models are


def pose_layout(
    info: ModelInfo, tensor: TensorInfo, names: tuple[str, ...] | None, kind: HeadKind
) -> PoseLayout | None:
    """How a raw output (1, rows, cells) lies if it is a pose model's; None if it is a detector's.

    Args:
        names: of the classes, from the configuration or else from the metadata; None where there are none.
        kind: as configured.

    Raises:
        ModelError: it is a pose model's by the configuration or the metadata, but its rows do not come out even.
    """
    task = info.metadata.get("task")
    if kind == "detector" or (kind == "auto" and task == "detect"):
        return None
    if kind == "pose" or task == "pose" or "kpt_shape" in info.metadata:
        return _stated(info, tensor, names)
    return _guessed(info, tensor, names)


def _stated(info: ModelInfo, tensor: TensorInfo, names: tuple[str, ...] | None) -> PoseLayout:
    """The layout of what is known to be a pose model: with ``kpt_shape`` the rest are classes, else one is a class for
    each name."""
    rows, classes = tensor.shape[1], len(names) if names else 1
    found: PoseLayout | None
    if "kpt_shape" in info.metadata:
        keypoints, values = _keypoint_shape(info)
        found = PoseLayout(classes=rows - 4 - keypoints * values, keypoints=keypoints, values=values)
    else:
        found = _divided(rows, classes)
    if found is None or found.classes < 1:
        said = f" (its metadata says {info.metadata['kpt_shape']})" if "kpt_shape" in info.metadata else ""
        raise ModelError(
            f"model {info.name}: its output {tensor.name} {tensor.shape} is none of a pose model: expected 4 rows for "
            f"the box, one a class ({classes}), and 3 or 2 a keypoint{said}. Correct model.labels, or model.head."
        )
    return found


def _guessed(info: ModelInfo, tensor: TensorInfo, names: tuple[str, ...] | None) -> PoseLayout | None:
    """The layout that an output has by the number of names, where nothing says what the model is for."""
    rows = tensor.shape[1]
    if names is not None and len(names) == rows - 4:
        return None
    own = names_in(info.name, info.metadata)
    left = rows - 4 - len(own or ())
    if own is None and rows == _PERSON.rows and (names is None or len(names) == _PERSON.classes):
        found = _PERSON
    elif own is not None and left > 0 and left % 3 == 0:
        found = PoseLayout(classes=len(own), keypoints=left // 3, values=3)
    else:
        return None
    level = logging.INFO if own or names else logging.WARNING
    _log.log(
        level,
        "model %s: nothing in the file says what it is for. Its output %s is taken for that of a pose model, with "
        "classes: %d, keypoints: %d. If it is a detector, name its %d classes in model.labels, or set model.head: "
        "detector.",
        *(info.name, tensor.shape, found.classes, found.keypoints, rows - 4),
    )
    return found


def _divided(rows: int, classes: int) -> PoseLayout | None:
    left = rows - 4 - classes
    if left > 0 and left % 3 == 0:
        return PoseLayout(classes=classes, keypoints=left // 3, values=3)
    if left > 0 and left % 2 == 0:
        return PoseLayout(classes=classes, keypoints=left // 2, values=2)
    return None


def _keypoint_shape(info: ModelInfo) -> tuple[int, Literal[2, 3]]:
    """How many keypoints there are and how many values each has, by the metadata: ``[17, 3]``."""
    text = info.metadata["kpt_shape"]
    try:
        keypoints, values = ast.literal_eval(text)
        if isinstance(keypoints, int) and keypoints > 0 and isinstance(values, int) and values in (2, 3):
            return keypoints, 2 if values == 2 else 3
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    raise ModelError(
        f"model {info.name}: the kpt_shape in its metadata cannot be used ({text[:60]!r}); expected [keypoints, "
        "values], such as [17, 3], with 2 or 3 values. Export the model again."
    )
