"""Plates with their corners, against a slow and obvious decoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.engines.base import TensorInfo
from streamproc.models.heads import Thresholds
from streamproc.models.heads.retinaface import RetinaFaceDecoder
from streamproc.types import Letterbox
from tests.detecting import obvious_nms

SIZE = (96, 64)
SAME = Letterbox.fit(SIZE, SIZE)
WIDE = Letterbox.fit((1920, 1080), SIZE)
DECODER = RetinaFaceDecoder(boxes="loc", scores="conf", corners="landms", size=SIZE)
Outputs = dict[str, NDArray[Any]]


def priors() -> Iterator[tuple[float, float, float]]:
    """Centre x, centre y and side, one at a time."""
    for stride, sides in ((8, (24, 48)), (16, (96, 192)), (32, (384, 768))):
        for row, column in itertools.product(range(SIZE[1] // stride), range(SIZE[0] // stride)):
            for side in sides:
                yield (column + 0.5) * stride, (row + 0.5) * stride, side


COUNT = sum(1 for _ in priors())


def thresholds(confidence: float = 0.25, iou: float = 0.45, limit: int = 300) -> Thresholds:
    return Thresholds(confidence=confidence, iou=iou, class_ids=None, max_detections=limit)


def nothing(dtype: type = np.float32) -> Outputs:
    """A batch of two pictures without a plate."""
    shapes = {"loc": (2, COUNT, 4), "conf": (2, COUNT, 2), "landms": (2, COUNT, 8)}
    outputs: Outputs = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
    outputs["conf"][:, :, 0] = 1
    return outputs


def put(outputs: Outputs, prior: int, box: tuple[float, float, float, float], score: float) -> None:
    """Encode a box (xyxy), with its own corners clockwise from the bottom right, at a prior of the second picture."""
    x1, y1, x2, y2 = box
    cx, cy, side = next(itertools.islice(priors(), prior, None))
    offsets = [((x1 + x2) / 2 - cx) / (0.1 * side), ((y1 + y2) / 2 - cy) / (0.1 * side)]
    outputs["loc"][1, prior] = [*offsets, math.log((x2 - x1) / side) / 0.2, math.log((y2 - y1) / side) / 0.2]
    outputs["conf"][1, prior] = [1 - score, score]
    corners = ((x2, y2), (x1, y2), (x1, y1), (x2, y1))
    outputs["landms"][1, prior] = [v for x, y in corners for v in ((x - cx) / (0.1 * side), (y - cy) / (0.1 * side))]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("prior", [0, 1, COUNT // 2, COUNT - 1])
def test_a_plate(prior: int, dtype: type) -> None:
    outputs = nothing(dtype)
    put(outputs, prior, (20, 16, 52, 26), 0.75)
    found = DECODER.decode(outputs, 1, WIDE, thresholds())
    scale = 1920 / 96
    top = WIDE.pad[1]
    x1, y1, x2, y2 = 20 * scale, (16 - top) * scale, 52 * scale, (26 - top) * scale
    np.testing.assert_allclose(found.boxes, [[x1, y1, x2, y2]], atol=1 if dtype is np.float32 else 20)
    assert found.keypoints is not None
    corners = found.keypoints[0]
    np.testing.assert_allclose(corners[:, :2], [[x1, y1], [x2, y1], [x2, y2], [x1, y2]], atol=20)
    assert corners[:, 2].tolist() == [0.75] * 4
    assert (found.confidence.tolist(), found.class_ids.tolist()) == ([0.75], [0])
    assert [str(values.dtype) for values in (found.boxes, found.confidence, found.keypoints)] == ["float32"] * 3
    for values in outputs.values():
        values[:] = 0  # what was found is a copy
    assert found.confidence.tolist() == [0.75]


def test_rows_of_a_batch_are_apart() -> None:
    outputs = nothing()
    put(outputs, 5, (20, 16, 52, 26), 0.75)
    found = DECODER.decode(outputs, 0, SAME, thresholds())
    assert len(found) == 0
    assert found.keypoints is not None
    assert found.keypoints.shape == (0, 4, 3)


def test_of_overlapping_boxes_the_best_stays_with_its_corners() -> None:
    outputs = nothing()
    put(outputs, 4, (20, 16, 52, 26), 0.6)
    put(outputs, 5, (21, 16, 53, 26), 0.9)
    put(outputs, 9, (60, 40, 90, 50), 0.7)
    found = DECODER.decode(outputs, 1, SAME, thresholds())
    np.testing.assert_allclose(found.boxes, [[21, 16, 53, 26], [60, 40, 90, 50]], atol=1e-3)
    assert found.keypoints is not None
    np.testing.assert_allclose(found.keypoints[:, 0, :2], [[21, 16], [60, 40]], atol=1e-3)
    assert len(DECODER.decode(outputs, 1, SAME, thresholds(limit=1))) == 1
    assert len(DECODER.decode(outputs, 1, SAME, thresholds(confidence=0.8))) == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), confidence=st.sampled_from([0.01, 0.5, 0.9]), logits=st.booleans())
def test_agrees_with_the_obvious_one(seed: int, confidence: float, logits: bool) -> None:
    random = np.random.default_rng(seed)
    scores = random.permutation(np.linspace(0.005, 0.995, COUNT))
    outputs: Outputs = {
        "loc": random.normal(scale=2, size=(1, COUNT, 4)).astype(np.float32),
        "landms": random.normal(scale=2, size=(1, COUNT, 8)).astype(np.float32),
        "conf": np.stack([1 - scores, scores], axis=1)[None].astype(np.float32),
    }
    if logits:
        outputs["conf"] = np.log(outputs["conf"]) + np.float32(0.7)
    boxes, corners = [], []
    for (cx, cy, side), (dx, dy, dw, dh), points in zip(priors(), outputs["loc"][0], outputs["landms"][0], strict=True):
        x, y, half_w = cx + dx * 0.1 * side, cy + dy * 0.1 * side, side * math.exp(0.2 * dw) / 2
        half_h = side * math.exp(0.2 * dh) / 2
        boxes.append([x - half_w, y - half_h, x + half_w, y + half_h])
        corners.append([[cx + px * 0.1 * side, cy + py * 0.1 * side] for px, py in points.reshape(4, 2)])
    table, places = np.array(boxes, np.float32), np.array(corners, np.float32)[:, [2, 3, 0, 1]]
    above = np.flatnonzero(scores >= confidence)
    above = above[obvious_nms(table[above], scores[above].astype(np.float32), np.zeros(len(above), np.int64), 0.45)]
    found = DECODER.decode(outputs, 0, SAME, thresholds(confidence))
    placed = np.clip(table[above], 0, [*SIZE, *SIZE])
    visible = (placed[:, 2:] > placed[:, :2]).all(axis=1)
    np.testing.assert_allclose(found.confidence, scores[above][visible], atol=1e-5)
    np.testing.assert_allclose(found.boxes, placed[visible], atol=1e-2)
    assert found.keypoints is not None
    np.testing.assert_allclose(found.keypoints[:, :, :2], np.clip(places[above][visible], 0, SIZE), atol=1e-2)


@pytest.mark.parametrize("tensor", ["loc", "conf", "landms"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonsense_is_dropped_and_the_rest_is_kept(tensor: str, bad: float) -> None:
    outputs = nothing()
    put(outputs, 4, (20, 16, 52, 26), 0.9)
    put(outputs, 9, (60, 40, 90, 50), 0.7)
    outputs[tensor][1, 4, 1] = bad
    found = DECODER.decode(outputs, 1, SAME, thresholds())
    assert found.confidence.tolist() == [pytest.approx(0.7)]


def test_extreme_offsets_do_not_overflow() -> None:
    outputs = nothing()
    put(outputs, 4, (20, 16, 52, 26), 0.9)
    outputs["loc"][1, 4] = [0, 0, 3e38, 3e38]
    outputs["landms"][1, 4] = 3e38
    found = DECODER.decode(outputs, 1, SAME, thresholds())
    assert found.boxes.tolist() == [[0, 0, 96, 64]]


@pytest.mark.parametrize("class_ids", [frozenset({0}), frozenset()])
def test_the_class(class_ids: frozenset[int]) -> None:
    outputs = nothing()
    put(outputs, 4, (20, 16, 52, 26), 0.9)
    wanted = Thresholds(confidence=0.25, iou=0.45, class_ids=class_ids, max_detections=300)
    assert len(DECODER.decode(outputs, 1, SAME, wanted)) == len(class_ids)


def tensors(*shapes: tuple[int, ...]) -> list[TensorInfo]:
    return [TensorInfo(name=str(number), dtype="float32", shape=shape) for number, shape in enumerate(shapes)]


@pytest.mark.parametrize("order", list(itertools.permutations([4, 2, 8])))
def test_matching_in_any_order(order: tuple[int, ...]) -> None:
    assert RetinaFaceDecoder.matching(tensors(*((1, 16800, columns) for columns in order)), (640, 640)) is not None


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 16800, 4), (1, 16800, 2), (1, 16800, 10)],  # five landmarks: faces
        [(1, 16800, 4), (1, 16800, 2)],
        [(1, 8400, 4), (1, 8400, 2), (1, 8400, 8)],
        [(1, 16800, 4), (1, 16800, 2), (1, 16800, 8), (1, 5)],
        [(16800,), (1, 16800, 2), (1, 16800, 8)],
        [],
    ],
)
def test_what_does_not_match(shapes: list[tuple[int, ...]]) -> None:
    assert RetinaFaceDecoder.matching(tensors(*shapes), (640, 640)) is None
