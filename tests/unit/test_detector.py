"""What a model's section of the configuration becomes when the model is built for a server of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.config import ModelConfig, PixelsConfig
from streamproc.detector import _build
from streamproc.graphs.reading import read_onnx
from streamproc.repository.config_pbtxt import parameters_of, read_config
from streamproc.triton_server import folders
from tests.unit.repository.detectors import save_detector


def test_the_built_model_has_the_pictures_that_are_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "cache_folder", lambda: tmp_path / "cache")
    path = save_detector(tmp_path / "tiny.onnx")
    plain = _build(ModelConfig(path=path), has_backends=True)
    pixels = PixelsConfig(color="bgr", mean=(10, 20, 30), scale=(0.004, 0.004, 0.004))
    other = _build(ModelConfig(path=path, pixels=pixels, fit="stretch"), has_backends=True)
    assert plain != other
    kinds = [
        {node.op_type for node in read_onnx(repository / "tiny" / "1" / "model.onnx").graph.node}
        for repository in (plain, other)
    ]
    assert kinds[1] - kinds[0] == {"Sub", "Gather"}
    assert parameters_of(read_config(other / "tiny" / "config.pbtxt"))["fit"] == "stretch"
