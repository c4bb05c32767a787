"""Drawing: boxes, labels, trails and a header on a copy of the picture. The one module that knows supervision."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from streamproc.about import About, Child
from streamproc.sinks.skeleton import draw_skeleton
from streamproc.types import Detections, Frame, FrameResult, UInt8Array

__all__ = ["Annotator"]

_Point: TypeAlias = tuple[float, float, float]
"""Media time in seconds, and a place as fractions of the picture's width and height."""

# Far apart in hue from one to the next, since neighbouring objects tend to have consecutive track ids, and all light
# enough for the one dark text colour to stand out (contrast above 4.5:1, WCAG 2.1 section 1.4.3).
_PALETTE = sv.ColorPalette.from_hex(
    [
        *("#34D399", "#60A5FA", "#FBBF24", "#F87171", "#C084FC", "#22D3EE"),
        *("#FB923C", "#F472B6", "#A3E635", "#818CF8", "#2DD4BF", "#FDE047"),
    ]
)
_INK = sv.Color.from_hex("#111111")
_FONT = cv2.FONT_HERSHEY_SIMPLEX  # the font that supervision measures and writes labels with
_TRAIL_S = 1.0
_RATE_WINDOW_S = 1.0
# Timestamps of a broken camera may stand still; then these bound what a window of time would not.
_MOST_POINTS = 120
_MOST_TIMES = 480
_SUBPIXEL_BITS = 4  # cv2 takes the points of a trail in sixteenths of a pixel
_SUBPIXELS = 1 << _SUBPIXEL_BITS
_HEADER_SHADE = 0.35  # what the header leaves of the picture's brightness: white text reads on snow and on night


class _Style:
    """Line widths and text sizes for one picture size, and supervision's annotators made with them.

    Both follow the shorter side, so that a portrait picture is drawn like the landscape one of the same class.
    """

    def __init__(self, width: int, height: int) -> None:
        side = min(width, height)
        self.size = (width, height)
        self.line = max(1, round(side / 450))
        self.dash, self.gap = 6 * self.line, 4 * self.line
        # Below a scale of 0.4 the font's digits run into one another.
        self.text_scale = max(0.4, side / 1900)
        self.text_thickness = 1 if self.text_scale < 0.9 else 2
        self.padding = max(3, round(self.text_scale * 8))
        self.boxes = sv.BoxAnnotator(color=_PALETTE, thickness=self.line)
        self.labels = sv.LabelAnnotator(
            color=_PALETTE,
            text_color=_INK,
            text_scale=self.text_scale,
            text_thickness=self.text_thickness,
            text_padding=self.padding,
        )

    def text_size(self, text: str) -> tuple[int, int]:
        """(width, height) of a line of text in pixels, without padding."""
        (width, height), _ = cv2.getTextSize(text, _FONT, self.text_scale, self.text_thickness)
        return width, height


@dataclass(frozen=True, slots=True)
class _Marks:
    """What is drawn for one frame, worst detection first, so that the best lies on top. ``carried``: dashed.
    ``children``: boxes of objects within, with their colours."""

    boxes: NDArray[np.float32]
    colors: NDArray[np.int64]
    labels: list[str]
    track_ids: list[int]
    keypoints: NDArray[np.float32] | None
    carried: bool
    children: list[tuple[NDArray[np.float64], int]]


class Annotator:
    """Draws the results of one camera, and remembers its trails and its frame rate from frame to frame.

    Every object has a box and a label (``person 7 0.91``: class, track id where there is one, confidence) in the
    colour of its track, or of its class where it has none, and so has its skeleton, where its keypoints are known; a
    tracked one drags the path that the middle of its bottom edge took during the last second of media time. Objects
    carried forward, of frames that were not inferred, have dashed boxes, keep their labels, which would flicker
    otherwise, and are not remembered. What secondary models say is written behind the label, and boxes that they found
    are thinner. The header shows the camera, the capture time in UTC, the rate of the frames drawn during the last
    second of media time, and, if not all of them were inferred, the rate of those that were. Give it the camera's
    frames in order.
    """

    def __init__(self) -> None:
        self._trails: dict[int, deque[_Point]] = {}
        self._times: deque[tuple[float, bool]] = deque(maxlen=_MOST_TIMES)
        self._style: _Style | None = None

    def draw(self, result: FrameResult, bgr: UInt8Array, *, carried: bool = False) -> UInt8Array:
        """Draw onto ``bgr``, in place, and return it.

        ``bgr`` (h, w, 3) uint8, contiguous, writable, upright: the frame's picture at any size; what is drawn is
        scaled to it. ``carried``: the frame was not inferred, its objects are those of earlier ones.
        """
        height, width = bgr.shape[:2]
        if self._style is None or self._style.size != (width, height):
            self._style = _Style(width, height)
        self._remember(result, carried)
        marks = _marks(result, width, height, carried)
        self._draw_trails(bgr, marks, self._style)
        _draw_skeletons(bgr, marks, self._style)
        if marks.labels:
            _draw_objects(bgr, marks, self._style)
        _draw_header(bgr, _header(result.frame, self._rates()), self._style)
        return bgr

    def _remember(self, result: FrameResult, carried: bool) -> None:
        now_s = result.frame.pts_s
        self._times.append((now_s, not carried))
        while len(self._times) > 2 and self._times[0][0] < now_s - _RATE_WINDOW_S:
            self._times.popleft()
        if not carried:
            self._extend_trails(result)
        for track_id, trail in list(self._trails.items()):
            while trail and trail[0][0] < now_s - _TRAIL_S:
                trail.popleft()
            if not trail:
                del self._trails[track_id]

    def _extend_trails(self, result: FrameResult) -> None:
        width, height = result.frame.picture.size
        found = result.detections
        for (x1, _, x2, y2), track_id in zip(found.boxes.tolist(), found.track_ids.tolist(), strict=True):
            if track_id:
                trail = self._trails.setdefault(track_id, deque(maxlen=_MOST_POINTS))
                trail.append((result.frame.pts_s, (x1 + x2) / 2 / width, y2 / height))

    def _rates(self) -> tuple[float, float] | None:
        """Frames a second, drawn and among them inferred; None before there are two."""
        (first_s, _), *others = self._times
        span_s = self._times[-1][0] - first_s
        return (len(others) / span_s, sum(inferred for _, inferred in others) / span_s) if span_s > 0 else None

    def _draw_trails(self, bgr: UInt8Array, marks: _Marks, style: _Style) -> None:
        width, height = style.size
        scale = np.array(style.size) * _SUBPIXELS
        objects = zip(marks.track_ids, marks.colors.tolist(), marks.boxes.tolist(), strict=True)
        for track_id, color, (x1, _, x2, y2) in objects:
            places = [place for _, *place in self._trails.get(track_id, ())]
            if marks.carried and places:
                places.append([(x1 + x2) / 2 / width, y2 / height])
            if len(places) < 2:
                continue
            path = np.rint(np.array(places) * scale).astype(np.int32)
            ink = _PALETTE.by_idx(color).as_bgr()
            # Thin where it is old: the older half with half the width.
            middle = len(path) // 2
            for part, thickness in ((path[: middle + 1], max(1, style.line // 2)), (path[middle:], style.line)):
                cv2.polylines(bgr, [part], False, ink, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _marks(result: FrameResult, width: int, height: int, carried: bool) -> _Marks:
    found = result.detections
    source_width, source_height = result.frame.picture.size
    scale = np.array([width / source_width, height / source_height] * 2, dtype=np.float32)
    colors = np.where(found.track_ids > 0, found.track_ids, found.class_ids)
    abouts = result.about or (None,) * len(found)
    # Where they are within an object that is carried on, nobody has seen.
    children = [
        (child, color)
        for about, color in zip(abouts, colors.tolist(), strict=True)
        for child in _descendants(about if not carried else None)
    ]
    return _Marks(
        boxes=(found.boxes * scale)[::-1],
        colors=colors[::-1],
        labels=[
            " ".join((label, *_told(about))) for label, about in zip(_labels(found, result.labels), abouts, strict=True)
        ][::-1],
        children=[(np.array(child.box) * scale, child_color) for child, child_color in children],
        track_ids=found.track_ids[::-1].tolist(),
        keypoints=None if found.keypoints is None else found.keypoints[::-1] * np.append(scale[:2], np.float32(1)),
        carried=carried,
    )


def _labels(found: Detections, names: Sequence[str]) -> list[str]:
    return [
        f"{names[class_id]} {track_id} {confidence:.2f}" if track_id else f"{names[class_id]} {confidence:.2f}"
        for class_id, track_id, confidence in zip(
            found.class_ids.tolist(), found.track_ids.tolist(), found.confidence.tolist(), strict=True
        )
    ]


def _descendants(about: About | None) -> Iterator[Child]:
    for child in about.children if about is not None else ():
        yield child
        yield from _descendants(child.about)


def _told(about: About | None) -> Iterator[str]:
    """What secondary models say, in words: of the object itself, then of those within it."""
    if about is None:
        return
    yield from (reading.value for reading in about.texts.values())
    yield from (readings[0].value for readings in about.attributes.values() if readings)
    for child in about.children:
        yield from _told(child.about)


def _draw_skeletons(bgr: UInt8Array, marks: _Marks, style: _Style) -> None:
    # Not by supervision's annotators: they know one colour for all objects, and take 0.8 ms a person instead of 0.1.
    if marks.keypoints is not None:
        for keypoints, color in zip(marks.keypoints, marks.colors.tolist(), strict=True):
            draw_skeleton(bgr, keypoints, _PALETTE.by_idx(color).as_bgr(), line=style.line)


def _draw_objects(bgr: UInt8Array, marks: _Marks, style: _Style) -> None:
    height, width = bgr.shape[:2]
    if marks.carried:
        for box, color in zip(marks.boxes.astype(int).tolist(), marks.colors.tolist(), strict=True):
            _draw_dashed(bgr, box, _PALETTE.by_idx(color).as_bgr(), style)
    else:
        style.boxes.annotate(bgr, sv.Detections(xyxy=marks.boxes), custom_color_lookup=marks.colors)
    for box, color in marks.children:
        left, top, right, bottom = np.rint(box).astype(int).tolist()
        cv2.rectangle(bgr, (left, top), (right, bottom), _PALETTE.by_idx(color).as_bgr(), max(1, style.line // 2))
    # A label sits on its box's top left corner; one that would leave the picture is moved inside it.
    sizes = np.array([style.text_size(label) for label in marks.labels]) + 2 * style.padding
    anchors = marks.boxes.copy()
    overhang = style.line // 2  # half of the box's line lies outside the box
    anchors[:, 0] = np.clip(anchors[:, 0] - overhang, 0, np.maximum(0, width - sizes[:, 0]))
    anchors[:, 1] = np.clip(anchors[:, 1] - overhang, sizes[:, 1], height)
    style.labels.annotate(bgr, sv.Detections(xyxy=anchors), labels=marks.labels, custom_color_lookup=marks.colors)


def _draw_dashed(bgr: UInt8Array, box: Sequence[int], ink: tuple[int, int, int], style: _Style) -> None:
    x1, y1, x2, y2 = box
    for start, end in _dashes(x1, x2, style):
        for y in (y1, y2):
            cv2.line(bgr, (start, y), (end, y), ink, style.line)
    for start, end in _dashes(y1, y2, style):
        for x in (x1, x2):
            cv2.line(bgr, (x, start), (x, end), ink, style.line)


def _dashes(first: int, last: int, style: _Style) -> Iterator[tuple[int, int]]:
    """Where the dashes of a side begin and end: evenly, and so that its corners are drawn."""
    dash = min(style.dash, max(0, last - first))
    count = max(2, round((last - first + style.gap) / (style.dash + style.gap)))
    for start in np.linspace(first, last - dash, count).astype(int).tolist():
        yield start, start + dash


def _header(frame: Frame, rates: tuple[float, float] | None) -> str:
    taken = datetime.fromtimestamp(frame.captured_utc_ns // 1_000_000 / 1000, tz=UTC)
    stamp = f"{taken:%Y-%m-%d %H:%M:%S}.{taken.microsecond // 1000:03d} UTC"
    words = [frame.camera, stamp]
    if rates is not None:
        fps, inferred_fps = rates
        words.append(f"{fps:.1f} FPS")
        if inferred_fps < fps:
            words.append(f"{inferred_fps:.1f} inferred")
    return "    ".join(words)


def _draw_header(bgr: UInt8Array, text: str, style: _Style) -> None:
    text_width, text_height = style.text_size(text)
    available = bgr.shape[1] - 2 * style.padding
    shrink = min(1.0, available / text_width)
    strip = bgr[: text_height + 2 * style.padding, : round(text_width * shrink) + 2 * style.padding]
    np.copyto(strip, cv2.convertScaleAbs(strip, alpha=_HEADER_SHADE))
    baseline = (style.padding, text_height + style.padding)
    scale = style.text_scale * shrink
    cv2.putText(bgr, text, baseline, _FONT, scale, (255, 255, 255), style.text_thickness, cv2.LINE_AA)
