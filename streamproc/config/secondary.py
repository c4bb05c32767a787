"""Models that look at what another one has found: ``models`` of ``cameras.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator

from streamproc.config.fields import Limit, MaxBatch, Name, Section, surroundings
from streamproc.config.files import find_file
from streamproc.config.model import ModelConfig
from streamproc.config.refusals import RefusedError, did_you_mean

__all__ = ["DETECTOR", "CropConfig", "PerTrackConfig", "SecondaryConfig", "check_graph"]

DETECTOR: Final = "detector"
"""The name by which ``on`` means the model of the section ``model``."""

_TEXT_ONLY = ("alphabet", "blank", "beam")
_STRIDE = 32  # of the coarsest feature map of most detectors; what looks at a whole picture takes other sizes, too

_AnySide: TypeAlias = Annotated[int, Field(ge=8, le=4096)]


class CropConfig(Section):
    """Which part of the picture a secondary model sees."""

    expand: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Grows the object's box, or what its corners enclose, by this share of its width and height, all "
        "around.",
    )
    min_size: float = Field(
        default=16.0, ge=1, le=4096, description="Objects whose shorter side has fewer pixels are left alone."
    )
    straighten: bool = Field(
        default=False,
        description="true shows what an object's four corners enclose as if it were seen from the front, filling the "
        "input as fit says: for objects of a detector that gives corners, such as plates and texts.",
    )


class PerTrackConfig(Section):
    """How often a model looks at one object."""

    vote: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Looks at a new object as soon as there is room; the answer is what the last so many say together.",
    )
    refresh_s: float = Field(default=2.0, gt=0, le=86_400, description="Seconds between two looks after these.")


class SecondaryConfig(ModelConfig):
    """A model on the crops of objects."""

    on: Name = Field(
        default=DETECTOR,
        description="Whose objects it looks at: detector, or the name of another of these models that finds objects.",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Only objects of these classes; left out, all.",
        examples=[["car", "truck", "bus"]],
    )
    crop: CropConfig = Field(default_factory=CropConfig, description="Which part of the picture it sees.")
    head: Literal["auto", "detector", "pose", "classifier", "ctc", "embedding"] = Field(  # type: ignore[assignment]
        default="auto",
        description="What it tells: objects (pose: with keypoints), a class, a text (ctc), or an embedding; auto goes "
        "by its outputs.",
        examples=["ctc"],
    )
    size: tuple[_AnySide, _AnySide] | None = Field(
        default=None,
        description="Width and height of the model's input, for a model that leaves them open; multiples of 32 for one "
        "that finds objects; left out, 640 x 640.",
        examples=[[192, 48]],
    )
    top: int = Field(default=1, ge=1, le=100, description="Classes told, the most probable first. Classifiers only.")
    alphabet: str | tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="The characters of a text model, in the order of its outputs, without the blank.",
        examples=["0123456789ABEKMHOPCTYX"],
    )
    blank: Literal["first", "last"] = Field(
        default="last", description="Where the blank stands among the outputs of a text model."
    )
    rectify: Path | None = Field(
        default=None,
        description="An ONNX model that straightens the picture for this one, which must be ONNX too: pictures in, "
        "pictures of the same kind out. Not with engine.kind: triton.",
        examples=["stn.onnx"],
    )
    beam: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Width of a beam search over texts; left out, the best character at each step is taken.",
        examples=[10],
    )
    publish: bool = Field(default=False, description="true puts embeddings into the messages; they are long.")
    per_track: PerTrackConfig | None = Field(
        default=None,
        description="How often it looks at one object; left out, often enough for the models on its own objects, or "
        "3 times and then every 2 s.",
    )
    every_s: float = Field(
        default=0.0, ge=0, le=86_400, description="Seconds between two looks at one object, at least."
    )
    max_batch: MaxBatch = Field(
        default="auto",
        description="Crops in one inference at most, 1 to 256, or auto: what engine.max_batch says, and where that is "
        "auto as well, up to 8 small ones with Triton.",
    )
    max_waiting: Limit = Field(
        default=32,
        description="Objects that may wait for it, of all cameras, or with cascade: server of one picture; more are "
        "left out, and counted.",
    )

    @field_validator("rectify")
    @classmethod
    def _can_be_joined(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        around = surroundings(info)
        if value is None or around is None:
            return value
        if around.engine_kind == "triton":
            remedy = "Remove it, and serve both models as one: streamproc models build --ensemble."
            raise RefusedError(expected="no rectify with engine.kind: triton", remedy=remedy)
        path = info.data.get("path")
        if path is not None and path.suffix != ".onnx":
            remedy = "Name the .onnx file in path, or remove rectify."
            raise RefusedError(expected="rectify only with a model in an .onnx file", remedy=remedy)
        found = find_file(str(value), around.folder, "an ONNX model")
        if found.suffix != ".onnx":
            raise RefusedError(expected="an .onnx file", remedy="Export the model to ONNX, and name that file.")
        return found

    @field_validator("size")
    @classmethod
    def _fits_detectors(cls, value: tuple[int, int] | None, info: ValidationInfo) -> tuple[int, int] | None:
        head = info.data.get("head")
        if value is not None and head in ("detector", "pose") and any(side % _STRIDE for side in value):
            near = [max(_STRIDE, round(side / _STRIDE) * _STRIDE) for side in value]
            raise RefusedError(
                expected=f"multiples of {_STRIDE} with head: {head}", remedy=f"Write, for example, size: {near}."
            )
        return value

    @field_validator(*_TEXT_ONLY)
    @classmethod
    def _is_text(cls, value: object, info: ValidationInfo) -> object:
        key = info.field_name or ""
        if value != cls.model_fields[key].default and info.data.get("head") not in ("ctc", "auto"):
            raise RefusedError(expected=f"{key} only with head: ctc", remedy=f"Write head: ctc, or remove {key}.")
        return value


def check_graph(models: Mapping[str, SecondaryConfig]) -> Mapping[str, SecondaryConfig]:
    """Refuse names that nothing has, and circles."""
    for name, model in models.items():
        if name == DETECTOR:
            remedy = "Choose another name: this one means the model of the section model."
            raise RefusedError(found=f"a model named {DETECTOR}", expected="another name", remedy=remedy)
        if model.on != DETECTOR and model.on not in models:
            known = [DETECTOR, *models]
            remedy = did_you_mean(model.on, known) or f"Write on: {DETECTOR}, or name one of the models."
            raise RefusedError(found=f"{name} on {model.on!r}", expected=f"one of {', '.join(known)}", remedy=remedy)
        seen, at = {name}, model.on
        while at != DETECTOR:
            if at in seen:
                remedy = f"Let one of them stand on {DETECTOR}."
                raise RefusedError(found=f"{name} on itself, through others", expected="no circle", remedy=remedy)
            seen.add(at)
            at = models[at].on
        parent = models.get(model.on)
        if parent is not None and parent.head not in ("auto", "detector", "pose"):
            remedy = f"Let {name} stand on {DETECTOR} or on a model that finds objects."
            raise RefusedError(found=f"{name} on {model.on}, which finds no objects", expected="objects", remedy=remedy)
    return models
