"""What a served cascade does and answers, as whoever builds it, whoever runs it and whoever asks it agree on.

A request brings whole pictures, packed; the answer holds the detector's objects and what the other models said of
them. Each output has as many rows a picture as there may be objects: what is not needed of them is zero, or -1 where it
would be the number of an object.

================================  =====================================================================================
``detections``                    (objects, 6) float32: x1, y1, x2, y2 in pixels of the picture that was sent, upright,
                                  confidence, class; best first
``keypoints``                     (objects, k, 3) float32, where the detector gives some: x, y, confidence
``NAME.looked``                   (parents) int32: 1 for every object that the model was shown
``NAME.parent``                   (rows) int32: which of the objects that it stands on a row is about, -1 for none
``NAME.objects``, ``.keypoints``  as the detector's, of a model that finds objects
``NAME.TENSOR``                   (rows, ...) the model's own output for a crop, of one that says something of it
================================  =====================================================================================

For a model that finds objects, rows are those objects; for one that does not, crops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.packing import packed_shape

__all__ = [
    "DETECTIONS",
    "KEYPOINTS",
    "PICTURES",
    "PLAN_PARAMETER",
    "TASK",
    "ModelPlan",
    "Plan",
    "served_name",
    "tensor_of",
]

PICTURES = "pictures"
"""The one input: a packed picture each; see :mod:`streamproc.packing`."""
DETECTIONS = "detections"
KEYPOINTS = "keypoints"
PLAN_PARAMETER = "cascade"
"""The parameter in the served model's configuration that holds the plan, as JSON."""
TASK = "cascade"
"""The value of its parameter ``task``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """One model of a cascade.

    ``name`` is its key among the models, ``detector`` for the one that sees whole pictures; ``info`` is of the served
    model that does the work, as an engine sees it. ``on``: whose objects it looks at, None for the detector.
    ``finds``: it finds objects, whose classes are ``labels``, and with ``keypoints`` points each; otherwise its outputs
    are handed on as they are. ``head`` is what its configuration calls its kind.

    ``classes``: only objects of these are looked at, None for all. ``crop_expand``, ``crop_min_size`` (pixels) and
    ``crop_straighten`` are as in the configuration. ``most``: objects found in a picture, or crops looked at where it
    finds none, at most. ``max_batch``: pictures or crops in one call. ``version``: of the served model, None for the
    newest that is served.
    """

    name: str
    info: ModelInfo
    head: str
    finds: bool
    most: int
    max_batch: int
    on: str | None = None
    version: int | None = None
    labels: tuple[str, ...] = ()
    keypoints: int = 0
    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 300
    classes: tuple[str, ...] | None = None
    crop_expand: float = 0.0
    crop_min_size: float = 16.0
    crop_straighten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A cascade: pictures of ``size``, (width, height), are not scaled on their way to it; the detector comes first of
    ``models``, and every other one after the one that it stands on."""

    size: tuple[int, int]
    models: tuple[ModelPlan, ...] = field(default=())

    @property
    def detector(self) -> ModelPlan:
        """The model that sees whole pictures."""
        return self.models[0]

    @property
    def secondaries(self) -> tuple[ModelPlan, ...]:
        """The models that look at what another one has found."""
        return self.models[1:]

    @property
    def is_straight(self) -> bool:
        """Whether it is the detector alone, or the detector and one model that says something of its objects."""
        return len(self.secondaries) <= 1 and not any(model.finds for model in self.secondaries)

    def model(self, name: str) -> ModelPlan:
        """The model of that name; KeyError where there is none."""
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(name)

    @property
    def pictures(self) -> TensorInfo:
        """The tensor of a request, for one picture, without a batch."""
        return TensorInfo(name=PICTURES, dtype="uint8", shape=packed_shape(self.size))

    def outputs(self) -> tuple[TensorInfo, ...]:
        """The tensors of the answer, for one picture, without a batch."""
        return tuple(self._outputs())

    def _outputs(self) -> Iterator[TensorInfo]:
        yield TensorInfo(name=DETECTIONS, dtype="float32", shape=(self.detector.most, 6))
        if self.detector.keypoints:
            yield TensorInfo(name=KEYPOINTS, dtype="float32", shape=(self.detector.most, self.detector.keypoints, 3))
        for model in self.secondaries:
            assert model.on is not None
            parents = self.model(model.on).most
            yield TensorInfo(name=tensor_of(model, "looked"), dtype="int32", shape=(parents,))
            yield TensorInfo(name=tensor_of(model, "parent"), dtype="int32", shape=(model.most,))
            if not model.finds:
                for tensor in model.info.outputs:
                    shape = (model.most, *tensor.shape[1:])
                    yield TensorInfo(name=tensor_of(model, tensor.name), dtype=tensor.dtype, shape=shape)
                continue
            yield TensorInfo(name=tensor_of(model, "objects"), dtype="float32", shape=(model.most, 6))
            if model.keypoints:
                shape = (model.most, model.keypoints, 3)
                yield TensorInfo(name=tensor_of(model, KEYPOINTS), dtype="float32", shape=shape)

    def to_json(self) -> str:
        """The plan as text; :meth:`from_json` reads it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that :meth:`to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the text is no plan, or one of another version.
        """
        told = json.loads(text)
        return cls(size=tuple(told["size"]), models=tuple(_model(one) for one in told["models"]))


def served_name(detector: str) -> str:
    """The served cascade's name, by that of its detector.

    >>> served_name("yolov8n")
    'yolov8n_cascade'
    """
    return f"{detector}_cascade"


def tensor_of(model: ModelPlan, tensor: str) -> str:
    """What one of a model's tensors is called in the answer."""
    return f"{model.name}.{tensor}"


def _model(told: Mapping[str, Any]) -> ModelPlan:
    classes = told["classes"]
    plan = ModelPlan(**{**told, "info": _info(told["info"]), "labels": tuple(told["labels"])})
    return replace(plan, classes=None if classes is None else tuple(classes))


def _info(told: Mapping[str, Any]) -> ModelInfo:
    tensors = {key: tuple(_tensor(one) for one in told[key]) for key in ("inputs", "outputs")}
    return ModelInfo(**{**told, **tensors, "size": tuple(told["size"])})


def _tensor(told: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(**{**told, "shape": tuple(told["shape"])})
