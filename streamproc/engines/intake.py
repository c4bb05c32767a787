"""What a model demands of the pictures that go in, checked once for every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from streamproc.config import PixelsConfig
from streamproc.engines.base import UNIT_RGB, Pixels, TensorInfo
from streamproc.errors import EngineError, FatalError, ModelError
from streamproc.grids import is_detector, is_retinaface, is_text_map, is_yolox
from streamproc.types import Fit

__all__ = [
    "DEFAULT_SIZE",
    "Intake",
    "cannot_run",
    "check_outputs",
    "plan_intake",
    "row_each",
    "rows_of",
    "settle_pictures",
]

DEFAULT_SIZE = (640, 640)  # what the YOLO family is trained and published with
_STRIDE = 32  # of the coarsest feature map of most detectors: other sizes fail inside the network
_AS_THEY_ARE = (1.0, 1.0, 1.0)
# Since its authors left normalisation out; their older models, which their demo calls legacy, need model.pixels.
_YOLOX_PIXELS = Pixels(color="bgr", scale=_AS_THEY_ARE)
# Of its authors' code, which has them from the networks of its time that were trained on ImageNet.
_RETINAFACE_PIXELS = Pixels(color="bgr", mean=(104.0, 117.0, 123.0), scale=_AS_THEY_ARE)
# PaddleOCR gives its text detectors ImageNet's mean and deviation of red, green and blue, but pixels in the order of
# OpenCV. On 60 coloured plates the boxes of its mobile detector are better so: a mean IoU of 0.79, and 0.73 in RGB.
_TEXT_PIXELS = Pixels(color="bgr", mean=(123.675, 116.28, 103.53), scale=(1 / 58.395, 1 / 57.12, 1 / 57.375))


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """A model's one input and the pictures that it will get.

    ``dtype``: ``float32`` and ``float16`` want ``pixels``, ``uint8`` wants 0..255 in their ``color``.
    ``channels_first``: (batch, 3, height, width) rather than (batch, height, width, 3). ``size``: (width, height).
    ``max_batch``: pictures at once; ``open_batch``: the model takes fewer as well. ``open_size``: it may take other
    sizes, too. ``fit``: how a picture lies there.
    """

    tensor: str
    dtype: Literal["float32", "float16", "uint8"]
    channels_first: bool
    size: tuple[int, int]
    max_batch: int
    open_batch: bool
    open_size: bool = False
    pixels: Pixels = UNIT_RGB
    fit: Fit = "letterbox"

    @property
    def size_remedy(self) -> str:
        """What to do, in a sentence and a space, where the model fails because of its size; empty where that is none
        that detectors fail at."""
        if not self.open_size or not any(side % _STRIDE for side in self.size):
            return ""
        width, height = (max(_STRIDE, round(side / _STRIDE) * _STRIDE) for side in self.size)
        return f"If it is a detector, set model.size to multiples of {_STRIDE}, here [{width}, {height}]. "

    @property
    def slot_shape(self) -> tuple[int, int, int, int]:
        """(max_batch, height, width, 3): the shape of a slot's images."""
        return (self.max_batch, self.size[1], self.size[0], 3)


def plan_intake(
    model: str,
    inputs: Sequence[TensorInfo],
    *,
    max_batch: int | Literal["auto"],
    auto_batch: int,
    size: tuple[int, int] | None,
) -> Intake:
    """Match a model's inputs with what was asked for.

    ``size`` (width, height) decides for models that leave it open; ``auto_batch`` is what ``max_batch="auto"`` means
    for models that leave the batch open.

    Raises:
        ModelError: not one RGB picture tensor, or a size or batch that the model cannot take.
    """
    if len(inputs) != 1:
        raise _unsuitable(model, inputs)
    (tensor,) = inputs
    if len(tensor.shape) != 4 or tensor.dtype not in ("float32", "float16", "uint8"):
        raise _unsuitable(model, inputs)
    batch, *rest = tensor.shape
    # Where a file leaves every side open, as those of Optimum do, it comes from PyTorch: channels first.
    channels_first = rest[0] == 3 or all(side < 0 for side in rest)
    if not channels_first and rest[2] != 3:
        raise _unsuitable(model, inputs)
    height, width = rest[1:] if channels_first else rest[:2]
    return Intake(
        tensor=tensor.name,
        dtype=tensor.dtype,  # type: ignore[arg-type]  # narrowed by the check above, which mypy cannot see
        channels_first=channels_first,
        size=_agree_size(model, (width, height), size),
        max_batch=_agree_batch(model, batch, auto_batch if max_batch == "auto" and batch < 0 else max_batch),
        open_batch=batch < 0,
        open_size=width < 0 or height < 0,
    )


def settle_pictures(
    model: str,
    intake: Intake,
    outputs: Sequence[TensorInfo],
    *,
    pixels: PixelsConfig | None,
    fit: Fit | Literal["auto"],
    metadata: Mapping[str, str],
) -> Intake:
    """The intake with the pictures that a model wants: as configured, or else as its outputs or its metadata tell.

    Raises:
        ModelError: a mean or a scale, for a model that takes uint8.
    """
    shapes = [tensor.shape for tensor in row_each(intake, outputs)]
    yolox, text = any(is_yolox(shape, intake.size) for shape in shapes), is_text_map(shapes, intake.size)
    if pixels is not None:
        intake = replace(intake, pixels=_as_configured(model, intake, pixels))
    elif intake.dtype != "uint8":
        retinaface = is_retinaface(shapes, intake.size)
        known = ((yolox, _YOLOX_PIXELS), (retinaface, _RETINAFACE_PIXELS), (text, _TEXT_PIXELS))
        intake = replace(intake, pixels=next((its_own for is_it, its_own in known if is_it), intake.pixels))
    if fit != "auto":
        return replace(intake, fit=fit)
    detector = text or any(is_detector(shape, intake.size) for shape in shapes)
    told = (one for one in get_args(Fit) if one == metadata.get("fit"))
    return replace(intake, fit=next(told, "top_left" if yolox else "letterbox" if detector else "stretch"))


def row_each(intake: Intake, outputs: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """The outputs with the batch in front, which models that take one picture and no more may leave out."""
    if intake.open_batch or intake.max_batch > 1:
        return tuple(outputs)
    return tuple(
        tensor if tensor.shape[:1] == (1,) else replace(tensor, shape=(1, *tensor.shape)) for tensor in outputs
    )


def rows_of(values: NDArray[Any], tensor: TensorInfo, count: int) -> NDArray[Any]:
    """The first ``count`` rows of an output; a view."""
    return (values if values.ndim == len(tensor.shape) else values[None])[:count]


def check_outputs(model: str, outputs: Sequence[TensorInfo], batch: int) -> None:
    """Every output must hold one row a picture, or a batch could not be taken apart.

    Raises:
        ModelError: the first dimension of an output is not the batch's.
    """
    for tensor in outputs:
        if not tensor.shape or tensor.shape[0] != batch:
            raise ModelError(
                f"model {model}: for {batch} picture(s) its output {tensor.name} has shape {tensor.shape}; expected "
                f"{batch} as the first dimension. Export the model without built-in non-maximum suppression."
            )


def cannot_run(model: str, path: Path, runtime: str, device: str, intake: Intake, cause: str) -> FatalError:
    """The error for a readable model that a runtime rejects: the model's fault on a CPU, the device's elsewhere."""
    width, height = intake.size
    said = f"model {model} ({path}): {runtime} cannot run it on {device} at {width}x{height}: {cause.rstrip('. ')}. "
    if device == "CPU":
        remedy = "Leave model.size out or correct it, try another engine.kind, or export the model again."
        return ModelError(said + intake.size_remedy + remedy)
    return EngineError(said + "Try engine.device: CPU, or another engine.kind.")


def _as_configured(model: str, intake: Intake, wanted: PixelsConfig) -> Pixels:
    if intake.dtype != "uint8":
        return Pixels(color=wanted.color, mean=wanted.mean, scale=wanted.scale or UNIT_RGB.scale)
    if any(wanted.mean) or wanted.scale not in (None, _AS_THEY_ARE):
        raise ModelError(
            f"model {model}: its input {intake.tensor} is uint8, which takes values from 0 to 255 as they are; "
            "model.pixels asks for a mean or a scale. Remove them, or export the model with a float input."
        )
    return Pixels(color=wanted.color)


def _unsuitable(model: str, inputs: Sequence[TensorInfo]) -> ModelError:
    found = ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in inputs) or "none"
    return ModelError(
        f"model {model}: its inputs are {found}; expected one picture tensor (batch, 3, height, width) or "
        "(batch, height, width, 3) of float32, float16 or uint8 RGB (-1 is an open dimension). "
        "Export a YOLO detection model."
    )


def _agree_size(model: str, own: tuple[int, int], wanted: tuple[int, int] | None) -> tuple[int, int]:
    agreed = tuple(have if have > 0 else want for have, want in zip(own, wanted or DEFAULT_SIZE, strict=True))
    width, height = agreed
    if wanted is not None and agreed != wanted:
        raise ModelError(
            f"model {model}: its input is fixed at {width}x{height} (width x height); model.size asks for "
            f"{wanted[0]}x{wanted[1]}. Remove model.size, or export the model at that size."
        )
    return width, height


def _agree_batch(model: str, own: int, wanted: int | Literal["auto"]) -> int:
    if own < 0:
        assert wanted != "auto"
        return wanted
    if wanted not in ("auto", own):
        raise ModelError(
            f"model {model}: its batch is fixed at {own}; engine.max_batch asks for {wanted}. "
            f"Set engine.max_batch to auto, or export the model with an open (dynamic) batch."
        )
    return own
