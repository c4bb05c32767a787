"""A Triton model that runs ONNX Runtime: copied into a model repository as ``<version>/model.py``.

It reads ``model.onnx`` beside it. Parameter of config.pbtxt: ``threads`` of an instance on the processor (1). An
instance of KIND_GPU uses CUDA, where the environment's ONNX Runtime has it. It computes in the model's own precision.
It stands alone: Triton's Python imports no streamproc.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # within Triton only
from numpy.typing import NDArray

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """One instance: a session of its own."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the model; called by Triton once."""
        # Not at the top: Triton also loads this module in a process that only asks for its configuration.
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        # ONNX Runtime's own error classes have no common base but Exception.
        kinds = [kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception)]
        self._errors: tuple[type[Exception], ...] = (*kinds, RuntimeError, ValueError)
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path}: there is no such file")
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors: what it warns of, it puts right by itself
        options.intra_op_num_threads = int(_parameter(config, "threads", "1"))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[_provider(ort, args, config)])
        except self._errors as exc:
            raise pb_utils.TritonModelException(f"{path}: ONNX Runtime cannot run the model: {exc}") from exc
        self._input: str = config["input"][0]["name"]
        self._own_input = _own_input(self._session, config)
        self._wanted: list[str] = [output["name"] for output in config["output"]]
        self._own_outputs = _own_outputs(self._session, self._wanted)
        batch = self._session.get_inputs()[0].shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; what fails in one is that one's answer."""
        responses = []
        for request in requests:
            images = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
            try:
                outputs = [pb_utils.Tensor(*pair) for pair in zip(self._wanted, self._run(images), strict=True)]
                responses.append(pb_utils.InferenceResponse(outputs))
            except self._errors as exc:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(f"ONNX Runtime failed: {exc}")))
        return responses

    def _run(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """All rows at once, or as many at a time as the model's fixed batch has."""
        step = self._fixed_batch
        if step is None or len(images) == step:
            outputs: list[NDArray[Any]] = self._session.run(self._own_outputs, {self._own_input: images})
            return outputs
        parts = []
        for start in range(0, len(images), step):
            chunk = images[start : start + step]
            if len(chunk) < step:
                chunk = np.concatenate([chunk, np.zeros((step - len(chunk), *chunk.shape[1:]), chunk.dtype)])
            parts.append(self._session.run(self._own_outputs, {self._own_input: chunk}))
        return [np.concatenate(values)[: len(images)] for values in zip(*parts, strict=True)]


def _parameter(config: Mapping[str, Any], name: str, default: str) -> str:
    value: str = config.get("parameters", {}).get(name, {}).get("string_value", default)
    return value


def _provider(ort: Any, args: Mapping[str, str], config: Mapping[str, Any]) -> Any:
    precision = _parameter(config, "precision", "auto")
    if precision == "bf16":
        raise pb_utils.TritonModelException(
            "parameter precision: ONNX Runtime computes in the model's own types; use auto, or the runtime openvino"
        )
    if args["model_instance_kind"] != "GPU":
        return "CPUExecutionProvider"
    available = ort.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise pb_utils.TritonModelException(
            f"instance_group KIND_GPU: this ONNX Runtime has {', '.join(available)}; "
            "install onnxruntime-gpu in the server's environment, or use KIND_CPU"
        )
    return "CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}


def _own_input(session: Any, config: Mapping[str, Any]) -> str:
    """The model's name for its input, which must be of the type that config.pbtxt declares."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(config["input"]) != 1:
        raise pb_utils.TritonModelException(
            f"expected one input, found {len(inputs)} in the model and {len(config['input'])} in config.pbtxt"
        )
    declared = config["input"][0]["data_type"]
    taken = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16"}
    if taken.get(inputs[0].type) != declared:
        raise pb_utils.TritonModelException(
            f"input {inputs[0].name}: the model takes {inputs[0].type}, config.pbtxt declares {declared}. "
            "Build the model with its uint8 input fused, declare its own type, or use the runtime openvino"
        )
    name: str = inputs[0].name
    return name


def _own_outputs(session: Any, wanted: Sequence[str]) -> list[str]:
    """The model's names for the outputs; the one output of both may have another name."""
    known = [output.name for output in session.get_outputs()]
    if len(known) == len(wanted) == 1:
        return known
    if missing := set(wanted) - set(known):
        raise pb_utils.TritonModelException(f"outputs {', '.join(missing)}: the model has {', '.join(known)}")
    return list(wanted)
