"""What runs in the server is copied beside the served model, with all that it imports: that must be little."""

from __future__ import annotations

import subprocess
import sys

_LIST = """
import sys
before = set(sys.modules)
import streamproc.serving.graph
print(*set(sys.modules) - before)
"""


def test_the_server_needs_numpy_and_opencv_alone() -> None:
    done = subprocess.run([sys.executable, "-c", _LIST], capture_output=True, text=True, check=True, timeout=60)
    imported = done.stdout.split()
    packages = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert packages == {"streamproc", "numpy", "cv2"}
    rooms = {".".join(name.split(".")[:2]) for name in imported if name.startswith("streamproc.")}
    known = (
        "about",
        "crops",
        "engines",
        "errors",
        "grids",
        "models",
        "packing",
        "preprocess",
        "sampling",
        "serving",
        "types",
    )
    assert rooms <= {f"streamproc.{room}" for room in known}
