"""Media servers for tests: a real RTSP server that records what is pushed to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cameras import PACKAGES

__all__ = ["record"]

SERVER = Path(__file__).with_name("rtsp_recorder.py")


@contextmanager
def record(folder: Path, *names: str, port: int = 0, options: tuple[str, ...] = ()) -> Iterator[tuple[int, int]]:
    """A server that writes what is pushed to /NAME into FOLDER/NAME.h264: its port and its process id; killed in the
    end. ``options`` as of ``rtsp_recorder.py``."""
    command = ["/usr/bin/python3", str(SERVER), str(folder), *names, "--port", str(port), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told:
                pytest.fail(f"the RTSP server of this test did not start; it needs the system packages {PACKAGES}")
            yield int(told), process.pid
        finally:
            process.kill()
