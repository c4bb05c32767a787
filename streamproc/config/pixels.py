"""What a model wants of the values of its pixels, where that is not red, green, blue from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PlainValidator, ValidationError, ValidationInfo, field_validator

from streamproc.config.fields import Section
from streamproc.config.refusals import RefusedError, show
from streamproc.errors import ConfigError, Problem

__all__ = ["Channels", "PixelsConfig", "parse_pixels"]

Channels: TypeAlias = tuple[float, float, float]
"""A number for each channel, in the order in which the model takes them."""

_MOST = 255


def _mean(value: object) -> Channels:
    found = _three(value)
    if found is None or not all(0 <= number <= _MOST for number in found):
        remedy = "Write, for example, mean: 127.5, or mean: [123.675, 116.28, 103.53]."
        raise RefusedError(expected=f"a number from 0 to {_MOST}, or a list of three", remedy=remedy)
    if all(number < 1 for number in found) and any(found):
        remedy = "Multiply by 255: means of 0.485, 0.456 and 0.406 are [123.675, 116.28, 103.53]."
        raise RefusedError(expected=f"the mean of values from 0 to {_MOST}", remedy=remedy)
    return found


def _scale(value: object) -> Channels | None:
    if value is None:
        return None
    found = _three(value)
    if found is None or not all(0 < abs(number) <= _MOST for number in found):
        remedy = "Write, for example, scale: 1 for values up to 255, or leave it out for values up to 1."
        expected = f"a number from -{_MOST} to {_MOST} that is not 0, or a list of three"
        raise RefusedError(expected=expected, remedy=remedy)
    return found


def _three(value: object) -> Channels | None:
    """The same number three times, or three; None where it is neither."""
    numbers = list(value) if isinstance(value, list | tuple) else [value] * 3
    found = tuple(_numbers(numbers))
    return found if len(numbers) == len(found) == 3 else None


def _numbers(values: list[object]) -> Iterator[float]:
    for value in values:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield float(value)


_MeanNumber = Annotated[float, Field(ge=0, le=_MOST)]
_ScaleNumber = Annotated[float, Field(ge=-_MOST, le=_MOST)]
_Mean = Annotated[
    Channels, PlainValidator(_mean, json_schema_input_type=_MeanNumber | tuple[_MeanNumber, _MeanNumber, _MeanNumber])
]
_Scale = Annotated[
    Channels | None,
    PlainValidator(
        _scale, json_schema_input_type=_ScaleNumber | tuple[_ScaleNumber, _ScaleNumber, _ScaleNumber] | None
    ),
]


class PixelsConfig(Section):
    """What the model is given of a pixel: (value - mean) * scale for each channel, from values of 0 to 255."""

    color: Literal["rgb", "bgr"] = Field(default="rgb", description="The order of its channels.")
    mean: _Mean = Field(
        default=0,
        validate_default=True,
        description="Taken from the values: one number, or one a channel in the order of color.",
        examples=[[123.675, 116.28, 103.53]],
    )
    scale: _Scale = Field(
        default=None,
        validate_default=True,
        description="What the values are multiplied by then: one number, or one a channel in the order of color; 1 "
        "keeps them as they are. Left out, 1/255, which makes them 0 to 1; needed beside a mean.",
        examples=[1, [0.01712, 0.01751, 0.01743]],
    )

    @field_validator("scale")
    @classmethod
    def _is_clear(cls, value: Channels | None, info: ValidationInfo) -> Channels | None:
        if value is None and any(info.data.get("mean", ())):
            remedy = "Write scale: 1 for values up to 255, or scale: 0.003922 (1/255) for values up to 1."
            raise RefusedError(expected="a scale beside the mean", remedy=remedy)
        return value


def parse_pixels(*, color: str | None, mean: str | None, scale: str | None) -> PixelsConfig | None:
    """The same from a command line, three numbers separated by commas; None where all of it is left out.

    Raises:
        ConfigError: what the section would be refused for.
    """
    given = {key: text for key, text in (("color", color), ("mean", mean), ("scale", scale)) if text is not None}
    if not given:
        return None
    try:
        return PixelsConfig.model_validate(
            {key: text if key == "color" else _read(text) for key, text in given.items()}
        )
    except ValidationError as exc:
        refused = [(str(one["loc"][0]), one["ctx"]["error"]) for one in exc.errors() if "error" in one.get("ctx", {})]
        problems = [
            Problem(key=f"--{key}", found=show(given.get(key)), expected=cause.expected, remedy=cause.remedy)
            for key, cause in refused
        ]
        raise ConfigError("models build", problems) from exc


def _read(text: str) -> object:
    """A number, or a list of them; what is none is left as it is, to be refused."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]
