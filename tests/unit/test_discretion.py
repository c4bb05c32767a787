"""Libraries are kept from reporting their use, and nothing else changes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from streamproc.discretion import without_telemetry


def test_the_telemetry_cannot_be_imported_within() -> None:
    with without_telemetry(), pytest.raises(ModuleNotFoundError):
        importlib.import_module("openvino_telemetry")


@pytest.mark.parametrize("was_there", [True, False])
def test_afterwards_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch, was_there: bool) -> None:
    if was_there:
        monkeypatch.setitem(sys.modules, "openvino_telemetry", ModuleType("openvino_telemetry"))
    else:
        monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    before = sys.modules.get("openvino_telemetry")
    with pytest.raises(ValueError, match="within"), without_telemetry():
        raise ValueError("within")
    assert sys.modules.get("openvino_telemetry") is before


def test_the_engine_leaves_nothing_behind(tmp_path: Path) -> None:
    code = "import sys, streamproc.engines.openvino; sys.exit('openvino_telemetry' in sys.modules)"
    home = os.environ | {"HOME": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=home, timeout=60).returncode == 0
    assert list(tmp_path.iterdir()) == []
