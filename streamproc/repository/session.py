"""Graphs run here and now, on the CPU: to learn the shapes of what they give, and to hold one against another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from streamproc.engines.base import TensorInfo
from streamproc.engines.intake import Intake
from streamproc.errors import ModelError
from streamproc.types import UInt8Array

__all__ = ["Session", "as_input"]

# ONNX Runtime's own error classes have no common base but Exception.
_ERRORS = tuple(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception))


class Session:
    """A graph in ONNX Runtime; ``of`` names it in errors."""

    def __init__(self, serialised: bytes, of: str) -> None:
        """Raises :class:`ModelError` where ONNX Runtime rejects the graph."""
        options = ort.SessionOptions()
        options.log_severity_level = 4  # fatal: errors are raised
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        self._of = of
        try:
            self._session = ort.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
        except _ERRORS as exc:
            raise ModelError(f"{of}: ONNX Runtime cannot load it: {_cause(exc)}. Export the model again.") from exc

    def run(self, values: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """The outputs for the graph's one input; the first dimension is the batch.

        Raises:
            ModelError: the graph fails on them.
        """
        names = [output.name for output in self._session.get_outputs()]
        try:
            results = self._session.run(names, {self._session.get_inputs()[0].name: values})
        except _ERRORS as exc:
            raise ModelError(
                f"{self._of}: ONNX Runtime cannot run it on {values.dtype} {values.shape}: {_cause(exc)}. "
                "Leave the size out or correct it, or export the model again."
            ) from exc
        return dict(zip(names, results, strict=True))

    def outputs(self, intake: Intake) -> tuple[TensorInfo, ...]:
        """The real shapes of the outputs, from black pictures: one, or as many as the model always takes.

        Raises:
            ModelError: the graph fails on them.
        """
        count = 1 if intake.open_batch else intake.max_batch
        try:
            results = self.run(as_input(np.zeros((count, *intake.slot_shape[1:]), dtype=np.uint8), intake))
        except ModelError as exc:
            raise ModelError(f"{exc} {intake.size_remedy}".strip()) from exc
        return tuple(
            TensorInfo(name=name, dtype=str(value.dtype), shape=tuple(value.shape)) for name, value in results.items()
        )


def as_input(images: UInt8Array, intake: Intake) -> NDArray[Any]:
    """Pictures (batch, height, width, 3) as a model with that intake wants them, the straightforward way."""
    pixels = intake.pixels
    values: NDArray[Any] = images[..., ::-1] if pixels.color == "bgr" else images
    if intake.dtype != "uint8":
        values = (values - np.array(pixels.mean, np.float32)) * np.array(pixels.scale, np.float32)
    values = values.transpose(0, 3, 1, 2) if intake.channels_first else values
    return np.ascontiguousarray(values, dtype=intake.dtype)


def _cause(exc: BaseException) -> str:
    """The first line of what ONNX Runtime says, which may go on for pages."""
    return str(exc).strip().splitlines()[0].rstrip(". ")[:300]
