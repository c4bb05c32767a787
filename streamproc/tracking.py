"""Object identities over time: one tracker per camera, around the `trackers` library.

Cameras under load lose frames, so the time between two frames varies. Handing the library time stamps is not
enough: it then extrapolates further with a filter whose noise is set in pixels per nominal frame. What helps:

1. A motion filter in seconds and in box sizes. Its noise is that of continuous white acceleration (Bar-Shalom, Li,
   Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, section 6.2.2), so that one step of
   80 ms leaves exactly the uncertainty of two of 40 ms, and a box near the camera moves like one far away. This is
   by far the greatest part of the gain.
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
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from trackers import BIoU, BoTSORTTracker, ByteTrackTracker, OCSORTTracker
from trackers.utils.state_representations import XYXYStateEstimator

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

# The motion filter, in units of a box's side (the root of its area) and seconds. Only ratios matter; a person in
# view is about 1.1 m by that measure, so walks at 1.3 sides a second.
_DETECTION_SIGMA: Final = 0.06
_SPEED_SIGMA: Final = 1.0
_RESIZE_SPEED_SIGMA: Final = 0.3
_ACCELERATION: Final = 0.2  # side / s^1.5, the root of the spectral density
_RESIZE_ACCELERATION: Final = 0.1

# How x1, y1, x2, y2 vary together: in the same direction when a box moves, in opposite ones when it grows.
_MOVE: Final = np.kron(np.array([[1.0, 1.0], [1.0, 1.0]]), np.eye(2))
_RESIZE: Final = np.kron(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.eye(2)) / 4
_MEASUREMENT_NOISE: Final = _DETECTION_SIGMA**2 * np.eye(4)


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
            speeds = {track.tracker_id: track.state_estimator.kf.state[4:, 0] for track in self._library.tracks}
            for row, track in zip(rows.tolist(), tracks.tolist(), strict=True):
                if track >= 0:
                    x1, y1, x2, y2 = speeds[track].tolist()
                    moving[row] = (x1 + x2) / 2, (y1 + y2) / 2
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
        "state_estimator_class": _BoxMotion,
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


@lru_cache(maxsize=64)  # all tracks of a frame, and often all cameras, take the same step
def _motion_over(step_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Transition and process noise, both (8, 8) and for a box of side 1, of steady motion over step_s seconds."""
    transition = np.eye(8)
    transition[:4, 4:] = step_s * np.eye(4)
    density = _ACCELERATION**2 * _MOVE + _RESIZE_ACCELERATION**2 * _RESIZE
    noise = np.kron(np.array([[step_s**3 / 3, step_s**2 / 2], [step_s**2 / 2, step_s]]), density)
    transition.setflags(write=False)
    noise.setflags(write=False)
    return transition, noise


class _BoxMotion(XYXYStateEstimator):
    """The corners of a box and their speeds, in seconds and with noise in proportion to the box.

    Takes the place of the library's estimators through its own `state_estimator_class` parameter. The library's
    frame step is a second here. Its trackers set noise in pixels and frames, which is not wanted.
    """

    def __init__(self, bbox: NDArray[Any]) -> None:
        super().__init__(bbox)
        self._observe_size(bbox)
        speed = _SPEED_SIGMA**2 * _MOVE + _RESIZE_SPEED_SIGMA**2 * _RESIZE
        self.kf.state_covariance = np.zeros((8, 8))
        self.kf.state_covariance[:4, :4] = self.kf.measurement_noise
        self.kf.state_covariance[4:, 4:] = self._area * speed

    def set_kf_covariances(
        self,
        measurement_noise: NDArray[Any] | None = None,
        process_noise: NDArray[Any] | None = None,
        state_covariance: NDArray[Any] | None = None,
    ) -> None:
        """Leave the noise as it is: it follows from the box and the time."""

    def predict(self, frame_step: float = 1.0, frame_rate: float | None = None) -> None:
        """Move on by frame_step seconds; a box that would shrink to nothing stays one pixel wide and high."""
        self.kf.transition_mtx, noise = _motion_over(frame_step)
        self.kf.process_noise = self._area * noise
        self.kf.predict()
        x1, y1, x2, y2 = self.kf.state[:4, 0].tolist()
        if x2 - x1 < 1.0:
            self.kf.state[[0, 2], 0] = (x1 + x2 - 1.0) / 2, (x1 + x2 + 1.0) / 2
        if y2 - y1 < 1.0:
            self.kf.state[[1, 3], 0] = (y1 + y2 - 1.0) / 2, (y1 + y2 + 1.0) / 2

    def update(self, bbox: NDArray[Any] | None) -> None:
        """Take in an observed box, xyxy."""
        if bbox is not None:
            self._observe_size(bbox)
        super().update(bbox)

    def _observe_size(self, bbox: NDArray[Any]) -> None:
        x1, y1, x2, y2 = bbox.tolist()
        self._area = max((x2 - x1) * (y2 - y1), 1.0)
        self.kf.measurement_noise = self._area * _MEASUREMENT_NOISE
