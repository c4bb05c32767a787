"""The machine that is measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["processor"]


def processor() -> tuple[str, int]:
    """What this machine's processor calls itself, and how many of its cores we may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # ARM has no such line: the architecture has to do.
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return name, len(os.sched_getaffinity(0))
