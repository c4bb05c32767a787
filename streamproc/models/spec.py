"""Which kind of detector a loaded model is, seen from its tensors, and what its classes are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from streamproc.config import CameraConfig, ModelConfig
from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.models.heads import Decoder, Thresholds
from streamproc.models.heads.yolo import EndToEndDecoder, ObjectnessDecoder, RawDecoder
from streamproc.models.metadata import names_in
from streamproc.types import Detections, Letterbox

__all__ = ["Head", "Thresholds", "recognise"]

_log = logging.getLogger(__name__)

# Strides of the feature maps that boxes come from: usual, with a map for small objects, with one for large ones.
_STRIDES = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
_ANCHORS = 3  # boxes a cell in the models with objectness
_COCO_CLASSES = 80

MakeDecoder: TypeAlias = Callable[[str, int], Decoder]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How to read a model's outputs; ``labels`` names its classes, one for each class id."""

    labels: tuple[str, ...]
    decoder: Decoder

    @property
    def name(self) -> str:
        """The kind of output, for people."""
        return self.decoder.name

    def thresholds(self, model: ModelConfig, camera: CameraConfig) -> Thresholds:
        """What counts as a detection for one camera: its own settings where it has some, the model's otherwise."""
        wanted = camera.classes
        return Thresholds(
            confidence=model.confidence if camera.confidence is None else camera.confidence,
            iou=model.iou if camera.iou is None else camera.iou,
            class_ids=None if wanted is None else frozenset(i for i, name in enumerate(self.labels) if name in wanted),
            max_detections=model.max_detections if camera.max_detections is None else camera.max_detections,
        )

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], row: int, letterbox: Letterbox, thresholds: Thresholds
    ) -> Detections:
        """The detections of one picture of a batch, in source pixels, best first. Safe from every thread."""
        return self.decoder.decode(outputs, row, letterbox, thresholds)


def recognise(info: ModelInfo, labels: tuple[str, ...] | None = None) -> Head:
    """The head that reads a model's outputs; the first output that fits one counts.

    ``labels`` from the configuration go before those in the model's metadata.

    Raises:
        ModelError: the model is no detector of a supported kind, or the labels do not fit its classes.
    """
    task = info.metadata.get("task", "detect")
    if task != "detect":
        raise _unsupported(info, f"its metadata says that its task is {task!r}")
    if _has_masks(info):
        raise _unsupported(info, "it has mask prototypes: it is a segmentation model")
    for tensor in info.outputs:
        found = _match(tensor, info.size)
        if found is not None:
            make, classes = found
            names = labels or names_in(info.name, info.metadata)
            agreed = _agree(info, tensor, names, classes)
            return Head(labels=agreed, decoder=make(tensor.name, len(agreed)))
    raise _unsupported(info, _guess(info))


def _match(tensor: TensorInfo, size: tuple[int, int]) -> tuple[MakeDecoder, int | None] | None:
    """The decoder for an output and the number of its classes, None where the output does not tell."""
    if len(tensor.shape) != 3:
        return None
    _, rows, columns = tensor.shape
    cells = _cells(size)
    if columns in cells and rows > 4:
        return RawDecoder, rows - 4
    if rows in {_ANCHORS * count for count in cells} and columns > 5:
        return ObjectnessDecoder, columns - 5
    if columns == 6 and rows not in cells:
        return EndToEndDecoder, None
    return None


def _cells(size: tuple[int, int]) -> set[int]:
    """How many cells the feature maps have together, for each set of strides.

    >>> 8400 in _cells((640, 640))
    True
    """
    width, height = size
    return {sum(-(-width // stride) * -(-height // stride) for stride in strides) for strides in _STRIDES}


def _has_masks(info: ModelInfo) -> bool:
    """Whether there is a tensor of mask prototypes, (batch, k, height / 4, width / 4), beside the boxes."""
    width, height = info.size
    flat = any(len(tensor.shape) == 3 for tensor in info.outputs)
    return flat and any(tensor.shape[2:] == (height // 4, width // 4) for tensor in info.outputs)


def _agree(info: ModelInfo, tensor: TensorInfo, names: tuple[str, ...] | None, classes: int | None) -> tuple[str, ...]:
    if names is None:
        if classes is None:
            raise ModelError(
                f"model {info.name}: neither its metadata nor its output {tensor.name} {tensor.shape} tells its "
                "classes. Set model.labels (labels: coco for the 80 classes of COCO)."
            )
        remedy = "labels: coco" if classes == _COCO_CLASSES else "model.labels to name them"
        _log.warning("model %s: its %d classes have no names; set %s", info.name, classes, remedy)
        return tuple(f"class{number}" for number in range(classes))
    if classes is not None and len(names) != classes:
        raise ModelError(
            f"model {info.name}: its output {tensor.name} {tensor.dtype} {tensor.shape} holds {classes} classes, but "
            f"{len(names)} are named ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}). "
            "Correct model.labels; if the names are the model's own, it is no detection model (pose, segmentation and "
            "rotated boxes are not supported)."
        )
    return names


def _guess(info: ModelInfo) -> str:
    cells = _cells(info.size)
    for tensor in info.outputs:
        if len(tensor.shape) == 3 and tensor.shape[1] in cells and tensor.shape[2] > 5:
            return "this looks like YOLOX or a transposed output, whose boxes the model leaves undecoded"
        if len(tensor.shape) == 2:
            return "this looks like a classifier or an embedding"
    return "no output fits"


def _unsupported(info: ModelInfo, reason: str) -> ModelError:
    tensors = "; ".join(
        f"{role} {', '.join(f'{tensor.name} {tensor.dtype} {tensor.shape}' for tensor in group)}"
        for role, group in (("inputs", info.inputs), ("outputs", info.outputs))
    )
    width, height = info.size
    count = min(_cells(info.size))
    return ModelError(
        f"model {info.name}: not supported: {reason}. It has {tensors}. At {width}x{height} one output must be "
        f"(1, 4 + classes, {count}) as of YOLOv8 and later, (1, {_ANCHORS * count}, 5 + classes) as of YOLOv5, or "
        "(1, n, 6) end-to-end. Export a detection model of one of these kinds."
    )
