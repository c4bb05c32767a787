"""Class names: the 80 of COCO, and label files.

The order of ``COCO_80`` is that of the COCO 2017 detection task (cocodataset.org), which pre-trained detectors share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from streamproc.errors import ModelError

__all__ = ["COCO_80", "read_labels", "resolve_labels"]

COCO_80: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names of a UTF-8 text file, one a line in class-id order; blank lines and ``#`` lines are left out.

    Raises :class:`ModelError` when the file cannot be read or names no class.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ModelError(f"labels file {path} cannot be read: {exc}. Name a UTF-8 text file, one class a line") from exc
    labels = tuple(name for line in lines if (name := line.strip()) and not name.startswith("#"))
    if not labels:
        raise ModelError(f"labels file {path} names no class. Write one class name a line, in class-id order")
    return labels


def resolve_labels(labels: Literal["coco"] | Path | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The class names that ``model.labels`` stands for; None when the model's own metadata has to name them.

    Raises :class:`ModelError` as :func:`read_labels` does.
    """
    if labels == "coco":
        return COCO_80
    if isinstance(labels, Path):
        return read_labels(labels)
    return labels
