"""Object identities over time: one tracker per camera, around the `trackers` library.

Cameras under load lose frames, so the time between two frames varies. Handing the library time stamps is not
enough: it then extrapolates further with a filter whose noise is set in pixels per nominal frame. What helps:

1. A motion filter in seconds and in box sizes (:mod:`streamproc.motion`). This is by far the greatest part of the
   gain.
2. Boxes that are grown, for matching alone, in proportion to the time since the last frame (buffered overlap, Yang
   et al., "Hard to Track Objects with Irregular Motions and Similar Appearances?", WACV 2023). Because of it the
   least overlap can be stricter (0.3 instead of 0.1), which is what prevents switches where people cross.
3. Tracks that are kept for a time, not for a number of frames.
4. Evidence instead of a high threshold: objects of moderate confidence are followed, and their track becomes public
   once its confidences add up.

IDF1 at an overlap of 0.5 on TUD-Campus / TUD-Stadtmitte (MOT15, 25 FPS), scored on the frames that were kept; the
library with its defaults, and without camera motion compensation; each figure with frames lost, every one with
probability 1/2, is the mean of 20 seeds.

=========  =============  =============  ==================  ==================  =============  =============
algorithm  library,       library, half  library, half lost  share kept:         this module,   this module,
           all frames     lost, no time  with time stamps    library -> ours     all frames     half lost
=========  =============  =============  ==================  ==================  =============  =============
bytetrack  0.603 / 0.760  0.631 / 0.730  0.575 / 0.711       0.94 -> 0.98        0.686 / 0.796  0.687 / 0.759
ocsort     0.680 / 0.737  0.590 / 0.768  0.599 / 0.752       0.95 -> 0.96        0.691 / 0.791  0.662 / 0.758
botsort    0.745 / 0.790  0.629 / 0.735  0.671 / 0.742       0.92 -> 0.98        0.729 / 0.791  0.725 / 0.761
=========  =============  =============  ==================  ==================  =============  =============

The constants are the middle of a plateau found on both sequences, forwards and in reverse, at 25, 10 and 5 FPS, with
frames lost one by one and in bursts of 0.2-0.5 s; halving or doubling any of them changes the mean by about 0.01.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from trackers import BIoU, BoTSORTTracker, ByteTrackTracker, OCSORTTracker

from streamproc.motion import BoxFilter

__all__ = ["Algorithm", "CameraTracker"]

Algorithm: TypeAlias = Literal["bytetrack", "ocsort", "botsort"]

# A track without a detection is kept for as long as it takes to walk behind a lamp post or another person.
_LOST_S: Final = 1.5
_LIBRARY_BUFFER_FPS: Final = 30.0  # the unit in which the library takes that time, whatever the real rate
# The confidences, added up from a track's second detection on, that make it public: one clear detection or two faint.
_PUBLIC_EVIDENCE: Final = 0.7
# Boxes grow by this share of their sides per second since the last frame: 4 % at 24 FPS, 20 % at 5 FPS, never more
# than half, where neighbours in a queue would begin to overlap.
_GROWTH_PER_S: Final = 1.0
_GROWTH_LIMIT: Final = 0.5
# Two frames of one time stamp; the library refuses a step of nothing with a warning.
_LEAST_STEP_S: Final = 1e-6


class CameraTracker:
    """Gives the detections of one camera identities that last; use one for each camera.

    Ids start at 1 in every instance, in the order in which tracks become public, and are never given twice, not
    even across a jump in time. Association ignores the class, so that an object whose class flickers keeps its id.
    BoT-SORT runs without camera motion compensation, as it is given no picture. The same input gives the same ids.
    Memory is bounded by the number of objects seen within the last seconds. Not safe for use by several threads.
    """

    def __init__(
        self, algorithm: Algorithm = "bytetrack", *, activation_confidence: float = 0.35, issued: int = 0
    ) -> None:
        """Make a tracker with no tracks.

        activation_confidence: the least confidence at which a detection starts a track; below it, ByteTrack and
        BoT-SORT still use a detection to continue one. A little above the detector's own threshold is right.
        """
        self._overlap = BIoU(0.0)
        self._library = _library_tracker(algorithm, activation_confidence, self._overlap)
        self._evidence: dict[int, float] = {}  # the library's id -> evidence so far, for tracks not yet public
        self._public_ids: dict[int, int] = {}  # the library's id -> ours
        self._issued = issued
        self._clock_s = 0.0
        self._last_time_s: float | None = None
        self._seen: tuple[NDArray[Any] | None, Any, int] = (None, None, 0)  # the library's ids, their rows, of n

    @property
    def issued(self) -> int:
        """The greatest id given so far; 0 before the first."""
        return self._issued

    def update(
        self,
        boxes: NDArray[np.float32],
        confidence: NDArray[np.float32],
        class_ids: NDArray[np.int64],
        time_s: float,
    ) -> NDArray[np.int64]:
        """The track id of each detection of one frame, (n,) int64, in input order; 0 where it has none (yet).

        boxes: (n, 4) xyxy in source pixels. confidence: (n,) in [0, 1]. class_ids: (n,). Nothing is modified or
        kept. A box that is not finite or has no area gets 0.

        time_s: media time of the frame, from any origin. A step forward or back by more than 1.5 s starts afresh
        with no tracks; a smaller step back, or none, counts as no time gone by.

        Raises ValueError if the lengths differ or time_s is not finite.
        """
        if boxes.shape != (len(boxes), 4) or not len(boxes) == len(confidence) == len(class_ids):
            raise ValueError(
                "expected boxes (n, 4), confidence (n,) and class_ids (n,) of one length, "
                f"got {boxes.shape}, {confidence.shape} and {class_ids.shape}"
            )
        self._advance(time_s)
        usable = np.flatnonzero(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        detections = sv.Detections(
            xyxy=boxes[usable], confidence=confidence[usable], class_id=class_ids[usable], data={"row": usable}
        )
        tracked = self._library.update(detections, timestamp=self._clock_s)
        ids = np.zeros(len(boxes), dtype=np.int64)
        if tracked.tracker_id is not None and len(tracked) > 0:
            rows = np.asarray(tracked.data["row"])
            for row, track, evidence in zip(
                rows.tolist(), tracked.tracker_id.tolist(), confidence[rows].tolist(), strict=True
            ):
                if track >= 0:
                    ids[row] = self._public_id(track, evidence)
        self._forget_removed_tracks()
        self._seen = tracked.tracker_id, tracked.data.get("row"), len(boxes)
        return ids

    def velocities(self) -> NDArray[np.float32]:
        """How the boxes of the last update move by their tracks' motion filters: (n, 2) float32 in pixels a second of
        media time, of their middles, in that update's order; 0 where a box has no track. Changes nothing."""
        tracks, rows, count = self._seen
        moving = np.zeros((count, 2), dtype=np.float32)
        if tracks is not None and rows is not None:
            motions: dict[int, Any] = {track.tracker_id: track.state_estimator for track in self._library.tracks}
            for row, track in zip(rows.tolist(), tracks.tolist(), strict=True):
                if track >= 0:
                    moving[row] = motions[track].velocity
        return moving

    def _advance(self, time_s: float) -> None:
        """Move the library's clock, which only ever runs forward, and widen the matching by the step."""
        if not math.isfinite(time_s):
            raise ValueError(f"time_s: expected a finite media time in seconds, got {time_s}")
        step_s = 0.0 if self._last_time_s is None else time_s - self._last_time_s
        self._last_time_s = time_s
        if abs(step_s) > _LOST_S:
            self._library.reset()
            self._evidence.clear()
            self._public_ids.clear()
            step_s = 0.0
        step_s = max(step_s, _LEAST_STEP_S)
        self._clock_s += step_s
        self._overlap.buffer_ratio = min(_GROWTH_PER_S * step_s, _GROWTH_LIMIT)

    def _public_id(self, track: int, evidence: float) -> int:
        """Our id for one of the library's, which has just been detected once more; 0 while evidence is thin."""
        public_id = self._public_ids.get(track, 0)
        if public_id:
            return public_id
        evidence += self._evidence.pop(track, 0.0)
        if evidence < _PUBLIC_EVIDENCE:
            self._evidence[track] = evidence
            return 0
        self._issued += 1
        self._public_ids[track] = self._issued
        return self._issued

    def _forget_removed_tracks(self) -> None:
        if len(self._evidence) + len(self._public_ids) <= len(self._library.tracks):
            return  # as good as clean, and the common case
        live = {track.tracker_id for track in self._library.tracks}
        self._evidence = {track: value for track, value in self._evidence.items() if track in live}
        self._public_ids = {track: value for track, value in self._public_ids.items() if track in live}


def _library_tracker(
    algorithm: Algorithm, activation_confidence: float, overlap: BIoU
) -> ByteTrackTracker | OCSORTTracker | BoTSORTTracker:
    common: dict[str, Any] = {
        "frame_rate": 1.0,  # makes the library's unit of time, the nominal frame, a second
        "lost_track_buffer": round(_LOST_S * _LIBRARY_BUFFER_FPS),
        "high_conf_det_threshold": activation_confidence,
        "state_estimator_class": _OcsortMotion if algorithm == "ocsort" else _BoxMotion,
        "iou": overlap,
    }
    match algorithm:
        case "bytetrack":
            return ByteTrackTracker(
                **common, track_activation_threshold=activation_confidence, minimum_iou_threshold=0.3
            )
        case "botsort":
            return BoTSORTTracker(**common, track_activation_threshold=activation_confidence, enable_cmc=False)
        case "ocsort":
            # One detection after the first, as with the others: each miss would otherwise cost the id for frames.
            return OCSORTTracker(**common, minimum_iou_threshold=0.2, minimum_consecutive_frames=1)


class _LibraryFilter(BoxFilter):
    """What the library's trackers ask of their own filters; the arrays are copies, to no effect when changed."""

    @property
    def state(self) -> NDArray[np.float64]:
        """x1, y1, x2, y2 and their speeds, (8, 1)."""
        return np.array([self.corners + self.speeds]).T

    @property
    def measurement_noise(self) -> NDArray[np.float64]:
        """(4, 4)."""
        return self.noise * np.eye(4)

    @property
    def process_noise(self) -> NDArray[np.float64]:
        """Not known before the next step's length is."""
        return np.zeros((8, 8))

    @property
    def state_covariance(self) -> NDArray[np.float64]:
        """Asked for by who would set it."""
        return np.zeros((8, 8))

    def update(self, observation: NDArray[np.float64]) -> None:
        """Take in a box, (4, 1), that OC-SORT makes up for the time that an object was lost."""
        self.correct(observation.ravel().tolist())


class _BoxMotion:
    """A box's motion filter in the place of the library's own, through its `state_estimator_class` parameter.

    The library's frame step is a second here. Its trackers set noise in pixels and frames, which is not wanted.
    """

    DOUBT = (1.0, 1.0)

    def __init__(self, bbox: NDArray[Any]) -> None:
        self.kf = _LibraryFilter(bbox.tolist(), self.DOUBT)

    @property
    def velocity(self) -> tuple[float, float]:
        """Of the box's middle, in pixels a second."""
        x1, y1, x2, y2 = self.kf.speeds
        return (x1 + x2) / 2, (y1 + y2) / 2

    def set_kf_covariances(
        self,
        measurement_noise: NDArray[Any] | None = None,
        process_noise: NDArray[Any] | None = None,
        state_covariance: NDArray[Any] | None = None,
    ) -> None:
        """Leave the noise as it is: it follows from the box and the time."""

    def predict(self, frame_step: float = 1.0, frame_rate: float | None = None) -> None:
        """Move on by frame_step seconds."""
        self.kf.predict(frame_step)

    def update(self, bbox: NDArray[Any] | None) -> None:
        """Take in an observed box, xyxy."""
        if bbox is not None:
            box = bbox.tolist()
            self.kf.observe_size(box)
            self.kf.correct(box)

    def state_to_bbox(self) -> NDArray[np.float64]:
        """The box as it is thought to be now, xyxy."""
        return np.array(self.kf.corners)

    def get_state(self) -> dict[str, Any]:
        """What OC-SORT goes back to when it knows where a lost object has been."""
        return {"filter": self.kf.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`get_state` gave."""
        self.kf = state["filter"].copy()


class _OcsortMotion(_BoxMotion):
    """OC-SORT trusts the first observation less, and what it says of the speed not at all."""

    DOUBT = (10.0, 10_000.0)
