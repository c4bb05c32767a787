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

__all__ = [
    "AccessUnit",
    "CameraState",
    "CameraStatus",
    "ColorMatrix",
    "Detections",
    "Frame",
    "FrameResult",
    "Letterbox",
    "Picture",
    "PixelLayout",
    "Rotation",
    "UInt8Array",
]

UInt8Array: TypeAlias = NDArray[np.uint8]
PixelLayout: TypeAlias = Literal["yuv420p", "nv12"]
ColorMatrix: TypeAlias = Literal["bt601", "bt709", "bt2020"]
Rotation: TypeAlias = Literal[0, 90, 180, 270]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One decoded picture in its native YUV, 8 bits a sample.

    ``planes``: uint8 views into the decoder's buffers (which they keep alive), never written to. ``yuv420p``:
    Y (h, w), U and V (⌈h/2⌉, ⌈w/2⌉); ``nv12``: Y (h, w) and interleaved UV (⌈h/2⌉, ⌈w/2⌉, 2). ``rotation`` is the
    clockwise turn, in degrees, that brings the stored picture upright. ``full_range``: samples use 0..255 rather than
    16..235/240.
    """

    planes: tuple[UInt8Array, ...]
    layout: PixelLayout
    rotation: Rotation = 0
    matrix: ColorMatrix = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        height, width = self.planes[0].shape
        half = ((height + 1) // 2, (width + 1) // 2)
        expected = ((height, width), half, half) if self.layout == "yuv420p" else ((height, width), (*half, 2))
        actual = tuple(plane.shape for plane in self.planes)
        if actual != expected:
            raise ValueError(f"{self.layout} planes: expected shapes {expected}, got {actual}")

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels as stored, before rotation."""
        height, width = self.planes[0].shape
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
    """How a source picture lies in the model's input: scaled by ``scale_x``/``scale_y``, then shifted.

    ``inner`` is the (width, height) of the scaled picture and ``pad`` its (left, top) offset, in input pixels;
    ``source`` the (width, height) of the upright source picture.
    """

    source: tuple[int, int]
    inner: tuple[int, int]
    pad: tuple[int, int]

    @classmethod
    def fit(cls, source: tuple[int, int], target: tuple[int, int]) -> Letterbox:
        """Fit ``source`` (width, height) centred into ``target`` (width, height), keeping its shape.

        >>> Letterbox.fit((1920, 1080), (640, 640))
        Letterbox(source=(1920, 1080), inner=(640, 360), pad=(0, 140))
        """
        (width, height), (to_width, to_height) = source, target
        scale = min(to_width / width, to_height / height)
        inner = (max(1, min(to_width, round(width * scale))), max(1, min(to_height, round(height * scale))))
        return cls(source=source, inner=inner, pad=((to_width - inner[0]) // 2, (to_height - inner[1]) // 2))

    def to_source(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) xyxy from input pixels to source pixels, clipped to the picture; a new array."""
        (width, height), (inner_w, inner_h), (left, top) = self.source, self.inner, self.pad
        scale = np.array([width / inner_w, height / inner_h] * 2, dtype=np.float32)
        moved = (boxes - np.array([left, top] * 2, dtype=np.float32)) * scale
        limits = np.array([width, height] * 2, dtype=np.float32)
        clipped: NDArray[np.float32] = np.clip(moved, np.float32(0), limits)
        return clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The objects in one frame, best first.

    ``boxes`` (n, 4) float32 xyxy source pixels; ``confidence`` (n,) float32 in 0..1; ``class_ids`` (n,) int64;
    ``track_ids`` (n,) int64, 0 where the object has no track.
    """

    boxes: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    track_ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.confidence)
        actual = (self.boxes.shape, self.confidence.shape, self.class_ids.shape, self.track_ids.shape)
        if actual != ((count, 4), (count,), (count,), (count,)):
            raise ValueError(f"detections: expected shapes (n, 4), (n,), (n,), (n,), got {actual}")

    @classmethod
    def of(
        cls,
        boxes: NDArray[np.float32],
        confidence: NDArray[np.float32],
        class_ids: NDArray[np.int64],
        track_ids: NDArray[np.int64] | None = None,
    ) -> Detections:
        """Detections from their columns; without ``track_ids`` none is tracked."""
        if track_ids is None:
            track_ids = np.zeros(len(confidence), dtype=np.int64)
        return cls(boxes=boxes, confidence=confidence, class_ids=class_ids, track_ids=track_ids)

    def __len__(self) -> int:
        return len(self.confidence)

    def moved(self, by: NDArray[np.floating], size: tuple[int, int]) -> Detections:
        """The same objects, each moved on by its row of ``by`` (n, 2) pixels, in a picture of ``size`` (width, height).

        Boxes are clipped to the picture, and those of which less than a pixel's width or height is left are left out.
        """
        boxes = self.boxes + np.tile(by, 2).astype(np.float32)
        boxes = np.clip(boxes, np.float32(0), np.array(size * 2, np.float32))
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        return replace(self, boxes=boxes).where((width >= 1) & (height >= 1))

    def where(self, keep: NDArray[np.bool_]) -> Detections:
        """The objects that ``keep`` (n,) selects, in the same order."""
        return Detections(
            boxes=self.boxes[keep],
            confidence=self.confidence[keep],
            class_ids=self.class_ids[keep],
            track_ids=self.track_ids[keep],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """A frame and what was found in it; ``labels`` names the class ids, ``model`` the model.

    ``predicted``: the frame was not inferred, and its objects are those of an earlier one, where they should be by now.
    """

    frame: Frame
    detections: Detections
    labels: tuple[str, ...]
    model: str
    predicted: bool = False


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
