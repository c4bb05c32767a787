"""Fixtures that every kind of test shares."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The project's shared test data, beside the checkout; a test that needs it fails by name where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.fail(f"this test needs the shared test data at {folder}; deselect it with -m 'not shared_data'")
    return folder


@pytest.fixture(scope="session")
def samples() -> Path:
    """The self-made sample world."""
    return ROOT / "samples"


@pytest.fixture(autouse=True, scope="session")
def _one_opencv_thread() -> None:
    """OpenCV's own threads only get in each other's way here, as in the application."""
    cv2.setNumThreads(1)
