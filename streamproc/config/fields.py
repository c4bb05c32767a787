"""The kinds of value that keys of the configuration take, each with its checks and its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from streamproc.config.addresses import (
    check_broker_url,
    check_camera_url,
    check_listen_address,
    check_push_url,
    check_triton_url,
)
from streamproc.config.files import Surroundings, find_file
from streamproc.config.refusals import RefusedError, did_you_mean
from streamproc.errors import ModelError
from streamproc.labels import read_labels

__all__ = [
    "NAME_PATTERN",
    "BrokerUrl",
    "CameraName",
    "CameraUrl",
    "ClassName",
    "HeaderName",
    "InFlight",
    "Labels",
    "LabelsValue",
    "Levels",
    "Limit",
    "ListenAddress",
    "MaxBatch",
    "Name",
    "PushUrl",
    "Ratio",
    "Section",
    "Side",
    "Text",
    "TritonUrl",
    "check_login",
    "surroundings",
    "unknown_class",
]

NAME_PATTERN = "^[A-Za-z0-9_-]+$"
_LEVELS_PATTERN = "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
_RESERVED_CAMERAS = ("status",)
_MAX_BATCH = 256
_MAX_IN_FLIGHT = 64

LabelsValue: TypeAlias = Literal["coco"] | Path | tuple[str, ...] | None


class Section(BaseModel):
    """What every section has in common: frozen, no unknown keys, no NaN, no values in pydantic's own messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth(cls, value: object, info: ValidationInfo) -> object:
        """``true`` is no number, though Python thinks so."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise PydanticCustomError("no_truth", "a truth value where none is expected")
        return value


def check_login(password: SecretStr | None, info: ValidationInfo, section: str) -> SecretStr | None:
    """A password beside a user name, or neither; for a ``password`` that comes after ``username``."""
    if "username" in info.data and (info.data["username"] is None) != (password is None):
        missing = "username" if password is not None else "password"
        raise RefusedError(expected="username and password together", remedy=f"Add {missing}: to {section}.")
    return password


def surroundings(info: ValidationInfo) -> Surroundings | None:
    """What is known about the file being loaded; None for models made in code, which look at no file."""
    return info.context if isinstance(info.context, Surroundings) else None


def _check_name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise RefusedError(
            expected="a name of letters, digits, '_' and '-'",
            remedy="It becomes a level of the MQTT topic: replace other characters by '-' or '_'.",
        )
    return value


def _check_camera_name(value: str) -> str:
    if value in _RESERVED_CAMERAS:
        remedy = "This name is taken by the site's own topic PREFIX/SITE/status: choose another."
        raise RefusedError(expected="a camera name other than 'status'", remedy=remedy)
    return _check_name(value)


def _check_levels(value: str) -> str:
    if not re.fullmatch(_LEVELS_PATTERN, value):
        raise RefusedError(
            expected="names of letters, digits, '_' and '-', separated by '/'",
            remedy="Leave out '/' at the ends, blanks and the wildcards '+' and '#'.",
        )
    return value


def _check_header_name(value: str) -> str:
    """gRPC sends names in lower case; those beginning with grpc- are its own."""
    name = value.lower()
    if not re.fullmatch("[a-z0-9_.-]+", name) or name.startswith("grpc-"):
        raise RefusedError(
            expected="a header name of letters, digits, '_', '.' and '-' that does not begin with grpc-",
            remedy="Write, for example, authorization.",
        )
    return name


def _whole_number_or_auto(value: object, info: ValidationInfo, most: int, example: int) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    text = str(value)
    is_number = isinstance(value, int | str) and not isinstance(value, bool) and re.fullmatch("[0-9]{1,3}", text)
    if not is_number or not 1 <= int(text) <= most:
        key = info.field_name
        remedy = f"Write {key}: auto to let the engine choose, or, for example, {key}: {example}."
        raise RefusedError(expected=f"auto, or a whole number from 1 to {most}", remedy=remedy)
    return int(text)


def _check_max_batch(value: object, info: ValidationInfo) -> int | Literal["auto"]:
    return _whole_number_or_auto(value, info, _MAX_BATCH, 8)


def _check_in_flight(value: object, info: ValidationInfo) -> int | Literal["auto"]:
    return _whole_number_or_auto(value, info, _MAX_IN_FLIGHT, 2)


def _check_labels(value: object, info: ValidationInfo) -> LabelsValue:
    if value is None:
        return None
    if value == "coco":
        return "coco"
    if isinstance(value, str | Path):
        around = surroundings(info)
        return _find_labels(str(value), around.folder) if around else Path(value)
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) and name.strip() for name in value):
        return tuple(value)
    found = "a list with items that are not text" if isinstance(value, list | tuple) and value else None
    raise RefusedError(
        found=found,
        expected="coco, the path of a labels file, or a list of class names",
        remedy="Write, for example, labels: [person, car]; quote names that look like numbers.",
    )


def _find_labels(text: str, folder: Path) -> Path:
    path = find_file(text, folder, "coco, or a labels file")
    try:
        read_labels(path)
    except ModelError as exc:
        raise RefusedError(
            expected="a labels file with a class name on each line",
            remedy="Write one class name a line, in class-id order, as UTF-8 text; or write labels: coco.",
        ) from exc
    return path


def _check_class(value: str, info: ValidationInfo) -> str:
    around = surroundings(info)
    if around is not None and around.labels is not None and value not in around.labels:
        raise unknown_class(value, around.labels)
    return value


def unknown_class(name: str, labels: Sequence[str]) -> RefusedError:
    """What is said about a class that the model does not know."""
    remedy = did_you_mean(name, labels) or "Choose one of the model's labels."
    return RefusedError(expected=f"one of the {len(labels)} classes that the model knows", remedy=remedy)


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
CameraName = Annotated[str, AfterValidator(_check_camera_name)]
Levels = Annotated[str, AfterValidator(_check_levels), Field(json_schema_extra={"pattern": _LEVELS_PATTERN})]
CameraUrl = Annotated[str, AfterValidator(check_camera_url)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]
ListenAddress = Annotated[str, AfterValidator(check_listen_address)]
PushUrl = Annotated[str, AfterValidator(check_push_url)]
TritonUrl = Annotated[str, AfterValidator(check_triton_url)]
BrokerUrl = Annotated[str, AfterValidator(check_broker_url)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Limit = Annotated[int, Field(ge=1, le=10_000)]
# YOLO's coarsest feature map has stride 32 (Redmon & Farhadi, YOLOv3, 2018, section 2.3).
Side = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
ClassName = Annotated[str, Field(min_length=1), AfterValidator(_check_class)]
MaxBatch = Annotated[
    int | Literal["auto"],
    PlainValidator(
        _check_max_batch, json_schema_input_type=Annotated[int, Field(ge=1, le=_MAX_BATCH)] | Literal["auto"]
    ),
]
InFlight = Annotated[
    int | Literal["auto"],
    PlainValidator(
        _check_in_flight, json_schema_input_type=Annotated[int, Field(ge=1, le=_MAX_IN_FLIGHT)] | Literal["auto"]
    ),
]
Labels = Annotated[
    LabelsValue,
    PlainValidator(_check_labels, json_schema_input_type=str | Annotated[list[str], Field(min_length=1)] | None),
]
