"""What is published: the MQTT payloads, defined once.

The structs are the contract. From them come the encoder, the decoders for consumers, and the JSON Schemas; the order of
their fields is the order in the payload. Times are UTC with milliseconds (``2026-11-20T15:04:05.123Z``), boxes are xyxy
in source-image pixels. Decoders take payloads with keys they do not know, so that a later version may add some.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from streamproc.about import About
from streamproc.types import CameraStatus, FrameResult

__all__ = [
    "CameraStatusMessage",
    "ChildObject",
    "ClassReading",
    "DetectedObject",
    "DetectionsMessage",
    "EventMessage",
    "SchemaName",
    "SiteStatusMessage",
    "StatusMessage",
    "TextReading",
    "decode_detections",
    "decode_status",
    "encode_camera_status",
    "encode_detections",
    "encode_site_status",
    "schema_for",
]

SchemaName: TypeAlias = Literal["detections", "events", "status"]

_Site = Annotated[str, msgspec.Meta(description="The installation.", pattern="^[A-Za-z0-9_-]+$")]
_Camera = Annotated[str, msgspec.Meta(description="The camera.", pattern="^[A-Za-z0-9_-]+$")]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Size = Annotated[int, msgspec.Meta(ge=1, description="Pixels of the upright source picture.")]
_Time = Annotated[
    str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", description="UTC, milliseconds.")
]
_TrackId = Annotated[int, msgspec.Meta(ge=1, description="Unique per camera within a run.")] | None
_Confidence = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Keypoint: TypeAlias = tuple[float, float, _Confidence]
_Box = Annotated[tuple[float, float, float, float], msgspec.Meta(description="x1, y1, x2, y2 in source-image pixels.")]


class ClassReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A class that a secondary model gives an object."""

    label: str
    confidence: _Confidence


class TextReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A text that a secondary model reads on an object."""

    text: str
    confidence: _Confidence


_Attributes = Annotated[
    dict[str, tuple[ClassReading, ...]],
    msgspec.Meta(description="By model: the object's classes, best first. Left out when there are none."),
]
_Texts = Annotated[
    dict[str, TextReading], msgspec.Meta(description="By model: what is written on it. Left out when nothing is.")
]
_Embeddings = Annotated[
    dict[str, tuple[float, ...]],
    msgspec.Meta(description="By model: a vector of length 1 that is near those of similar objects; on request."),
]


class ChildObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An object within another, found by the secondary model ``model``."""

    model: str
    label: str
    confidence: _Confidence
    box: _Box
    attributes: _Attributes = {}
    text: _Texts = {}
    embedding: _Embeddings = {}
    children: tuple[ChildObject, ...] = ()


class DetectedObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One object in a frame. Keys from ``keypoints`` on are left out where they are empty: what secondary models say
    comes when it is known, and stays with the track."""

    track_id: _TrackId
    class_id: _Count
    label: str
    confidence: _Confidence
    box: _Box
    keypoints: Annotated[
        tuple[_Keypoint, ...],
        msgspec.Meta(
            description="x and y in source-image pixels and a confidence of 0 to 1 for each keypoint, in the model's "
            "order; a person's 17 are nose, eyes, ears, shoulders, elbows, wrists, hips, knees and ankles, the one on "
            "the person's left first. Left out when the model gives none."
        ),
    ] = ()
    attributes: _Attributes = {}
    text: _Texts = {}
    embedding: _Embeddings = {}
    children: Annotated[
        tuple[ChildObject, ...], msgspec.Meta(description="Objects within it. Left out when there are none.")
    ] = ()


class DetectionsMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found in one frame; topic PREFIX/SITE/CAMERA/detections. ``predicted`` is left out when it is false."""

    schema: Literal["streamproc.detections/1"]
    site: _Site
    camera: _Camera
    seq: Annotated[int, msgspec.Meta(ge=0, description="Counts decoded frames of the camera.")]
    pts_s: Annotated[float, msgspec.Meta(description="Media time in seconds from the first frame.")]
    captured_at: _Time
    age_ms: Annotated[float, msgspec.Meta(description="Milliseconds from capture to publishing.")]
    width: _Size
    height: _Size
    model: str
    predicted: Annotated[
        bool,
        msgspec.Meta(
            description="Whether the frame was not inferred, and its objects are those of the last one that was, "
            "moved on to where they should be by now; left out when false."
        ),
    ] = False
    detections: Annotated[tuple[DetectedObject, ...], msgspec.Meta(description="The objects, best first.")]


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened; topic PREFIX/SITE/CAMERA/events. Kinds of events may add keys of their own."""

    schema: Literal["streamproc.events/1"]
    id: Annotated[str, msgspec.Meta(min_length=1, description="The same for repeated deliveries of one event.")]
    site: _Site
    camera: _Camera
    type: Annotated[str, msgspec.Meta(min_length=1, description="What kind of event.")]
    at: _Time
    track_id: _TrackId
    label: Annotated[str, msgspec.Meta(description="The object's class.")] | None


class CameraStatusMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="streamproc.status/1"):
    """A camera's state; topic PREFIX/SITE/CAMERA/status, retained."""

    state: Literal["online", "connecting", "offline"]
    reason: Annotated[str, msgspec.Meta(description="One word, such as timeout; null when there is none.")] | None
    since: _Time
    fps: Annotated[float, msgspec.Meta(ge=0, description="Frames a second lately.")]
    clock: Annotated[
        Literal["rtcp", "arrival"] | None,
        msgspec.Meta(
            description="Where capture times come from: the camera's RTCP sender reports, or the packets' arrival; "
            "null for files, and while it is not online."
        ),
    ]
    site: _Site
    camera: _Camera


class SiteStatusMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="streamproc.site/1"):
    """The state of a whole installation; topic PREFIX/SITE/status, retained; offline is also the will."""

    state: Literal["online", "offline"]
    site: _Site
    version: Annotated[str, msgspec.Meta(description="Version of streamproc.")]


StatusMessage: TypeAlias = CameraStatusMessage | SiteStatusMessage

_TYPES: dict[SchemaName, Any] = {"detections": DetectionsMessage, "events": EventMessage, "status": StatusMessage}
_encoder = msgspec.json.Encoder()
_detections_decoder = msgspec.json.Decoder(DetectionsMessage)
_status_decoder: msgspec.json.Decoder[StatusMessage] = msgspec.json.Decoder(StatusMessage)


def encode_detections(result: FrameResult, *, site: str, age_ms: float) -> bytes:
    """One frame's payload; ``age_ms`` from capture to now.

    Boxes, keypoints and age are rounded to a tenth, confidences to a thousandth. A class id without a label is named by
    its number.
    """
    frame, found = result.frame, result.detections
    width, height = frame.picture.size
    labels = result.labels
    objects = tuple(
        [
            DetectedObject(
                track_id=track_id or None,
                class_id=class_id,
                label=labels[class_id] if class_id < len(labels) else str(class_id),
                confidence=confidence,
                box=tuple(box),
            )
            for track_id, class_id, confidence, box in zip(
                found.track_ids.tolist(),
                found.class_ids.tolist(),
                found.confidence.astype(np.float64).round(3).tolist(),
                found.boxes.astype(np.float64).round(1).tolist(),
                strict=True,
            )
        ]
    )
    if found.keypoints is not None:
        points = _rounded_keypoints(found.keypoints)
        objects = tuple([replace(one, keypoints=its) for one, its in zip(objects, points, strict=True)])
    if result.about:
        told = [_told(about) if about is not None else {} for about in result.about]
        objects = tuple([replace(one, **its) for one, its in zip(objects, told, strict=True)])
    message = DetectionsMessage(
        schema="streamproc.detections/1",
        site=site,
        camera=frame.camera,
        seq=frame.seq,
        pts_s=round(frame.pts_s, 3),
        captured_at=_utc(frame.captured_utc_ns),
        age_ms=round(age_ms, 1),
        width=width,
        height=height,
        model=result.model,
        predicted=result.predicted,
        detections=objects,
    )
    return _encoder.encode(message)


def encode_camera_status(status: CameraStatus, *, site: str, fps: float) -> bytes:
    """A camera's retained state; ``fps`` frames a second lately."""
    message = CameraStatusMessage(
        state=status.state.value,
        reason=status.reason,
        since=_utc(status.since_utc_ns),
        fps=round(fps, 1),
        clock=status.clock,
        site=site,
        camera=status.camera,
    )
    return _encoder.encode(message)


def encode_site_status(state: Literal["online", "offline"], *, site: str, version: str) -> bytes:
    """The installation's retained state, and its will."""
    return _encoder.encode(SiteStatusMessage(state=state, site=site, version=version))


def decode_detections(payload: bytes) -> DetectionsMessage:
    """A detections payload, checked against the contract. Raises ValueError saying where it departs from it."""
    try:
        return _detections_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"not a streamproc.detections/1 payload: {exc}") from exc


def decode_status(payload: bytes) -> StatusMessage:
    """A camera's or a site's status, checked against the contract. Raises ValueError as above."""
    try:
        return _status_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"not a streamproc.status/1 or streamproc.site/1 payload: {exc}") from exc


def schema_for(name: SchemaName) -> dict[str, Any]:
    """JSON Schema (2020-12) of a payload: ``detections``, ``events`` or ``status`` (a camera's or the site's)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"streamproc {name}",
        **msgspec.json.schema(_TYPES[name]),
    }


def _rounded_keypoints(keypoints: NDArray[np.float32]) -> list[tuple[_Keypoint, ...]]:
    """Of each object."""
    values = keypoints.astype(np.float64)
    values[:, :, :2] = values[:, :, :2].round(1)
    values[:, :, 2] = values[:, :, 2].round(3)
    return [tuple(map(tuple, rows)) for rows in values.tolist()]


def _told(about: About) -> dict[str, Any]:
    """What secondary models say of an object, as keys of its message."""
    return {
        "attributes": {
            model: tuple(ClassReading(label=one.value, confidence=round(one.confidence, 3)) for one in readings)
            for model, readings in about.attributes.items()
        },
        "text": {
            model: TextReading(text=reading.value, confidence=round(reading.confidence, 3))
            for model, reading in about.texts.items()
        },
        "embedding": {
            model: tuple(vector.astype(np.float64).round(4).tolist()) for model, vector in about.embeddings.items()
        },
        "children": tuple(
            ChildObject(
                model=child.model,
                label=child.label,
                confidence=round(child.confidence, 3),
                box=_rounded(child.box),
                **_told(child.about),
            )
            for child in about.children
        ),
    }


def _rounded(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return round(x1, 1), round(y1, 1), round(x2, 1), round(y2, 1)


def _utc(utc_ns: int) -> str:
    """Nanoseconds since the epoch as UTC with milliseconds, rounded down.

    >>> _utc(1_763_651_045_123_999_999)
    '2025-11-20T15:04:05.123Z'
    """
    seconds, ns = divmod(utc_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns // 1_000_000:03d}Z"
