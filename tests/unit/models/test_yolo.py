"""The decoders against a slow, obvious one, and with everything that a broken model may give."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.models.heads import Decoder, Thresholds
from streamproc.models.heads.yolo import EndToEndDecoder, ObjectnessDecoder, RawDecoder
from streamproc.types import Detections, Letterbox
from tests.detecting import obvious_nms

WIDE = Letterbox.fit((1920, 1080), (640, 640))
SAME = Letterbox.fit((640, 640), (640, 640))
CLASSES = 5


def thresholds(
    confidence: float = 0.25, iou: float = 0.45, class_ids: frozenset[int] | None = None, max_detections: int = 300
) -> Thresholds:
    return Thresholds(confidence=confidence, iou=iou, class_ids=class_ids, max_detections=max_detections)


def raw(*columns: tuple[float, ...], dtype: type = np.float32) -> dict[str, NDArray[Any]]:
    """A batch of two whose second picture has these boxes: centre x, centre y, width, height, a score a class."""
    values: NDArray[Any] = np.array(columns, dtype=dtype).reshape(-1, 4 + CLASSES).T
    return {"out": np.stack([np.zeros_like(values), values])}


def rows(*values: tuple[float, ...], width: int, dtype: type = np.float32) -> dict[str, NDArray[Any]]:
    table: NDArray[Any] = np.array(values, dtype=dtype).reshape(-1, width)
    return {"out": np.stack([np.zeros_like(table), table])}


def scores(class_id: int, score: float) -> tuple[float, ...]:
    return tuple(score if number == class_id else 0.01 for number in range(CLASSES))


def obvious(boxes: list[list[float]], letterbox: Letterbox, wanted: Thresholds) -> Detections:
    """Detections from (cx, cy, w, h, scores...) rows, one at a time."""
    kept = []
    for cx, cy, w, h, *by_class in boxes:
        class_id = int(np.argmax(by_class))
        if by_class[class_id] >= wanted.confidence and (wanted.class_ids is None or class_id in wanted.class_ids):
            kept.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, by_class[class_id], class_id))
    table: NDArray[np.float32] = np.array(kept, dtype=np.float32).reshape(-1, 6)
    table = table[obvious_nms(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), wanted.iou)]
    placed = []
    (left, top), (inner_width, inner_height), (width, height) = letterbox.pad, letterbox.inner, letterbox.source
    for x1, y1, x2, y2, score, class_id in table.tolist():
        xs = [min(max((x - left) * width / inner_width, 0.0), width) for x in (x1, x2)]
        ys = [min(max((y - top) * height / inner_height, 0.0), height) for y in (y1, y2)]
        if xs[1] > xs[0] and ys[1] > ys[0]:
            placed.append((xs[0], ys[0], xs[1], ys[1], score, class_id))
    result = np.array(placed[: wanted.max_detections], dtype=np.float32).reshape(-1, 6)
    return Detections.of(result[:, :4], result[:, 4], result[:, 5].astype(np.int64))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 80),
    confidence=st.sampled_from([0.001, 0.25, 0.8]),
    iou=st.sampled_from([0.3, 0.45, 0.65]),
    some=st.booleans(),
    limit=st.sampled_from([1, 5, 300]),
    letterbox=st.sampled_from([WIDE, SAME, Letterbox.fit((33, 500), (640, 640))]),
)
def test_agrees_with_the_obvious_one(
    seed: int, count: int, confidence: float, iou: float, some: bool, limit: int, letterbox: Letterbox
) -> None:
    random = np.random.default_rng(seed)
    boxes = np.hstack(
        [
            random.uniform(-20, 660, (count, 2)),
            random.uniform(1, 300, (count, 2)),
            random.permutation(np.linspace(0, 1, count * CLASSES)).reshape(count, CLASSES),
        ]
    ).astype(np.float32)
    wanted = thresholds(confidence, iou, frozenset({0, 3}) if some else None, limit)
    expected = obvious(boxes.tolist(), letterbox, wanted)
    found = RawDecoder("out", CLASSES).decode(raw(*boxes.tolist()), 1, letterbox, wanted)
    with_objectness = np.insert(boxes, 4, 1, axis=1)
    also = ObjectnessDecoder("out", CLASSES).decode(
        rows(*with_objectness.tolist(), width=5 + CLASSES), 1, letterbox, wanted
    )
    for one in (found, also):
        np.testing.assert_array_equal(one.class_ids, expected.class_ids)
        np.testing.assert_allclose(one.confidence, expected.confidence, rtol=1e-6)
        np.testing.assert_allclose(one.boxes, expected.boxes, atol=0.02)


def test_source_pixels() -> None:
    found = RawDecoder("out", CLASSES).decode(raw((320, 320, 64, 36, *scores(2, 0.9))), 1, WIDE, thresholds())
    np.testing.assert_allclose(found.boxes, [[864, 486, 1056, 594]])
    assert found.class_ids.tolist() == [2]
    assert found.track_ids.tolist() == [0]


def test_rows_of_a_batch_are_apart() -> None:
    outputs = raw((320, 320, 64, 36, *scores(2, 0.9)))
    assert len(RawDecoder("out", CLASSES).decode(outputs, 0, SAME, thresholds())) == 0


def test_the_class_is_filtered_after_the_best_was_found() -> None:
    outputs = raw((320, 320, 64, 36, 0.9, 0.5, 0, 0, 0))
    assert len(RawDecoder("out", CLASSES).decode(outputs, 1, SAME, thresholds(class_ids=frozenset({1})))) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_types(dtype: type) -> None:
    box = (320.0, 320.0, 64.0, 32.0)
    decoders: list[tuple[Decoder, dict[str, NDArray[Any]]]] = [
        (RawDecoder("out", CLASSES), raw((*box, *scores(2, 0.75)), dtype=dtype)),
        (ObjectnessDecoder("out", CLASSES), rows((*box, 1, *scores(2, 0.75)), width=5 + CLASSES, dtype=dtype)),
        (EndToEndDecoder("out", CLASSES), rows((288, 304, 352, 336, 0.75, 2), width=6, dtype=dtype)),
    ]
    for decoder, outputs in decoders:
        found = decoder.decode(outputs, 1, SAME, thresholds())
        types = [str(values.dtype) for values in (found.boxes, found.confidence, found.class_ids)]
        assert types == ["float32", "float32", "int64"]
        assert found.boxes.tolist() == [[288, 304, 352, 336]]
        assert found.confidence.tolist() == [0.75]
        outputs["out"][:] = 0  # what was found is a copy
        assert found.confidence.tolist() == [0.75]


def test_objectness_counts() -> None:
    box = (320.0, 320.0, 64.0, 32.0)
    outputs = rows((*box, 0.5, *scores(1, 0.8)), (*box, 0.9, *scores(1, 0.2)), width=5 + CLASSES)
    found = ObjectnessDecoder("out", CLASSES).decode(outputs, 1, SAME, thresholds())
    np.testing.assert_allclose(found.confidence, [0.4])


def test_end_to_end_is_not_suppressed_again() -> None:
    box = (10, 10, 50, 50)
    outputs = rows((*box, 0.6, 1), (*box, 0.9, 1), (*box, 0.8, 99), (*box, 0.1, 1), width=6)
    found = EndToEndDecoder("out", CLASSES).decode(outputs, 1, SAME, thresholds())
    np.testing.assert_allclose(found.confidence, [0.9, 0.6])


def test_equals_stay_in_order() -> None:
    outputs = rows(*((number, 0, number + 5, 5, 0.5, 0) for number in range(20)), width=6)
    found = EndToEndDecoder("out", CLASSES).decode(outputs, 1, SAME, thresholds())
    assert found.boxes[:, 0].tolist() == list(range(20))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "box",
    [
        (NAN, 320, 10, 10, *scores(1, 0.9)),
        (320, INF, 10, 10, *scores(1, 0.9)),
        (320, 320, -INF, 10, *scores(1, 0.9)),
        (320, 320, 10, 10, *scores(1, NAN)),
        (320, 320, 10, 10, *scores(1, INF)),
        (320, 320, 0, 10, *scores(1, 0.9)),
        (320, 320, 10, -5, *scores(1, 0.9)),
        (-400, 320, 10, 10, *scores(1, 0.9)),
    ],
)
def test_nonsense_is_dropped_and_the_rest_is_kept(box: tuple[float, ...]) -> None:
    good = (100, 100, 20, 20, *scores(3, 0.5))
    decoders: list[tuple[Decoder, dict[str, NDArray[Any]]]] = [
        (RawDecoder("out", CLASSES), raw(box, good)),
        (
            ObjectnessDecoder("out", CLASSES),
            rows((*box[:4], 1, *box[4:]), (*good[:4], 1, *good[4:]), width=5 + CLASSES),
        ),
    ]
    for decoder, outputs in decoders:
        found = decoder.decode(outputs, 1, SAME, thresholds())
        assert found.boxes.tolist() == [[90, 90, 110, 110]]


def test_huge_boxes_become_the_picture() -> None:
    huge = (3e38, 0, 3e38, 3e38, *scores(1, 0.9))
    whole = (0, 0, 3e38, 3e38, *scores(2, 0.9))
    small = ((100, 100, 10, 10, *scores(1, 0.8)), (200, 100, 10, 10, *scores(1, 0.7)))
    found = RawDecoder("out", CLASSES).decode(raw(huge, whole, *small), 1, SAME, thresholds())
    assert [0, 0, 640, 640] in found.boxes.tolist()
    assert [95, 95, 105, 105] in found.boxes.tolist()
    assert [195, 95, 205, 105] in found.boxes.tolist()


def test_everything_at_once() -> None:
    """As many candidates as there are cells, all on one spot or all apart."""
    random = np.random.default_rng(0)
    values = np.full((1, 4 + CLASSES, 8400), 0.5, dtype=np.float32)
    values[0, :2] = random.uniform(0, 640, (2, 8400))
    values[0, 2:4] = 1
    found = RawDecoder("out", CLASSES).decode({"out": values}, 0, SAME, thresholds())
    assert len(found) == 300
    values[0, :4] = 100
    assert len(RawDecoder("out", CLASSES).decode({"out": values}, 0, SAME, thresholds())) == 1


def test_nothing_at_all() -> None:
    decoders: list[tuple[Decoder, tuple[int, ...]]] = [
        (RawDecoder("out", CLASSES), (1, 4 + CLASSES, 8400)),
        (ObjectnessDecoder("out", CLASSES), (1, 25200, 5 + CLASSES)),
        (EndToEndDecoder("out", CLASSES), (1, 300, 6)),
    ]
    for decoder, shape in decoders:
        assert len(decoder.decode({"out": np.zeros(shape, dtype=np.float32)}, 0, WIDE, thresholds())) == 0


def test_scores_above_one_are_clamped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    decoder = RawDecoder("out", CLASSES)
    outputs = raw((100, 100, 10, 10, *scores(1, 1.66)), (300, 300, 10, 10, *scores(1, 0.5)))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert decoder.decode(outputs, 1, SAME, thresholds()).confidence.tolist() == [1, 0.5]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "1.66" in caplog.text


@pytest.mark.bench
@pytest.mark.parametrize("candidates", [0, 100, 500, 2000])
def test_cost(candidates: int) -> None:
    random = np.random.default_rng(0)
    values = random.uniform(0, 0.2, (1, 84, 8400)).astype(np.float32)
    values[0, :2] = random.uniform(0, 640, (2, 8400))
    values[0, 2:4] = random.uniform(10, 100, (2, 8400))
    chosen = random.choice(8400, candidates, replace=False)
    values[0, random.integers(4, 84, candidates), chosen] = random.uniform(0.3, 1, candidates)
    decoder, wanted = RawDecoder("out", 80), thresholds()
    best_ms = min(_run_ms(decoder, {"out": values}, wanted) for _ in range(50))
    print(f"{candidates} candidates: {best_ms:.2f} ms")


def _run_ms(decoder: Decoder, outputs: dict[str, NDArray[Any]], wanted: Thresholds) -> float:
    started = time.perf_counter()
    decoder.decode(outputs, 0, WIDE, wanted)
    return (time.perf_counter() - started) * 1e3
