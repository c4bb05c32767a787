"""Fixtures that every kind of test shares."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.triton import RunningServer, running_server, tiny_repository

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


@pytest.fixture(scope="session")
def tiny_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real Triton server with the models of the engines' contract, for tests that leave it as it is."""
    with running_server(tiny_repository(tmp_path_factory.mktemp("models"))) as server:
        yield server


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A command that a test runs in this process says how much is logged; the next test is not to feel it."""
    log = logging.getLogger("streamproc")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(autouse=True, scope="session")
def _one_opencv_thread() -> None:
    """OpenCV's own threads only get in each other's way here, as in the application."""
    cv2.setNumThreads(1)
