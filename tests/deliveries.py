"""Results to hand to sinks, and the books that their answers end up in."""

from __future__ import annotations

import time

import numpy as np

from streamproc.ledger import CameraLedger
from streamproc.sinks.base import Delivery
from streamproc.types import Detections, Frame, FrameResult, Picture

__all__ = ["Deliveries"]


class Deliveries:
    """Makes one camera's deliveries, booked as received, decoded and inferred in its ``ledger``."""

    def __init__(self, camera: str, *, max_age_ms: float | None, objects: int = 10) -> None:
        self.ledger = CameraLedger(camera)
        self._camera = camera
        self._max_age_ms = max_age_ms
        self._made = 0
        half = np.zeros((1, 1), dtype=np.uint8)
        self._picture = Picture(planes=(np.zeros((2, 2), dtype=np.uint8), half, half), layout="yuv420p")
        corners = np.arange(objects * 4, dtype=np.float32).reshape(objects, 4)
        self._found = Detections.of(corners, np.full(objects, 0.5, dtype=np.float32), np.zeros(objects, dtype=np.int64))

    def make(self, *, age_ms: float = 0.0, receivers: int = 1) -> Delivery:
        """The next frame's delivery, ``age_ms`` after its capture."""
        captured_ns = time.monotonic_ns() - int(age_ms * 1e6)
        frame = Frame(
            camera=self._camera,
            seq=self._made,
            pts_s=self._made / 24,
            captured_ns=captured_ns,
            captured_utc_ns=time.time_ns(),
            live=self._max_age_ms is not None,
            picture=self._picture,
        )
        self._made += 1
        self.ledger.received()
        self.ledger.decoded(captured_ns)
        self.ledger.inferred()
        result = FrameResult(frame=frame, detections=self._found, labels=("person",), model="yolov8n")
        return Delivery(result, self.ledger, receivers=receivers, max_age_ms=self._max_age_ms)

    @property
    def unanswered(self) -> int:
        """Deliveries made and not yet answered by every receiver."""
        return sum(self.ledger.tally().in_flight().values())
