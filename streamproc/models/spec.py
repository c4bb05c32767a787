"""Which kind of detector a loaded model is, seen from its tensors, and what its classes are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import NDArray

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.grids import ANCHORS, cells, grids_of, is_yolox
from streamproc.models.heads import Decoder, Thresholds
from streamproc.models.heads.pose import PoseDecoder, PoseLayout
from streamproc.models.heads.retinaface import RetinaFaceDecoder
from streamproc.models.heads.text_regions import TextRegionsDecoder
from streamproc.models.heads.yolo import EndToEndDecoder, ObjectnessDecoder, RawDecoder
from streamproc.models.heads.yolox import YoloxDecoder
from streamproc.models.keypoints import pose_layout
from streamproc.models.metadata import names_in
from streamproc.types import Detections, Letterbox

if TYPE_CHECKING:  # a server that runs this has no configuration
    from streamproc.config import CameraConfig, ModelConfig
    from streamproc.config.model import HeadKind

__all__ = ["Head", "Thresholds", "recognise"]

_log = logging.getLogger(__name__)

_COCO_CLASSES = 80
_RAW_POSE_ONLY = "of a pose model only the raw output can be read, with no suppression in it (nms, end2end)"

MakeDecoder: TypeAlias = Callable[[str, int], Decoder]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How to read a model's outputs; ``labels`` names its classes, one for each class id.

    ``pose``: how its keypoints lie, None where it gives none.
    """

    labels: tuple[str, ...]
    decoder: Decoder
    pose: PoseLayout | None = None

    @property
    def name(self) -> str:
        """The kind of output, for people."""
        return self.decoder.name

    @property
    def metadata(self) -> dict[str, str]:
        """What an exporter would write for the model to be recognised as it is now: ``names``, ``task``, ...

        >>> Head(labels=("person",), decoder=RawDecoder("output0", 1)).metadata
        {'names': "{0: 'person'}", 'task': 'detect'}
        """
        found = {"names": str(dict(enumerate(self.labels))), "task": "detect" if self.pose is None else "pose"}
        if self.pose is not None:
            found["kpt_shape"] = str([self.pose.keypoints, self.pose.values])
        return found

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


def recognise(info: ModelInfo, labels: tuple[str, ...] | None = None, *, kind: HeadKind = "auto") -> Head:
    """The head that reads a model's outputs; the first output that fits one counts.

    ``labels`` and ``kind`` from the configuration go before what the model's metadata says.

    Raises:
        ModelError: the model is no detector of a supported kind, or the labels do not fit its classes.
    """
    task = info.metadata.get("task", "detect")
    if task not in ("detect", "pose"):
        raise _unsupported(info, f"its metadata says that its task is {task!r}")
    if _has_masks(info):
        raise _unsupported(info, "it has mask prototypes: it is a segmentation model")
    corners = RetinaFaceDecoder.matching(info.outputs, info.size)
    if corners is not None:
        plate = labels or names_in(info.name, info.metadata) or ("plate",)
        return Head(labels=_agree(info, info.outputs[0], plate, 1), decoder=corners)
    texts = TextRegionsDecoder.matching(info.outputs, info.size)
    if texts is not None and kind != "pose":
        text = labels or names_in(info.name, info.metadata) or ("text",)
        return Head(labels=_agree(info, info.outputs[0], text, 1), decoder=texts)
    for tensor in info.outputs:
        found = _match(tensor, info.size)
        if found is not None:
            make, classes = found
            names = labels or names_in(info.name, info.metadata)
            if make is RawDecoder:
                pose = pose_layout(info, tensor, names, kind)
                if pose is not None:
                    return _pose_head(info, tensor, names, pose)
            elif kind == "pose" or (kind, task) == ("auto", "pose"):
                raise _unsupported(info, _RAW_POSE_ONLY)
            if is_yolox(tensor.shape, info.size) and names and len(names) == tensor.shape[2] - 4:
                raise _unsupported(info, "this looks like the output of YOLOv8 and later, transposed")
            agreed = _agree(info, tensor, names, classes)
            return Head(labels=agreed, decoder=make(tensor.name, len(agreed)))
    raise _unsupported(info, _guess(info))


def _pose_head(info: ModelInfo, tensor: TensorInfo, names: tuple[str, ...] | None, layout: PoseLayout) -> Head:
    """The head of a pose model; one class without a name is that of persons, as in nearly all of them."""
    if names is None and layout.classes == 1:
        names = ("person",)
    if names is not None and len(names) != layout.classes:
        raise ModelError(
            f"model {info.name}: its output {tensor.name} {tensor.shape} is that of a pose model, with classes: "
            f"{layout.classes}, keypoints: {layout.keypoints}, but {len(names)} classes are named ({_some(names)}). "
            "Correct model.labels, or set model.head: detector."
        )
    labels = _agree(info, tensor, names, layout.classes)
    return Head(labels=labels, decoder=PoseDecoder(tensor.name, layout), pose=layout)


def _match(tensor: TensorInfo, size: tuple[int, int]) -> tuple[MakeDecoder, int | None] | None:
    """The decoder for an output and the number of its classes, None where the output does not tell."""
    if len(tensor.shape) != 3:
        return None
    _, rows, columns = tensor.shape
    counts = cells(size)
    if columns in counts and rows > 4:
        return RawDecoder, rows - 4
    if rows in {ANCHORS * count for count in counts} and columns > 5:
        return ObjectnessDecoder, columns - 5
    if is_yolox(tensor.shape, size):
        return partial(YoloxDecoder, grids=grids_of(rows, size)), columns - 5
    if columns == 6:
        return EndToEndDecoder, None
    return None


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
            f"{len(names)} are named ({_some(names)}). "
            "Correct model.labels, or set model.head: pose if there are keypoints behind the classes; if the names are "
            "the model's own, it is no detection model (segmentation and rotated boxes are not supported)."
        )
    return names


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _guess(info: ModelInfo) -> str:
    if info.metadata.get("task") == "pose":
        return _RAW_POSE_ONLY
    for tensor in info.outputs:
        if len(tensor.shape) == 2:
            return "this looks like a classifier or an embedding"
    return "no output fits"


def _unsupported(info: ModelInfo, reason: str) -> ModelError:
    tensors = "; ".join(
        f"{role} {', '.join(f'{tensor.name} {tensor.dtype} {tensor.shape}' for tensor in group)}"
        for role, group in (("inputs", info.inputs), ("outputs", info.outputs))
    )
    width, height = info.size
    count = min(cells(info.size))
    return ModelError(
        f"model {info.name}: not supported: {reason}. It has {tensors}. At {width}x{height} one output must be "
        f"(1, 4 + classes, {count}) as of YOLOv8 and later, with 3 rows more a keypoint as of their pose models, "
        f"(1, {ANCHORS * count}, 5 + classes) as of YOLOv5, "
        f"(1, {count}, 5 + classes) as of YOLOX, (1, n, 6) end-to-end, or (1, 1, {height}, {width}) as of text "
        "detectors. Export a detection model of such a kind."
    )
