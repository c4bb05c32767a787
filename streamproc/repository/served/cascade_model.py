"""A Triton model that runs a cascade, or a step of one: copied into a model repository as ``<version>/model.py``.

``plan.json`` beside it says what to do, and streamproc's own modules in ``modules/`` know how; they need numpy and
OpenCV, and Python 3.11. The parameter ``step`` of config.pbtxt says which part this is: ``whole`` calls the plan's
models itself, ``prepare``, ``cut`` and ``answer`` stand between them in an ensemble.
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

_MODULES = "modules"

Arrays = dict[str, NDArray[Any]]


class _StageError(Exception):
    """A model of the cascade did not answer."""


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the plan; called by Triton once."""
        config = json.loads(args["model_config"])
        self._name: str = config["name"]
        self._inputs: list[str] = [tensor["name"] for tensor in config["input"]]
        self._outputs: list[str] = [tensor["name"] for tensor in config["output"]]
        self._step: str = config["parameters"]["step"]["string_value"]
        self._plan, self._graph = _load(Path(args["model_repository"]) / args["model_version"])
        self._held: list[Any] = []  # what models have answered: arrays are views into it

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; what fails in one is that one's answer."""
        asked = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        together = self._together(asked) if self._step == "whole" and len(asked) > 1 else None
        return [self._alone(arrays) for arrays in asked] if together is None else together

    def _together(self, asked: Sequence[Arrays]) -> list[Any] | None:
        """All of them as one batch; None if that fails, so that only those fail by themselves that are to blame."""
        (name,) = self._inputs
        try:
            answer = self._answer({name: np.concatenate([arrays[name] for arrays in asked])})
        except Exception:  # noqa: BLE001 - whatever it was is told when they are alone
            return None
        ends = np.cumsum([len(arrays[name]) for arrays in asked]).tolist()
        parts = zip([0, *ends], ends, strict=False)
        return [self._response({key: values[start:end] for key, values in answer.items()}) for start, end in parts]

    def _alone(self, arrays: Arrays) -> Any:
        try:
            return self._response(self._answer(arrays))
        except Exception as exc:  # noqa: BLE001 - the instance lives on, whatever became of one request
            said = str(exc) if isinstance(exc, _StageError) else f"{type(exc).__name__}: {exc}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{self._name}: {said}"))

    def _answer(self, arrays: Arrays) -> Arrays:
        """This part's outputs, among others."""
        try:
            answer: Arrays = _PARTS[self._step](self, arrays)
        finally:
            self._held.clear()
        return answer

    def _whole(self, arrays: Arrays) -> Arrays:
        return dict(self._graph.run(arrays["pictures"], self._call))

    def _prepare(self, arrays: Arrays) -> Arrays:
        return {"prepared": self._graph.prepare(arrays["pictures"])}

    def _cut(self, arrays: Arrays) -> Arrays:
        cut = self._graph.cut(arrays["pictures"], _of_model("detector", arrays))
        return {**cut.tensors, "crops": cut.crops}

    def _last(self, arrays: Arrays) -> Arrays:
        if self._plan.secondaries:
            (model,) = self._plan.secondaries
            return dict(self._graph.answer(arrays, _of_model(model.name, arrays)))
        return dict(self._graph.cut(arrays["pictures"], _of_model("detector", arrays)).tensors)

    def _call(self, name: str, pictures: NDArray[np.uint8]) -> Arrays:
        """Run a model of the plan in this server; what numpy reads has to be in the processor's memory."""
        model = self._plan.model(name)
        request = pb_utils.InferenceRequest(
            model_name=model.info.name,
            model_version=model.version or -1,
            requested_output_names=[tensor.name for tensor in model.info.outputs],
            inputs=[pb_utils.Tensor(model.info.inputs[0].name, pictures)],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            what = model.info.name if name == "detector" else f"{name} ({model.info.name})"
            raise _StageError(f"{what}: {response.error().message()}")
        self._held.append(response)
        return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}

    def _response(self, arrays: Arrays) -> Any:
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, arrays[name]) for name in self._outputs])


_PARTS: Mapping[str, Any] = {
    "whole": TritonPythonModel._whole,
    "prepare": TritonPythonModel._prepare,
    "cut": TritonPythonModel._cut,
    "answer": TritonPythonModel._last,
}


def _of_model(name: str, arrays: Arrays) -> Arrays:
    """A model's outputs, by their own names, of tensors called ``NAME/TENSOR``."""
    return {key.removeprefix(f"{name}/"): values for key, values in arrays.items() if key.startswith(f"{name}/")}


def _load(folder: Path) -> tuple[Any, Any]:
    """The plan, and what runs it."""
    sys.dont_write_bytecode = True  # the repository is not ours to write into
    sys.path.insert(0, str(folder / _MODULES))
    try:
        import cv2

        from streamproc.serving.graph import Graph
        from streamproc.serving.plan import Plan
    except ImportError as exc:
        found = ".".join(map(str, sys.version_info[:2]))
        raise pb_utils.TritonModelException(
            f"the cascade cannot be loaded: {exc}. Triton's Python (here {found}) must be 3.11 or later, with numpy "
            "and opencv-python-headless"
        ) from exc
    cv2.setNumThreads(1)  # instances are what works side by side
    plan = Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
    return plan, Graph(plan)
