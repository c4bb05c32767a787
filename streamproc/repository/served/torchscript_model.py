"""A Triton model that runs a TorchScript classifier: copied into a model repository as ``<version>/model.py``.

It reads ``model.pt`` beside it. It takes uint8 RGB pictures (batch, height, width, 3), gives the network float32 ones
(batch, 3, height, width), and answers with what that gives: (batch, classes), or a tuple or mapping that begins with
it. Parameters of config.pbtxt: ``color`` (rgb, bgr), ``mean`` (0) and ``scale`` (1/255) for (value - mean) * scale of
values from 0 to 255, one number or one a channel, and ``threads`` of an instance on the processor (1). An instance of
KIND_GPU uses CUDA. It stands alone: Triton's Python imports no streamproc.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # within Triton only
from numpy.typing import NDArray

__all__ = ["TritonPythonModel"]

_ERRORS = (RuntimeError, TypeError, ValueError)  # PyTorch's own errors are RuntimeErrors


class TritonPythonModel:
    """One instance: a network of its own."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the network and try it on black pictures; called by Triton once."""
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / "model.pt"
        # Not at the top: Triton also loads this module in a process that only asks for its configuration.
        self._torch = torch = _pytorch()
        torch.set_num_threads(int(_parameter(config, "threads", "1")))
        self._device = _device(torch, args)
        self._input: str = config["input"][0]["name"]
        self._output: str = config["output"][0]["name"]
        self._classes = int(config["output"][0]["dims"][-1])
        self._bgr = _parameter(config, "color", "rgb") == "bgr"
        try:
            self._mean, self._scale = (
                torch.tensor(_numbers(_parameter(config, name, usual))).reshape(1, -1, 1, 1).to(self._device)
                for name, usual in (("mean", "0"), ("scale", str(1 / 255)))
            )
            self._network = torch.jit.load(str(path), map_location=self._device).eval()
            height, width = (int(side) for side in config["input"][0]["dims"][-3:-1])
            # What was traced may have the batch of its example within.
            for count in sorted({1, max(1, config["max_batch_size"])}):
                self._run(np.zeros((count, height, width, 3), np.uint8))
        except _ERRORS as exc:
            raise pb_utils.TritonModelException(f"{path}: PyTorch cannot run the model: {_cause(exc)}") from exc

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer all requests by one run of the network; where that fails, none of them has an answer."""
        inputs = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        try:
            scores = self._run(np.concatenate(inputs))
        except _ERRORS as exc:
            error = pb_utils.TritonError(f"PyTorch failed: {_cause(exc)}")
            return [pb_utils.InferenceResponse(error=error) for _ in requests]
        responses, row = [], 0
        for images in inputs:
            rows = scores[row : row + len(images)]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(self._output, rows)]))
            row += len(images)
        return responses

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(batch, classes) of pictures (batch, height, width, 3)."""
        with self._torch.inference_mode():
            values = self._torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()
            if self._bgr:
                values = values.flip(1)
            # A network may view its input as flat, which takes it in one piece.
            given = self._network(((values - self._mean) * self._scale).contiguous())
            scores: NDArray[np.float32] = _first(given).float().cpu().numpy()
        expected = (len(images), self._classes)
        if scores.size != expected[0] * expected[1] or scores.shape[:2] != expected:
            raise ValueError(
                f"it gives {scores.shape} for {len(images)} pictures; expected {expected}, a score for each of the "
                f"{self._classes} classes that were named. Correct the labels, or build it with max_batch 1 if it was "
                "traced with one picture"
            )
        return scores.reshape(expected)


def _pytorch() -> Any:
    try:
        import torch
    except (ImportError, OSError) as exc:  # the latter where one of its own libraries is missing
        raise pb_utils.TritonModelException(
            f"a TorchScript model needs PyTorch, which the server's Python ({sys.prefix}) cannot import: {exc}. "
            f"Install it there ({sys.prefix}/bin/python3 -m pip install torch 'numpy<2'), or export the model to ONNX"
        ) from exc
    return torch


def _parameter(config: Mapping[str, Any], name: str, default: str) -> str:
    value: str = config.get("parameters", {}).get(name, {}).get("string_value", default)
    return value


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _device(torch: Any, args: Mapping[str, str]) -> Any:
    if args["model_instance_kind"] != "GPU":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise pb_utils.TritonModelException(
            f"instance_group KIND_GPU: PyTorch {torch.__version__} of the server's Python finds no CUDA device; "
            "install a build for the GPU's driver, or use KIND_CPU"
        )
    return torch.device("cuda", int(args["model_instance_device_id"]))


def _first(given: Any) -> Any:
    """The scores: auxiliary outputs come after them."""
    while isinstance(given, Sequence | Mapping) and given:
        given = given[0] if isinstance(given, Sequence) else next(iter(given.values()))
    if not hasattr(given, "float"):
        raise TypeError(f"it gives {type(given).__name__}; expected a tensor, or a tuple that begins with one")
    return given


def _cause(exc: BaseException) -> str:
    """One line of what PyTorch says: the last of the interpreter's errors, behind its traceback, else the first."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
    return lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
