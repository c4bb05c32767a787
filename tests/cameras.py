"""Cameras for tests: a real RTSP server that plays a file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["serve", "start_server"]

SERVER = Path(__file__).with_name("rtsp_camera.py")
PACKAGES = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good python3-gi"


@contextmanager
def serve(path: Path, *login: str, options: Sequence[str] = ()) -> Iterator[int]:
    """An RTSP server that plays ``path`` as /cam; its port. ``options`` as of ``rtsp_camera.py``."""
    with start_server(path, *login, options=options) as (_, port):
        yield port


@contextmanager
def start_server(path: Path, *login: str, options: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The server's process, killed in the end, and its port."""
    command = ["/usr/bin/python3", str(SERVER), str(path), *options, *(["--login", *login] if login else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            if not port:
                pytest.fail(f"the RTSP server of this test did not start; it needs the system packages {PACKAGES}")
            yield process, int(port)
        finally:
            process.kill()
