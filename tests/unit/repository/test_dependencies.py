"""A missing optional package is named, with what to install."""

from __future__ import annotations

import pytest

from streamproc.errors import DependencyError
from streamproc.repository.dependencies import needing_onnx, needing_openvino


def test_a_missing_package_is_named() -> None:
    said = r"models build needs the Python package onnx,.*streamproc\[onnxruntime\]"
    with pytest.raises(DependencyError, match=said), needing_onnx("models build"):
        raise ModuleNotFoundError("no", name="onnx.helper")


def test_what_only_int8_needs_has_an_extra_of_its_own() -> None:
    said = r"precision int8 needs the Python package openvino,.*streamproc\[int8\]"
    with pytest.raises(DependencyError, match=said), needing_openvino("precision int8"):
        raise ModuleNotFoundError("no", name="openvino")


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), needing_onnx("models build"):
        raise ModuleNotFoundError("no", name="streamproc.absent")
