"""A model's section of ``cameras.yaml``: where it is, what it gives, and which pictures it wants."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from streamproc.config.fields import Labels, Limit, Ratio, Section, Side, surroundings
from streamproc.config.files import find_model
from streamproc.config.pixels import PixelsConfig
from streamproc.config.refusals import RefusedError
from streamproc.errors import ModelError

__all__ = ["HeadKind", "ModelConfig"]

HeadKind: TypeAlias = Literal["auto", "detector", "pose"]


class ModelConfig(Section):
    """The detector."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["path"]}, {"required": ["name"]}]})

    path: Path | None = Field(
        default=None,
        validate_default=True,
        description="An ONNX model, or an OpenVINO .xml with its .bin beside it. Looked up next to the configuration "
        "file, then in the working directory. A Triton server has its own: name it with model.name.",
        examples=["yolov8n.onnx"],
    )
    name: str = Field(
        default_factory=lambda data: data["path"].stem if data["path"] else "",
        validate_default=True,
        description="The model's name in every message, and in Triton's repository; left out, the file's name without "
        "its suffix.",
        examples=["yolov8n"],
    )
    version: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Version of the model that Triton shall run; left out, its version policy decides. Triton only.",
        examples=[2],
    )
    labels: Labels = Field(
        default=None,
        description="Class names in class-id order: coco, the path of a text file with one name a line, or a list. "
        "Left out, the model's metadata names them.",
        examples=["coco", "labels.txt", ["person", "car"]],
    )
    head: HeadKind = Field(
        default="auto",
        description="What a YOLO model tells of each object: detector for a box and its class, pose for keypoints as "
        "well; auto goes by what the file says of itself, and by how many classes are named.",
    )
    confidence: Ratio = Field(default=0.25, description="Objects below this confidence are left out, 0 to 1.")
    iou: Ratio = Field(default=0.45, description="Boxes of a class overlapping by more than this are one, 0 to 1.")
    max_detections: Limit = Field(default=300, description="Objects kept in one frame at most, the best first.")
    size: tuple[Side, Side] | None = Field(
        default=None,
        description="Width and height of the model's input, multiples of 32, for a model that leaves them open; "
        "left out, 640 x 640.",
        examples=[[640, 640]],
    )
    fit: Literal["auto", "letterbox", "top_left", "stretch"] = Field(
        default="auto",
        description="How a picture lies in the model's input: letterbox keeps its shape and puts it in the middle, "
        "top_left into that corner, with grey beside it; stretch fills the input. auto is letterbox for detectors, "
        "top_left for YOLOX, stretch for models of other kinds, and what a served model itself says.",
    )
    pixels: PixelsConfig | None = Field(
        default=None,
        description="What the model wants of the values of its pixels; left out, red, green, blue from 0 to 1, or what "
        "its kind is known for: YOLOX and RetinaFace take blue, green, red up to 255, detectors of text the same less "
        "ImageNet's mean and in shares of its deviation. Not with Triton, unless engine.managed builds the model: what "
        "a repository holds has it within.",
        examples=[{"color": "bgr", "scale": 1}],
    )

    @field_validator("path")
    @classmethod
    def _exists(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        around = surroundings(info)
        if around is None:
            return value
        if value is None:
            if around.needs_model_file:
                raise RefusedError(expected="an ONNX model", remedy="Add, for example, path: yolov8n.onnx.")
            return None
        if around.has_own_models:
            remedy = "Remove path, and write name: with the model's name in the server's repository."
            raise RefusedError(expected="no path with engine.kind: triton, which has the file", remedy=remedy)
        return find_model(str(value), around)

    @field_validator("name")
    @classmethod
    def _is_named(cls, value: str, info: ValidationInfo) -> str:
        if not value.strip():
            if "path" in info.data and info.data["path"] is None:
                around, remedy = surroundings(info), "Add, for example, name: yolov8n."
                where = "where no path gives one" if around and not around.has_own_models else "in Triton's repository"
                raise RefusedError(expected=f"the model's name {where}", remedy=remedy)
            raise RefusedError(expected="text that is not empty", remedy="Write, for example, name: yolov8n.")
        return value

    @field_validator("version")
    @classmethod
    def _is_served(cls, value: int | None, info: ValidationInfo) -> int | None:
        around = surroundings(info)
        if value is not None and around is not None and around.engine_kind != "triton":
            raise RefusedError(expected="version only with engine.kind: triton", remedy="Remove the key.")
        return value

    @field_validator("pixels")
    @classmethod
    def _is_not_within(cls, value: PixelsConfig | None, info: ValidationInfo) -> PixelsConfig | None:
        around = surroundings(info)
        if value is not None and around is not None and around.has_own_models:
            remedy = "Remove it here; build the model with --color, --mean and --scale."
            raise RefusedError(expected="no pixels with engine.kind: triton, where models have them", remedy=remedy)
        return value

    @property
    def file(self) -> Path:
        """``path``, for engines in this process, which cannot do without.

        Raises:
            ModelError: there is none.
        """
        if self.path is None:
            raise ModelError(f"model {self.name}: no file is named. Set model.path.")
        return self.path
