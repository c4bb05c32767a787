"""Texts and their corners, from maps that are drawn for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from numpy.typing import NDArray

from streamproc.engines.base import TensorInfo
from streamproc.models.heads import Thresholds
from streamproc.models.heads.text_regions import TextRegionsDecoder
from streamproc.types import Detections, Letterbox

SIZE = (320, 192)
SAME = Letterbox.fit(SIZE, SIZE)
DECODER = TextRegionsDecoder("maps")
Floats = NDArray[np.float32]


def thresholds(confidence: float = 0.25, limit: int = 300, class_ids: frozenset[int] | None = None) -> Thresholds:
    return Thresholds(confidence=confidence, iou=0.45, class_ids=class_ids, max_detections=limit)


def blank() -> Floats:
    return np.zeros(SIZE[::-1], np.float32)


def read(likely: NDArray[Any], wanted: Thresholds | None = None, letterbox: Letterbox = SAME) -> Detections:
    """The texts in the second picture of a batch, whose first is full of it."""
    maps = np.stack([np.ones_like(likely), likely])[:, None]
    return DECODER.decode({"maps": maps}, 1, letterbox, wanted or thresholds())


def corners_of(found: Detections) -> Floats:
    assert found.keypoints is not None
    return found.keypoints[:, :, :2]


def rectangle(centre: tuple[float, float], length: float, height: float, degrees: float) -> Floats:
    """(4, 2): clockwise from the top left of a text that is turned clockwise by so much."""
    x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    right, down = np.array([x, y]) * length / 2, np.array([-y, x]) * height / 2
    middle = np.array(centre)
    return np.array([middle - right - down, middle + right - down, middle + right + down, middle - right + down])


def drawn(*texts: Floats, value: float = 0.9) -> Floats:
    """A map with cores at such corners: pixels whose middle lies within."""
    likely = blank()
    x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    for corners in texts:
        sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
        inside = [(b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0 for a, b in sides]
        likely[np.logical_and.reduce(inside)] = value
    return likely


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_line(dtype: type) -> None:
    likely: NDArray[Any] = blank().astype(dtype)
    likely[90:100, 60:120] = 0.75
    found = read(likely, letterbox=Letterbox.fit((1920, 1080), SIZE))
    grown = 60 * 10 * 1.5 / 140
    scale, top = 1920 / 320, 6  # pixels of grey
    x1, x2 = (x * scale for x in (60 - grown, 120 + grown))
    y1, y2 = ((y - top) * scale for y in (90 - grown, 100 + grown))
    np.testing.assert_allclose(found.boxes, [[x1, y1, x2, y2]], atol=0.01)
    np.testing.assert_allclose(corners_of(found), [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]], atol=0.01)
    assert (found.confidence.tolist(), found.class_ids.tolist()) == ([0.75], [0])
    assert found.keypoints is not None
    assert found.keypoints[0, :, 2].tolist() == [0.75] * 4
    assert [str(values.dtype) for values in (found.boxes, found.confidence, found.keypoints)] == ["float32"] * 3
    likely[:] = 0  # what was found is a copy
    assert found.confidence.tolist() == [0.75]


@pytest.mark.parametrize("degrees", range(-90, 91, 15))
def test_a_turned_line_is_read_to_the_right_or_downwards(degrees: int) -> None:
    found = read(drawn(rectangle((160, 96), 120, 15, degrees)))
    distance = 120 * 15 * 1.5 / 270
    expected = rectangle((160, 96), 120 + 2 * distance, 15 + 2 * distance, degrees + 180 * (degrees < -45))
    np.testing.assert_allclose(corners_of(found), expected[None], atol=2.5)
    box = np.concatenate([corners_of(found)[0].min(axis=0), corners_of(found)[0].max(axis=0)])
    np.testing.assert_array_equal(found.boxes, box[None])


@pytest.mark.parametrize(
    ("width", "height", "first"),
    [(20, 20, "left"), (20, 28, "left"), (20, 31, "right"), (28, 20, "left"), (40, 20, "left")],
)
def test_a_letter_is_upright_and_a_column_is_read_downwards(width: int, height: int, first: str) -> None:
    likely = blank()
    likely[40 : 40 + height, 60 : 60 + width] = 1
    (corners,) = corners_of(read(likely))
    x1, y1 = corners.min(axis=0)
    x2 = corners[:, 0].max()
    np.testing.assert_allclose(corners[0], [x1 if first == "left" else x2, y1])


def test_lines_close_to_each_other_stay_apart() -> None:
    likely = blank()
    likely[40:50, 60:260] = 0.9
    likely[51:61, 60:260] = 0.8
    likely[51:61, 270:300] = 0.7
    found = read(likely)
    np.testing.assert_allclose(found.confidence, [0.9, 0.8, 0.7], rtol=1e-6)
    assert found.boxes[0, 3] > found.boxes[1, 1]  # grown, they overlap
    assert len(read(likely, thresholds(confidence=0.85))) == 1
    assert read(likely, thresholds(limit=2)).confidence.tolist() == found.confidence[:2].tolist()


def test_a_core_that_is_not_all_as_likely() -> None:
    likely = blank()
    likely[40:50, 60:160] = 0.2  # not a part of it
    likely[40:50, 60:110] = 0.6
    likely[40:50, 110:120] = 0.3
    found = read(likely)
    assert found.confidence.tolist() == [pytest.approx((50 * 0.6 + 10 * 0.3) / 60)]
    likely[41:49, 70:110] = 0.1  # a frame: the box holds what is within, too
    assert read(likely, thresholds(confidence=0)).confidence.tolist() == [pytest.approx(170 / 600)]


def test_nothing() -> None:
    found = read(blank(), thresholds(confidence=0))
    assert len(found) == 0
    assert corners_of(found).shape == (0, 4, 2)


def test_text_all_over() -> None:
    found = read(np.ones_like(blank()), letterbox=Letterbox.fit((1000, 600), SIZE))
    assert found.boxes.tolist() == [[0, 0, 1000, 600]]
    np.testing.assert_array_equal(corners_of(found), [[[0, 0], [1000, 0], [1000, 600], [0, 600]]])


def test_what_lies_in_the_grey_alone_is_left_out() -> None:
    likely = blank()
    likely[2:6, 60:120] = 1
    likely[186:190, 60:120] = 1
    assert len(read(likely, letterbox=Letterbox.fit((320, 100), SIZE))) == 0


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 90), (90, 2), (3, 1)])
def test_specks_and_scratches_are_no_text(shape: tuple[int, int]) -> None:
    likely = blank()
    likely[10 : 10 + shape[0], 10 : 10 + shape[1]] = 1
    likely[-shape[0] :, -shape[1] :] = 1
    assert len(read(likely)) == 0
    likely[50:53, 60:63] = 1
    assert len(read(likely)) == 1


def test_of_very_many_the_largest_are_looked_at() -> None:
    likely = np.zeros((1024, 1024), np.float32)
    likely[::4, :] = likely[:, ::4] = -1
    likely[likely == 0] = 0.9
    likely[likely < 0] = 0
    likely[500:520, 500:600] = 0.5
    size = (1024, 1024)
    found = DECODER.decode({"maps": likely[None, None]}, 0, Letterbox.fit(size, size), thresholds(limit=10_000))
    assert len(found) == 1000
    assert found.confidence.min() == pytest.approx(0.5, abs=0.1)  # the largest is among them


@pytest.mark.parametrize(("bad", "score"), [(math.nan, 0.0), (-math.inf, 0.0), (math.inf, 1.0), (7.0, 1.0)])
def test_values_that_are_no_probability(bad: float, score: float) -> None:
    likely = np.full_like(blank(), bad)
    found = read(likely)
    assert len(found) == (score > 0)
    likely[:] = 0
    likely[40:50, 60:160] = 0.8
    likely[40:50, 100:105] = bad
    found = read(likely)
    assert len(found) == (1 if score else 2)
    likely[45:50, 100:105] = 0.8
    found = read(likely)
    assert found.confidence.tolist() == [pytest.approx((975 * 0.8 + 25 * score) / 1000, abs=0.001)]
    assert found.boxes[0, 0] < 60
    assert found.boxes[0, 2] > 160


@settings(max_examples=60, deadline=None)
@given(
    likely=some.arrays(np.float32, (32, 48), elements=st.floats(width=32), fill=st.sampled_from([0.0, 0.5, math.nan])),
    confidence=st.sampled_from([0.0, 0.5]),
    source=st.sampled_from([(48, 32), (333, 57), (20, 400)]),
)
def test_any_values_give_texts_within_the_picture(likely: Floats, confidence: float, source: tuple[int, int]) -> None:
    found = read(likely, thresholds(confidence=confidence), Letterbox.fit(source, (48, 32)))
    assert ((found.confidence >= confidence) & (found.confidence <= 1)).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.array(source * 2)).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    corners = corners_of(found)
    np.testing.assert_array_equal(np.hstack([corners.min(axis=1), corners.max(axis=1)]), found.boxes)
    assert (np.diff(found.confidence) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(
    centre=st.tuples(st.floats(110, 210), st.floats(90, 102)),
    length=st.floats(40, 90),
    share=st.floats(0.15, 0.5),
    degrees=st.floats(-180, 180),
)
def test_agrees_with_a_rectangle_turned_by_hand(
    centre: tuple[float, float], length: float, share: float, degrees: float
) -> None:
    height = length * share
    found = read(drawn(rectangle(centre, length, height, degrees)))
    distance = length * height * 1.5 / (2 * (length + height))
    expected = rectangle(centre, length + 2 * distance, height + 2 * distance, degrees)
    (corners,) = corners_of(found)
    # The same four points, in the same direction around; which of them is the first is tested elsewhere.
    nearest = min(range(4), key=lambda turn: float(np.abs(np.roll(expected, turn, axis=0) - corners).max()))
    np.testing.assert_allclose(corners, np.roll(expected, nearest, axis=0), atol=3)
    right, down = corners[1] - corners[0], corners[3] - corners[0]
    assert np.linalg.norm(right) > np.linalg.norm(down)
    assert right.sum() > -0.05 * np.linalg.norm(right)  # to the right or downwards
    assert right[0] * down[1] - right[1] * down[0] > 0  # clockwise


@pytest.mark.parametrize("class_ids", [frozenset({0}), frozenset()])
def test_the_class(class_ids: frozenset[int]) -> None:
    likely = blank()
    likely[40:50, 60:160] = 1
    assert len(read(likely, thresholds(class_ids=class_ids))) == len(class_ids)


@pytest.mark.parametrize(
    ("shapes", "matches"),
    [
        ([(1, 1, 192, 320)], True),
        ([(-1, 1, 192, 320)], True),
        ([(1, 1, 320, 192)], False),
        ([(1, 1, 48, 80)], False),
        ([(1, 2, 192, 320)], False),
        ([(1, 192, 320)], False),
        ([(1, 1, 192, 320), (1, 1, 192, 320)], False),
        ([], False),
    ],
)
def test_matching(shapes: Sequence[tuple[int, ...]], matches: bool) -> None:
    tensors = [TensorInfo(name=str(number), dtype="float32", shape=shape) for number, shape in enumerate(shapes)]
    assert (TextRegionsDecoder.matching(tensors, SIZE) is not None) == matches
