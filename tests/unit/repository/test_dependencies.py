"""A missing optional package is named, with what to install."""

from __future__ import annotations

import pytest

from streamproc.errors import DependencyError
from streamproc.repository.dependencies import needing_onnx


def test_a_missing_package_is_named() -> None:
    said = r"models build needs the Python package onnx,.*streamproc\[onnxruntime\]"
    with pytest.raises(DependencyError, match=said), needing_onnx("models build"):
        raise ModuleNotFoundError("no", name="onnx.helper")


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), needing_onnx("models build"):
        raise ModuleNotFoundError("no", name="streamproc.absent")
