"""The engine that a configuration asks for; only its own library is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import Engine
from streamproc.engines.null import NullEngine
from streamproc.errors import DependencyError

if TYPE_CHECKING:
    from streamproc.engines.onnxruntime import OnnxRuntimeEngine
    from streamproc.engines.openvino import OpenVinoEngine

__all__ = ["open_engine"]


async def open_engine(engine: EngineConfig, model: ModelConfig) -> Engine:
    """Read, compile and warm up the model in the engine that was chosen; close the engine after use.

    Raises:
        DependencyError: the engine's package is not installed.
        EngineError: its device or precision is not to be had here.
        ModelError: the model file cannot be read, or its tensors do not suit.
    """
    if engine.kind == "triton":
        from streamproc.engines.triton import TritonEngine

        return await TritonEngine.open(engine, model)
    if engine.kind == "null":
        return await NullEngine.open(engine, model)
    kind = _openvino() if engine.kind == "openvino" else _onnxruntime()
    return await kind.open(engine, model)


def _openvino() -> type[OpenVinoEngine]:
    try:
        from streamproc.engines.openvino import OpenVinoEngine
    except ModuleNotFoundError as exc:
        raise _missing(exc, "openvino") from exc
    return OpenVinoEngine


def _onnxruntime() -> type[OnnxRuntimeEngine]:
    try:
        from streamproc.engines.onnxruntime import OnnxRuntimeEngine
    except ModuleNotFoundError as exc:
        raise _missing(exc, "onnxruntime") from exc
    return OnnxRuntimeEngine


def _missing(exc: ModuleNotFoundError, extra: str) -> Exception:
    package = (exc.name or "").partition(".")[0]
    if package == "streamproc":
        return exc
    return DependencyError(
        f"engine.kind: {extra} needs the Python package {package}, which is not installed. "
        f"Run: pip install 'streamproc[{extra}]'"
    )
