"""Files that begin as TensorRT plans do."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

__all__ = ["BODY", "METADATA", "write_plan"]

BODY = b"ftrt" + struct.pack("<I", 0) + bytes(16) + bytes([10, 3, 0, 26]) + b"weights" * 10
METADATA = {"names": {"0": "person"}, "imgsz": [64, 96], "stride": 32, "batch": 1}


def write_plan(path: Path, *, body: bytes = BODY, metadata: Any = None) -> Path:
    """Write a plan, with an exporter's header in front where there is metadata."""
    head = b""
    if metadata is not None:
        text = json.dumps(metadata).encode()
        head = struct.pack("<I", len(text)) + text
    path.write_bytes(head + body)
    return path
