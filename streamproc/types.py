"""What moves between stages: frozen, slotted, checked once where it is made.

Boxes are xyxy in source-image pixels, float32, everywhere outside post-processing. Arrays are read-only for whoever
receives them. Latency is measured on the monotonic clock, events are stamped in UTC, and media time is neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.about import About

__all__ = [
    "AccessUnit",
    "CameraState",
    "CameraStatus",
    "ColorMatrix",
    "Detections",
    "Fit",
    "Frame",
    "FrameResult",
    "Letterbox",
    "Picture",
    "PixelLayout",
    "Rotation",
    "UInt8Array",
]

UInt8Array: TypeAlias = NDArray[np.uint8]
PixelLayout: TypeAlias = Literal["yuv420p", "nv12", "rgb24"]
ColorMatrix: TypeAlias = Literal["bt601", "bt709", "bt2020"]
Rotation: TypeAlias = Literal[0, 90, 180, 270]
Fit: TypeAlias = Literal["letterbox", "top_left", "stretch"]
"""How a picture lies in a model's input: in the middle, or in the top left corner, with grey beside it; or filling the
input, each side scaled by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture, 8 bits a sample: in the native YUV of the decoder that it comes from, or in RGB where it was
    converted before, as a served cascade gets it.

    ``planes``: uint8 views into the decoder's buffers (which they keep alive), never written to. ``yuv420p``:
    Y (h, w), U and V (⌈h/2⌉, ⌈w/2⌉); ``nv12``: Y (h, w) and interleaved UV (⌈h/2⌉, ⌈w/2⌉, 2); ``rgb24``: RGB (h, w, 3).
    ``rotation`` is the clockwise turn, in degrees, that brings the stored picture upright. ``matrix`` and
    ``full_range`` are of YUV alone; ``full_range``: samples use 0..255 rather than 16..235/240.
    """

    planes: tuple[UInt8Array, ...]
    layout: PixelLayout
    rotation: Rotation = 0
    matrix: ColorMatrix = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        height, width = self.planes[0].shape[:2]
        half = ((height + 1) // 2, (width + 1) // 2)
        expected: tuple[tuple[int, ...], ...]
        match self.layout:
            case "yuv420p":
                expected = ((height, width), half, half)
            case "nv12":
                expected = ((height, width), (*half, 2))
            case "rgb24":
                expected = ((height, width, 3),)
        actual = tuple(plane.shape for plane in self.planes)
        if actual != expected:
            raise ValueError(f"{self.layout} planes: expected shapes {expected}, got {actual}")

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels as stored, before rotation."""
        height, width = self.planes[0].shape[:2]
        return width, height

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as shown, after rotation: the space that boxes live in."""
        width, height = self.stored_size
        return (height, width) if self.rotation in (90, 270) else (width, height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture of one camera.

    ``seq`` counts decoded frames of the camera from 0. ``pts_s`` is media time in seconds, counted from the first
    frame and monotone within a run. ``captured_ns`` is capture time on the monotonic clock, ``captured_utc_ns`` the
    same instant in UTC since the epoch. ``live`` frames age and may be dropped; the others never are.
    """

    camera: str
    seq: int
    pts_s: float
    captured_ns: int
    captured_utc_ns: int
    live: bool
    picture: Picture

    def age_ms(self, now_ns: int) -> float:
        """Milliseconds since capture, given the monotonic clock's reading."""
        return (now_ns - self.captured_ns) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterbox:
    """How a source picture, or a region of it, lies in the model's input: scaled to ``inner``, then shifted by ``pad``.

    ``inner`` is the (width, height) of the scaled picture and ``pad`` its (left, top) offset, in input pixels;
    ``source`` the (width, height) of the upright source picture, and ``region`` the part of it that is shown, xyxy in
    its pixels, None for all of it.
    """

    source: tuple[int, int]
    inner: tuple[int, int]
    pad: tuple[int, int]
    region: tuple[int, int, int, int] | None = None

    @classmethod
    def fit(
        cls,
        source: tuple[int, int],
        target: tuple[int, int],
        how: Fit = "letterbox",
        *,
        region: tuple[int, int, int, int] | None = None,
    ) -> Letterbox:
        """Fit ``source`` (width, height), or a ``region`` of it, into ``target`` (width, height).

        >>> Letterbox.fit((1920, 1080), (640, 640))
        Letterbox(source=(1920, 1080), inner=(640, 360), pad=(0, 140), region=None)
        >>> Letterbox.fit((1920, 1080), (640, 640), "top_left").pad
        (0, 0)
        """
        left, top, right, bottom = region or (0, 0, *source)
        width, height, (to_width, to_height) = right - left, bottom - top, target
        if how == "stretch":
            return cls(source=source, inner=target, pad=(0, 0), region=region)
        scale = min(to_width / width, to_height / height)
        inner = (max(1, min(to_width, round(width * scale))), max(1, min(to_height, round(height * scale))))
        centred = ((to_width - inner[0]) // 2, (to_height - inner[1]) // 2)
        return cls(source=source, inner=inner, pad=centred if how == "letterbox" else (0, 0), region=region)

    def to_source(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) xyxy from input pixels to source pixels, clipped to the picture; a new array."""
        return self.points_to_source(boxes.reshape(-1, 2, 2)).reshape(-1, 4)

    def points_to_source(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 2), x and y, from input pixels to source pixels, clipped to the picture; a new array.

        >>> Letterbox.fit((1920, 1080), (640, 640)).points_to_source(np.array([[320, 320], [0, 0]], np.float32))
        array([[960., 540.],
               [  0.,   0.]], dtype=float32)
        """
        left, top, right, bottom = self.region or (0, 0, *self.source)
        (inner_w, inner_h), corner = self.inner, np.array([left, top], dtype=np.float32)
        scale = np.array([(right - left) / inner_w, (bottom - top) / inner_h], dtype=np.float32)
        placed = (points - np.array(self.pad, dtype=np.float32)) * scale + corner
        clipped: NDArray[np.float32] = np.clip(placed, np.float32(0), np.array(self.source, dtype=np.float32))
        return clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The objects in one frame, best first.

    ``boxes`` (n, 4) float32 xyxy source pixels; ``confidence`` (n,) float32 in 0..1; ``class_ids`` (n,) int64;
    ``track_ids`` (n,) int64, 0 where the object has no track; ``keypoints`` (n, k, 3) float32, the k points of each
    object, x and y in source pixels and a confidence in 0..1, None where the model gives none.
    """

    boxes: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    keypoints: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.confidence)
        actual = (self.boxes.shape, self.confidence.shape, self.class_ids.shape, self.track_ids.shape)
        if actual != ((count, 4), (count,), (count,), (count,)):
            raise ValueError(f"detections: expected shapes (n, 4), (n,), (n,), (n,), got {actual}")
        if self.keypoints is not None and (self.keypoints.ndim != 3 or self.keypoints.shape[::2] != (count, 3)):
            raise ValueError(f"detections: expected keypoints of shape ({count}, k, 3), got {self.keypoints.shape}")

    @classmethod
    def of(
        cls,
        boxes: NDArray[np.float32],
        confidence: NDArray[np.float32],
        class_ids: NDArray[np.int64],
        track_ids: NDArray[np.int64] | None = None,
        keypoints: NDArray[np.float32] | None = None,
    ) -> Detections:
        """Detections from their columns; without ``track_ids`` none is tracked."""
        if track_ids is None:
            track_ids = np.zeros(len(confidence), dtype=np.int64)
        return cls(boxes=boxes, confidence=confidence, class_ids=class_ids, track_ids=track_ids, keypoints=keypoints)

    def __len__(self) -> int:
        return len(self.confidence)

    def moved(self, by: NDArray[np.floating], size: tuple[int, int]) -> Detections:
        """The same objects, each moved on by its row of ``by`` (n, 2) pixels, in a picture of ``size`` (width, height).

        Boxes and keypoints are clipped to the picture; objects of whose box less than a pixel's width or height is left
        are left out.
        """
        boxes = self.boxes + np.tile(by, 2).astype(np.float32)
        boxes = np.clip(boxes, np.float32(0), np.array(size * 2, np.float32))
        keypoints = self.keypoints
        if keypoints is not None:
            keypoints = keypoints.copy()
            places = keypoints[:, :, :2] + by[:, None].astype(np.float32)
            keypoints[:, :, :2] = np.clip(places, np.float32(0), np.array(size, np.float32))
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        return replace(self, boxes=boxes, keypoints=keypoints).where((width >= 1) & (height >= 1))

    def where(self, keep: NDArray[np.bool_]) -> Detections:
        """The objects that ``keep`` (n,) selects, in the same order."""
        return Detections(
            boxes=self.boxes[keep],
            confidence=self.confidence[keep],
            class_ids=self.class_ids[keep],
            track_ids=self.track_ids[keep],
            keypoints=None if self.keypoints is None else self.keypoints[keep],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """A frame and what was found in it; ``labels`` names the class ids, ``model`` the model.

    ``predicted``: the frame was not inferred, and its objects are those of an earlier one, where they should be by now.
    ``about``: what secondary models say of each object, None where they say nothing; empty where there are no such
    models.
    """

    frame: Frame
    detections: Detections
    labels: tuple[str, ...]
    model: str
    predicted: bool = False
    about: tuple[About | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessUnit:
    """One encoded picture: ``data`` is its Annex B byte stream, with the parameter sets in front of every keyframe.

    ``pts_s`` is presentation time in seconds; units come in decoding order, so with B-pictures it steps back at times.
    ``captured_utc_ns`` is the picture's capture time in UTC.
    """

    data: bytes
    codec: Literal["h264", "hevc"]
    pts_s: float
    keyframe: bool
    captured_utc_ns: int


class CameraState(StrEnum):
    """What a camera's retained status says."""

    ONLINE = "online"
    CONNECTING = "connecting"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraStatus:
    """One camera's state since ``since_utc_ns``; ``reason`` is one word (``eof``, ``timeout``, ...) or None.

    ``clock``: whether its frames' capture times make use of the camera's RTCP sender reports or are those of arrival;
    None where no stream is read.
    """

    camera: str
    state: CameraState
    reason: str | None
    since_utc_ns: int
    clock: Literal["rtcp", "arrival"] | None = None
