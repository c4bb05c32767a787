"""Libraries that report their use to their makers, kept from it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_telemetry"]

_TELEMETRY = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """OpenVINO and NNCF, imported in this block, find no telemetry, which is their own way to do without.

    Otherwise importing either writes an identifier into the user's home and connects to an analytics service.
    """
    known = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how an import is made to fail
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if known is not None:
            sys.modules[_TELEMETRY] = known
