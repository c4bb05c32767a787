"""The configurations to copy are good ones, and the README's too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamproc.config import load_config

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"GATE_PASSWORD": "p@ss/word", "MQTT_PASSWORD": "secret"}
NAMED_FILES = (
    "yolov8n.onnx",
    "plates.onnx",
    "lprnet.onnx",
    "osnet.onnx",
    "text_det.onnx",
    "text_rec.onnx",
    "text_cls.onnx",
    "recordings/gate-1.mp4",
    "recordings/gate-2.mp4",
    "recordings/yard.mkv",
    "recordings/yard-1.mp4",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place where every file that they name exists."""
    for name in NAMED_FILES:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return tmp_path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_load(folder: Path, path: Path) -> None:
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    assert load_config(copy, environ=ENVIRONMENT).cameras


def test_the_sample_configuration_loads_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(ROOT / "samples" / "cameras.yaml", environ={})
    assert list(config.cameras) == ["gate", "yard", "crossing", "plaza"]


def test_the_readmes_configuration_loads_and_has_ten_lines(folder: Path) -> None:
    example, *_ = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 10
    copy = folder / "cameras.yaml"
    copy.write_text(example)
    config = load_config(copy, environ=ENVIRONMENT)
    assert [len(camera.files) for camera in config.cameras.values()] == [0, 1]
