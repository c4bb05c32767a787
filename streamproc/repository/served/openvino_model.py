"""A Triton model that runs OpenVINO on the processor: copied into a model repository as ``<version>/model.py``.

It reads ``model.onnx`` or ``model.xml`` beside it. Parameters of config.pbtxt: ``precision`` (auto, fp32, bf16) and
``threads`` of an instance (1: several instances side by side are faster than one with several threads). Each instance
runs picture by picture, as batches gain nothing on a processor. It stands alone: Triton's Python imports no streamproc.
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
    """One instance: a compiled model and its one request."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read and compile the model; called by Triton once."""
        # Not at the top: Triton also loads this module in a process that only asks for its configuration.
        import openvino as ov

        config = json.loads(args["model_config"])
        self._tensor = ov.Tensor
        self._input: str = _only_input(config)["name"]
        self._wanted: list[str] = [output["name"] for output in config["output"]]
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            core = ov.Core()
            model = _prepared(ov, core.read_model(_model_file(folder)), config)
            compiled = core.compile_model(model, "CPU", _properties(core, config))
            self._request = compiled.create_infer_request()
            self._step = compiled.inputs[0].shape[0]  # pictures of one inference
            self._places = _output_places(compiled, self._wanted)
            # What the graph leaves open has one shape all the same, that of config.pbtxt: it is copied into place.
            self._copied = {
                name for name, place in self._places.items() if compiled.outputs[place].partial_shape.is_dynamic
            }
        except RuntimeError as exc:
            raise pb_utils.TritonModelException(f"{folder}: OpenVINO cannot run the model: {exc}") from exc
        # The outputs of one call of execute(); Triton has copied them when the next one comes.
        rank_of_batch = 0 if config["max_batch_size"] > 0 else 1
        self._results: dict[str, NDArray[Any]] = {}
        for output in config["output"]:
            port = compiled.outputs[self._places[output["name"]]]
            sides = (
                [int(side) for side in output["dims"]][rank_of_batch:]
                if port.partial_shape.is_dynamic
                else port.shape[1:]
            )
            self._results[output["name"]] = np.empty((0, *sides), port.element_type.to_dtype())

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; what fails in one is that one's answer."""
        inputs = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        self._reserve(sum(-(-len(images) // self._step) for images in inputs) * self._step)
        responses, row = [], 0
        for images in inputs:
            try:
                responses.append(self._answer(images, row))
            except (RuntimeError, ValueError) as exc:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(f"OpenVINO failed: {exc}")))
            row += -(-len(images) // self._step) * self._step
        return responses

    def _reserve(self, rows: int) -> None:
        for name, values in self._results.items():
            if len(values) < rows:
                self._results[name] = np.empty((rows, *values.shape[1:]), values.dtype)

    def _answer(self, images: NDArray[Any], first: int) -> Any:
        """Infer step by step, straight from the request's memory into the results' rows from ``first`` on."""
        step = self._step
        for start in range(0, len(images), step):
            chunk = images[start : start + step]
            if len(chunk) < step:
                chunk = np.concatenate([chunk, np.zeros((step - len(chunk), *chunk.shape[1:]), chunk.dtype)])
            self._request.set_input_tensor(self._tensor(chunk, shared_memory=True))
            row = first + start
            for name, place in self._places.items():
                if name not in self._copied:
                    rows = self._results[name][row : row + step]
                    self._request.set_output_tensor(place, self._tensor(rows, shared_memory=True))
            self._request.infer()
            for name in self._copied:
                values = self._request.get_output_tensor(self._places[name]).data
                rows = self._results[name][row : row + step]
                if values.shape != rows.shape:
                    raise ValueError(f"output {name} has shape {values.shape}; config.pbtxt declares {rows.shape}")
                rows[:] = values
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, self._results[name][first : first + len(images)]) for name in self._wanted]
        )


def _only_input(config: Mapping[str, Any]) -> Mapping[str, Any]:
    if len(config["input"]) != 1:
        raise pb_utils.TritonModelException(f"expected one input in config.pbtxt, found {len(config['input'])}")
    only: Mapping[str, Any] = config["input"][0]
    return only


def _parameter(config: Mapping[str, Any], name: str, default: str) -> str:
    value: str = config.get("parameters", {}).get(name, {}).get("string_value", default)
    return value


def _model_file(folder: Path) -> Path:
    for name in ("model.onnx", "model.xml"):
        if (folder / name).is_file():
            return folder / name
    raise pb_utils.TritonModelException(f"{folder}: neither model.onnx nor model.xml is there")


def _properties(core: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    precision = _parameter(config, "precision", "auto")
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision not in ("auto", "fp32", "bf16"):
        raise pb_utils.TritonModelException(f"parameter precision: found {precision}; expected auto, fp32 or bf16")
    if precision == "bf16" and not able:
        raise pb_utils.TritonModelException("parameter precision: this processor does not compute in bf16; use auto")
    return {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": int(_parameter(config, "threads", "1")),
        "ENABLE_CPU_PINNING": False,  # pinned, the threads of every instance would land on the same first cores
        "INFERENCE_PRECISION_HINT": "bf16" if able and precision != "fp32" else "f32",
    }


def _prepared(ov: Any, model: Any, config: Mapping[str, Any]) -> Any:
    """The model at one fixed shape, taking what config.pbtxt declares: uint8 pictures also where it wants floats."""
    from openvino.preprocess import PrePostProcessor

    declared = _only_input(config)
    if len(model.inputs) != 1:
        raise pb_utils.TritonModelException(f"expected a model with one input, found {len(model.inputs)}")
    own = model.inputs[0]
    dims = [int(side) for side in declared["dims"]][0 if config["max_batch_size"] > 0 else 1 :]
    shape = own.get_partial_shape()
    pictures = declared["data_type"] == "TYPE_UINT8" and own.get_element_type() != ov.Type.u8
    channels_first = pictures and shape[1] == 3
    if channels_first:
        dims = [dims[2], dims[0], dims[1]]
    batch = shape[0].get_length() if shape[0].is_static else 1
    model.reshape([batch, *dims])
    if not pictures:
        return model
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW" if channels_first else "NHWC"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    return steps.build()


def _output_places(compiled: Any, wanted: Sequence[str]) -> dict[str, int]:
    """Which of the model's outputs has each name; the one output of both may have another name."""
    names = [port.get_names() for port in compiled.outputs]
    if len(names) == len(wanted) == 1:
        return {wanted[0]: 0}
    places = {}
    for name in wanted:
        found = [index for index, known in enumerate(names) if name in known]
        if not found:
            raise pb_utils.TritonModelException(f"output {name}: the model has {', '.join(map(str, names))}")
        places[name] = found[0]
    return places
