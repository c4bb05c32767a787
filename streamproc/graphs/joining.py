"""Two networks as one: what the first gives is what the second takes."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import compose, version_converter

from streamproc.errors import ModelError
from streamproc.graphs.reading import inputs_of, outputs_of, read_onnx

__all__ = ["join"]

_FIRST, _SECOND = "first/", "second/"


def join(first: Path, second: Path, target: Path) -> None:
    """Write the ONNX model that is ``second`` behind ``first``, each with one input and the first with one output.

    The second's metadata stays. Nothing but the shapes that both state is compared here: a runtime finds the rest.

    Raises:
        ModelError: one of them cannot be read, or they do not fit together.
    """
    front, back = read_onnx(first), read_onnx(second)
    taken, given, wanted = inputs_of(front), outputs_of(front), inputs_of(back)
    if len(taken) != 1 or len(given) != 1 or len(wanted) != 1:
        raise ModelError(
            f"model files {first} and {second}: expected one input each, and one output of the first, to join them; "
            f"found {len(taken)} and {len(wanted)} input(s), {len(given)} output(s)."
        )
    (one,), (other,) = given, wanted
    if one.dtype != other.dtype or not _fit(one.shape, other.shape):
        raise ModelError(
            f"model files {first} and {second}: the first gives {one.name} {one.dtype} {one.shape}, the second takes "
            f"{other.name} {other.dtype} {other.shape}; expected the same (-1 is an open side). Export one of them at "
            "the other's size."
        )
    try:
        front, back = _alike(front, back)
        joint = compose.merge_models(front, back, io_map=[(one.name, other.name)], prefix1=_FIRST, prefix2=_SECOND)
        onnx.helper.set_model_props(joint, {prop.key: prop.value for prop in back.metadata_props})
        onnx.save_model(joint, str(target))
    except (ValueError, RuntimeError, onnx.checker.ValidationError) as exc:
        raise ModelError(f"model files {first} and {second}: they cannot be joined: {exc}") from exc


def _alike(front: onnx.ModelProto, back: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Both in the newer operator set, of the newer format."""
    versions = [
        max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")) for model in (front, back)
    ]
    newest, format_version = max(versions), max(front.ir_version, back.ir_version)
    models = [
        model if version == newest else version_converter.convert_version(model, newest)
        for model, version in zip((front, back), versions, strict=True)
    ]
    for model in models:
        model.ir_version = format_version
    return models[0], models[1]


def _fit(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(given) == len(wanted) and all(a == b or a < 0 or b < 0 for a, b in zip(given, wanted, strict=True))
