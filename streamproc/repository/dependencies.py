"""Optional packages: asked for where they are needed, named where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamproc.errors import DependencyError

__all__ = ["needing_onnx", "needing_openvino"]


@contextmanager
def needing_onnx(what: str) -> Iterator[None]:
    """Imports in this block turn a missing package into a message; ``what`` needs it ("models build").

    Raises:
        DependencyError: ONNX or ONNX Runtime is not installed.
    """
    with _needing(what, extra="onnxruntime"):
        yield


@contextmanager
def needing_openvino(what: str) -> Iterator[None]:
    """The same for imports of OpenVINO, which is used for int8 only.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    with _needing(what, extra="int8"):
        yield


@contextmanager
def _needing(what: str, *, extra: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package == "streamproc":
            raise
        raise DependencyError(
            f"{what} needs the Python package {package}, which is not installed. Run: pip install 'streamproc[{extra}]'"
        ) from exc
