from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.about import About, Child, Reading
from streamproc.sinks import annotate
from streamproc.sinks.annotate import Annotator
from streamproc.types import Detections, Frame, FrameResult, Picture, UInt8Array

LABELS = ("person", "car", "Fußgänger")
Box = tuple[float, float, float, float]


def picture(width: int, height: int) -> Picture:
    half = ((height + 1) // 2, (width + 1) // 2)
    planes = (np.zeros((height, width), np.uint8), np.zeros(half, np.uint8), np.zeros(half, np.uint8))
    return Picture(planes=planes, layout="yuv420p")


def found(
    boxes: Sequence[Box] = (),
    *,
    tracks: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    pts_s: float = 0.0,
    size: tuple[int, int] = (640, 360),
) -> FrameResult:
    count = len(boxes)
    frame = Frame(
        camera="gate",
        seq=0,
        pts_s=pts_s,
        captured_ns=0,
        captured_utc_ns=1_795_187_045_123_456_789,
        live=True,
        picture=picture(*size),
    )
    detections = Detections.of(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.array(classes if classes is not None else [0] * count, np.int64),
        np.array(tracks if tracks is not None else [0] * count, np.int64),
    )
    return FrameResult(frame=frame, detections=detections, labels=LABELS, model="m")


def gray(width: int = 640, height: int = 360, level: int = 90) -> UInt8Array:
    return np.full((height, width, 3), level, np.uint8)


def changed(bgr: UInt8Array, level: int = 90) -> NDArray[np.bool_]:
    different: NDArray[np.bool_] = (bgr != level).any(axis=2)
    return different


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every label that is written from now on."""
    written: list[str] = []
    write = sv.LabelAnnotator.annotate

    def spy(self: sv.LabelAnnotator, scene: UInt8Array, detections: sv.Detections, **kwargs: Any) -> Any:
        written.extend(kwargs["labels"])
        return write(self, scene, detections, **kwargs)

    monkeypatch.setattr(sv.LabelAnnotator, "annotate", spy)
    return written


def test_draws_in_place_and_returns_the_same_array() -> None:
    bgr = gray()
    assert Annotator().draw(found([(200, 100, 300, 200)]), bgr) is bgr


def test_a_box_lies_on_its_edges_and_nowhere_inside() -> None:
    bgr = Annotator().draw(found([(200, 100, 300, 200)]), gray())
    edges = changed(bgr)
    assert edges[100:201, 200].all()
    assert edges[100:201, 300].all()
    assert edges[100, 200:301].all()
    assert edges[200, 200:301].all()
    assert not edges[102:199, 202:299].any()
    assert len(np.unique(bgr[110:201, 300], axis=0)) == 1


@pytest.mark.parametrize("size", [(640, 360), (1920, 1080)])
def test_a_carried_objects_box_is_dashed_along_the_same_edges(size: tuple[int, int]) -> None:
    width, height = size
    x1, y1, x2, y2 = box = (width // 2, height // 2, width // 2 + height // 4, height - 20)
    solid = changed(Annotator().draw(found([box], size=size), gray(*size)))
    dashed = changed(Annotator().draw(found([box], size=size), gray(*size), carried=True))
    assert dashed[[y1, y1, y2, y2], [x1, x2, x1, x2]].all(), "the corners are drawn"
    for sides in (np.s_[y1 : y2 + 1, x2], np.s_[y1 : y2 + 1, x1], np.s_[y2, x1 : x2 + 1]):
        assert solid[sides].all()
        side = dashed[sides]
        assert 0.5 < side.mean() < 0.8
        gaps = np.diff(np.flatnonzero(np.diff(side.astype(int))))[::2]
        assert np.ptp(gaps) <= 1
        assert len(gaps) >= 5
    assert not (dashed & ~solid).any(), "nothing beyond what is drawn around an inferred one"


def test_a_carried_object_keeps_its_colour_and_its_label(texts: list[str]) -> None:
    colors = [
        Annotator().draw(found([(200, 100, 300, 200)], tracks=[7]), gray(), carried=carried)[200, 300].tolist()
        for carried in (False, True)
    ]
    assert colors[0] == colors[1]
    assert texts == 2 * ["person 7 0.90"]


def test_a_trail_leads_to_a_carried_box_and_forgets_it() -> None:
    annotator = Annotator()
    annotator.draw(found([(90, 100, 110, 200)], tracks=[5], pts_s=0), gray())
    bgr = annotator.draw(found([(390, 100, 410, 200)], tracks=[5], pts_s=0.1), gray(), carried=True)
    assert changed(bgr)[200, 100:400].all()
    bgr = annotator.draw(found([(190, 100, 210, 200)], tracks=[5], pts_s=0.2), gray())
    assert changed(bgr)[200, 100:200].all()
    assert not changed(bgr)[150:, 215:].any()


def test_without_detections_only_the_header_is_drawn() -> None:
    touched = changed(Annotator().draw(found(), gray()))
    assert touched[:10].any()
    assert not touched[40:].any()


def test_a_tracked_object_has_its_tracks_colour_and_an_untracked_one_its_class() -> None:
    def edge(track: int, class_id: int) -> list[int]:
        bgr = Annotator().draw(found([(200, 100, 300, 200)], tracks=[track], classes=[class_id]), gray())
        color: list[int] = bgr[150, 300].tolist()
        return color

    assert edge(7, 0) == edge(7, 1)
    assert edge(7, 0) != edge(8, 0)
    assert edge(0, 0) != edge(0, 1)


@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (1920, 1080), (3840, 2160)])
def test_lines_and_text_follow_the_pictures_height(size: tuple[int, int]) -> None:
    width, height = size
    box = (width * 0.5, height * 0.4, width * 0.7, height * 0.8)
    touched = changed(Annotator().draw(found([box], size=size), gray(width, height)))
    row = touched[round(height * 0.7)]
    line = int(row.sum()) / 2
    assert max(1, height / 600) <= line <= height / 300 + 1
    above = touched[round(height * 0.2) : round(height * 0.4), round(width * 0.5) + 4]
    assert height / 60 <= above.sum() <= height / 17


def test_what_is_drawn_is_scaled_to_the_picture_given() -> None:
    edges = changed(Annotator().draw(found([(400, 200, 600, 400)], size=(1280, 720)), gray(640, 360)))
    assert edges[100:201, 300].all()
    assert edges[200, 200:301].all()
    assert not edges[300:, :].any()


@pytest.mark.parametrize("box", [(0, 60, 30, 200), (610, 60, 640, 200), (300, 0, 340, 200), (600, -5, 660, 100)])
def test_a_label_is_never_cut_by_the_pictures_edge(monkeypatch: pytest.MonkeyPatch, box: Box) -> None:
    grounds: list[list[int]] = []
    paint = sv.LabelAnnotator.draw_rounded_rectangle

    def spy(scene: UInt8Array, xyxy: NDArray[np.int64], **kwargs: Any) -> UInt8Array:
        grounds.append(xyxy.tolist())
        return paint(scene, xyxy, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(sv.LabelAnnotator, "draw_rounded_rectangle", staticmethod(spy))
    Annotator().draw(found([box], tracks=[3]), gray())
    [(x1, y1, x2, y2)] = grounds
    assert 0 <= x1 < x2 <= 640
    assert 0 <= y1 < y2 <= 360


def test_the_best_detection_lies_on_top() -> None:
    bgr = Annotator().draw(found([(200, 100, 300, 200), (200, 100, 300, 200)], tracks=[1, 2]), gray())
    alone = Annotator().draw(found([(200, 100, 300, 200)], tracks=[1]), gray())
    assert bgr[150, 300].tolist() == alone[150, 300].tolist()


@pytest.mark.parametrize("fps", [2, 10, 60])
def test_a_trail_shows_the_last_second_of_media_time_at_any_rate(fps: int) -> None:
    annotator = Annotator()
    for index in range(3 * fps + 1):
        pts_s = index / fps
        middle = 100 + 100 * pts_s  # pixels: from 100 to 400 in three seconds
        bgr = annotator.draw(found([(middle - 10, 100, middle + 10, 200)], tracks=[5], pts_s=pts_s), gray())
    trail = changed(bgr)[200]
    assert trail[301:400].all()
    assert not trail[:295].any()


def test_a_track_that_comes_back_later_has_no_line_to_where_it_was() -> None:
    annotator = Annotator()
    annotator.draw(found([(90, 100, 110, 200)], tracks=[5], pts_s=0), gray())
    annotator.draw(found(pts_s=1.5), gray())
    bgr = annotator.draw(found([(390, 100, 410, 200)], tracks=[5], pts_s=2.0), gray())
    assert not changed(bgr)[150:, 120:380].any()


def test_an_untracked_object_leaves_no_trail() -> None:
    annotator = Annotator()
    annotator.draw(found([(90, 100, 110, 200)], pts_s=0), gray())
    bgr = annotator.draw(found([(390, 100, 410, 200)], pts_s=0.5), gray())
    assert not changed(bgr)[150:, 120:380].any()


def test_labels_say_class_track_and_confidence(texts: list[str]) -> None:
    boxes = [(200.0, 100.0, 300.0, 200.0), (400.0, 100.0, 500.0, 200.0)]
    Annotator().draw(found(boxes, tracks=[7, 0], classes=[0, 2]), gray())
    assert sorted(texts) == ["Fußgänger 0.50", "person 7 0.90"]


@pytest.mark.parametrize("fps", [0.5, 5, 24, 60])
def test_the_header_says_camera_time_and_the_last_seconds_rate(monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    texts: list[str] = []
    write = cv2.putText

    def spy(img: UInt8Array, text: str, *args: Any) -> Any:
        texts.append(text)
        return write(img, text, *args)

    monkeypatch.setattr(cv2, "putText", spy)
    annotator = Annotator()
    for index in range(8):  # another rate first, which must be forgotten
        annotator.draw(found(pts_s=index / 100), gray())
    assert texts[0].split() == ["gate", "2026-11-20", "15:04:05.123", "UTC"]
    for index in range(1, 200):
        annotator.draw(found(pts_s=1 + index / fps), gray())
    assert texts[-1].split() == ["gate", "2026-11-20", "15:04:05.123", "UTC", f"{fps:.1f}", "FPS"]


def test_the_header_says_how_many_frames_were_inferred(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    write = cv2.putText

    def spy(img: UInt8Array, text: str, *args: Any) -> Any:
        texts.append(text)
        return write(img, text, *args)

    monkeypatch.setattr(cv2, "putText", spy)
    annotator = Annotator()
    for index in range(100):
        annotator.draw(found(pts_s=index / 24), gray(), carried=index % 3 != 0)
    assert texts[-1].split()[4:] == ["24.0", "FPS", "8.0", "inferred"]
    for index in range(100, 200):
        annotator.draw(found(pts_s=index / 24), gray(), carried=True)
    assert texts[-1].split()[4:] == ["24.0", "FPS", "0.0", "inferred"]
    for index in range(200, 300):
        annotator.draw(found(pts_s=index / 24), gray())
    assert texts[-1].split()[4:] == ["24.0", "FPS"]


def test_timestamps_that_stand_still_are_borne() -> None:
    annotator = Annotator()
    for _ in range(1000):
        annotator.draw(found([(90, 100, 110, 200)], tracks=[5]), gray())


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(640, 360), (90, 160), (3840, 2160)])
def test_the_header_is_legible_on_every_background(level: int, size: tuple[int, int]) -> None:
    header = Annotator().draw(found(size=size), gray(*size, level))[: max(8, size[1] // 40)]
    inside = header[:, : size[0] // 6]
    ground, ink = np.median(inside), inside.max()
    assert ground <= 0.35 * level + 1
    assert ink >= 200 or size[0] < 200


def test_label_text_stands_out_from_every_colour_of_the_palette() -> None:
    def luminance(rgb: tuple[int, int, int]) -> float:
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ink = luminance(annotate._INK.as_rgb())
    assert all((luminance(color.as_rgb()) + 0.05) / (ink + 0.05) > 4.5 for color in annotate._PALETTE.colors)


COORDINATE = st.floats(-2000, 4000, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE, st.integers(0, 3)), max_size=8),
    st.sampled_from([(16, 16), (64, 48), (301, 173)]),
)
def test_any_boxes_on_any_picture_can_be_drawn(
    objects: list[tuple[float, float, float, float, int]], size: tuple[int, int]
) -> None:
    boxes = [row[:4] for row in objects]
    annotator = Annotator()
    for pts_s, carried in ((0.0, False), (0.1, False), (0.2, True)):
        result = found(boxes, tracks=[row[4] for row in objects], pts_s=pts_s, size=size)
        bgr = annotator.draw(result, gray(*size), carried=carried)
        assert bgr.shape == (size[1], size[0], 3)


def with_keypoints(result: FrameResult, *keypoints: tuple[int, float, float]) -> FrameResult:
    """Each object with a person's keypoints, (index, x, y) of which are clear."""
    points = np.zeros((len(result.detections), 17, 3), np.float32)
    for index, x, y in keypoints:
        points[:, index] = x, y, 0.9
    return replace(result, detections=replace(result.detections, keypoints=points))


@pytest.mark.parametrize("carried", [False, True])
def test_a_skeleton_has_the_colour_of_its_object(carried: bool) -> None:
    plain = found([(200, 100, 300, 300)], tracks=[7])
    result = with_keypoints(plain, (5, 220, 160), (7, 280, 160))
    bgr = Annotator().draw(result, gray(), carried=carried)
    edge = bgr[300, 200].astype(int)
    assert np.abs(bgr[160, 220:281] - edge).max() < 16, "but for what smoothing takes"
    assert not changed(bgr)[170:290, 210:290].any()
    assert not changed(Annotator().draw(plain, gray(), carried=carried))[150:290, 210:290].any()


def test_a_skeleton_is_scaled_to_the_picture_given() -> None:
    result = with_keypoints(found([(400, 200, 600, 600)], size=(1280, 720)), (5, 440, 320), (7, 560, 320))
    assert changed(Annotator().draw(result, gray(640, 360)))[160, 220:281].all()


def test_every_object_has_a_skeleton_of_its_own_colour() -> None:
    result = found([(100, 100, 200, 300), (300, 100, 400, 300)], tracks=[1, 2])
    points = np.zeros((2, 17, 3), np.float32)
    points[0, 5], points[1, 5] = (150, 200, 0.9), (350, 200, 0.9)
    result = replace(result, detections=replace(result.detections, keypoints=points))
    bgr = Annotator().draw(result, gray())
    assert bgr[200, 150].tolist() == bgr[300, 100].tolist() != bgr[200, 350].tolist() == bgr[300, 300].tolist()


def test_what_secondary_models_say_stands_behind_the_label_and_their_boxes_are_drawn(texts: list[str]) -> None:
    plain = found([(100.0, 100.0, 300.0, 300.0)], tracks=[3])
    plate = Child(
        model="plates",
        label="plate",
        confidence=0.9,
        box=(150.0, 200.0, 250.0, 240.0),
        about=About(texts={"text": Reading(value="A1", confidence=0.9)}),
    )
    about = About(attributes={"colour": (Reading(value="red", confidence=0.6),)}, children=(plate,))
    without = changed(Annotator().draw(plain, gray()))
    told = replace(plain, about=(about,))
    drawn = changed(Annotator().draw(told, gray()))
    assert next(text for text in texts if "red" in text).endswith("red A1")
    assert not without[220, 150]
    assert drawn[220, 150]
    assert drawn[220, 250]
    assert not drawn[220, 200]
    carried = changed(Annotator().draw(told, gray(), carried=True))
    assert not carried[220, 150], "where the plate is by now nobody has seen"
