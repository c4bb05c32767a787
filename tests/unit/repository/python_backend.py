"""The scripts that Triton's Python backend runs, without Triton."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray

from streamproc.repository.build import BuiltModel
from streamproc.repository.config_pbtxt import read_config

__all__ = ["Response", "Tensor", "load", "use_backend"]


@dataclass
class Tensor:
    """A tensor of a request or a response."""

    name: str
    values: NDArray[Any]

    def as_numpy(self) -> NDArray[Any]:
        return self.values


@dataclass
class Response:
    """An answer: tensors, or what went wrong."""

    tensors: Sequence[Tensor] = ()
    error: str | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        assert self.error is None, self.error
        return next(tensor.values for tensor in self.tensors if tensor.name == name)


def use_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give scripts what they import of Triton's; requests are mappings of tensors by name."""
    backend: Any = ModuleType("triton_python_backend_utils")
    backend.Tensor, backend.InferenceResponse, backend.TritonError = Tensor, Response, str
    backend.TritonModelException = RuntimeError
    backend.get_input_tensor_by_name = lambda request, name: request[name]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)


def load(model: BuiltModel, *, kind: str = "CPU", device: int = 0) -> Any:
    """An instance of a built model, as Triton makes one on a processor or a GPU."""
    spec = importlib.util.spec_from_file_location("served", model.folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = read_config(model.folder.parent / "config.pbtxt")
    text = MessageToJson(config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    instance = module.TritonPythonModel()
    instance.initialize(
        {
            "model_config": text,
            "model_repository": str(model.folder.parent.absolute()),
            "model_version": str(model.version),
            "model_instance_kind": kind,
            "model_instance_device_id": str(device),
        }
    )
    return instance
