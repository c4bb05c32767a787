"""Where a camera's objects are by now, in a frame that was not inferred: carried on from its recent results."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamproc.about import About
from streamproc.types import Detections, Frame, FrameResult

__all__ = ["Past"]

_HORIZON_S = 1.0
"""Objects are carried for so long: people have turned and cars have passed by then. Also how far back is looked."""
_FADE_S = 0.2
"""In so long a sighting's weight in an object's velocity falls to 1/e. On a plateau from 0.15 to 0.5 s: on the samples'
true boxes, made to tremble by 2 % of their sides, carried boxes overlap the true ones by 0.88, 0.84 and 0.80 (IoU,
mean) when every 3rd, 6th and 12th frame of 24 a second is inferred; boxes left where they were, 0.83, 0.75 and 0.62."""
_MOST_SIGHTINGS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    """A result without its picture; ``about`` by track."""

    pts_s: float
    captured_ns: int
    size: tuple[int, int]
    detections: Detections
    labels: tuple[str, ...]
    model: str
    about: Mapping[int, About | None]

    def continues(self, earlier: _Sighting) -> bool:
        return self.size == earlier.size and self.captured_ns - earlier.captured_ns <= _HORIZON_S * 1e9


@dataclass(frozen=True, slots=True)
class Past:
    """A camera's results of the last second, without their pictures. A value: any thread may keep it.

    A pause or another picture size begins anew.
    """

    _sightings: tuple[_Sighting, ...] = ()

    def then(self, result: FrameResult) -> Past:
        """The past with one more result, of a later frame."""
        frame = result.frame
        latest = _Sighting(
            pts_s=frame.pts_s,
            captured_ns=frame.captured_ns,
            size=frame.picture.size,
            detections=result.detections,
            labels=result.labels,
            model=result.model,
            about=dict(zip(result.detections.track_ids.tolist(), result.about, strict=False)),
        )
        if self._sightings and not latest.continues(self._sightings[-1]):
            return Past((latest,))
        oldest_s = latest.pts_s - _HORIZON_S
        recent = itertools.dropwhile(lambda sighting: sighting.pts_s < oldest_s, self._sightings)
        return Past((*recent, latest)[-_MOST_SIGHTINGS:])

    def carried_to(self, frame: Frame) -> FrameResult:
        """The last result's objects where they should be in this frame; none a second after that result.

        Tracked ones have moved on at the velocity of their boxes' middles and kept their size, the others are where
        they were. Boxes are clipped to the picture, and what has left it is left out. Confidences are the last ones.
        """
        if not self._reaches(frame):
            nothing = Detections.of(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
            return FrameResult(frame=frame, detections=nothing, labels=(), model="")
        last = self._sightings[-1]
        detections = last.detections.moved(self._velocities() * (frame.pts_s - last.pts_s), last.size)
        return FrameResult(
            frame=frame,
            detections=detections,
            labels=last.labels,
            model=last.model,
            about=tuple(last.about.get(track_id) if track_id else None for track_id in detections.track_ids.tolist())
            if last.about
            else (),
        )

    def _reaches(self, frame: Frame) -> bool:
        if not self._sightings:
            return False
        last = self._sightings[-1]
        # Media time steps over the time that a camera was away; the clock of captures does not.
        age_s = max(frame.pts_s - last.pts_s, (frame.captured_ns - last.captured_ns) / 1e9)
        return age_s <= _HORIZON_S and frame.picture.size == last.size

    def _velocities(self) -> NDArray[np.float64]:
        """(n, 2) pixels a second of media time for each of the last result's objects: the slope of the straight line
        through its boxes' middles by weighted least squares; 0 where it was seen once, or has no track."""
        found, now_s = self._sightings[-1].detections, self._sightings[-1].pts_s
        ids = np.concatenate([sighting.detections.track_ids for sighting in self._sightings])
        boxes = np.concatenate([sighting.detections.boxes for sighting in self._sightings]).astype(np.float64)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        counts = [len(sighting.detections) for sighting in self._sightings]
        times_s = np.repeat([sighting.pts_s - now_s for sighting in self._sightings], counts)
        same = (ids == found.track_ids[:, None]) & (ids > 0)
        weights = np.where(same, np.exp(times_s / _FADE_S), 0.0)
        weight, time = weights.sum(axis=1, keepdims=True), (weights @ times_s)[:, None]
        spread = weight * (weights @ times_s**2)[:, None] - time**2
        covariance = weight * (weights @ (times_s[:, None] * middles)) - time * (weights @ middles)
        # Rounding apart, a spread as small as that means a single moment.
        slopes: NDArray[np.float64] = np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 1e-9)
        return slopes
