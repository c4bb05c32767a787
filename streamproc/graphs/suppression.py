"""Decoding and non-maximum suppression behind a detector: kilobytes of detections instead of megabytes of candidates.

The result equals that of the decoders in :mod:`streamproc.models.heads.yolo` at the same thresholds: a box counts for
its best class only, and goes when a better one of its class overlaps it by more than the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from streamproc.errors import ModelError
from streamproc.graphs.editing import PREFIX, Appender, opset_of, rename_tensor

__all__ = ["DETECTIONS", "Layout", "Suppression", "add_efficient_nms", "add_suppression"]

Layout: TypeAlias = Literal["raw", "objectness"]

DETECTIONS = "detections"

_CANDIDATES = 1000  # as many as the decoders look at
_OLDEST_OPSET = 11  # GatherElements, and Pad with its widths as an input
_AXIS: dict[Layout, int] = {"raw": 1, "objectness": 2}  # along which a box's attributes lie
_FIRST_CLASS: dict[Layout, int] = {"raw": 4, "objectness": 5}
_PLUGIN_DOMAIN = "TRT"  # TensorRT finds plugins by the operator's name; the checker wants a domain that is not ONNX's
_FARTHEST_PX = 1e5  # no input is that large; what lies beyond is nonsense


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """What counts as a detection.

    ``confidence``: least score, above 0 and up to 1. ``iou``: boxes of a class that overlap by more are one object,
    0..1. ``max_detections``: rows of the result, 1..1000.
    """

    confidence: float
    iou: float
    max_detections: int

    def __post_init__(self) -> None:
        if not 0 < self.confidence <= 1:
            raise ValueError(f"confidence: expected above 0 and up to 1, got {self.confidence}")
        if not 0 <= self.iou <= 1:
            raise ValueError(f"iou: expected 0..1, got {self.iou}")
        if not 1 <= self.max_detections <= _CANDIDATES:
            raise ValueError(f"max_detections: expected 1..{_CANDIDATES}, got {self.max_detections}")


def add_suppression(model: onnx.ModelProto, *, output: str, layout: Layout, suppression: Suppression) -> None:
    """Give a model, in place, one output ``detections``, computed from its old ``output`` by standard operators.

    ``layout`` of the old output, float32 or float16: ``raw`` is (batch, 4 + classes, n), ``objectness`` is (batch, n,
    5 + classes); centre x, centre y, width and height are in input pixels. The new one is float32 (batch,
    max_detections, 6): x1, y1, x2, y2 in input pixels, score, class; best first, rows that are not used all zero.

    Raises:
        ModelError: the model has no such output, or is written in operators older than opset 11.
    """
    made = Appender(model)
    values, batch = _take_output(made, output)
    rows, scores = _candidates(made, values, layout, suppression.confidence)
    boxes, sound = _boxes(made, rows)
    scores = made.node("Mul", scores, sound, out="sound_scores")
    classes, apart = _apart(made, rows, scores, layout)
    kept = _kept(made, boxes, scores, apart, suppression)
    found = _best_rows(made, boxes, kept, classes, suppression.max_detections)
    _give(made, found, batch, suppression.max_detections)


def add_efficient_nms(model: onnx.ModelProto, *, output: str, layout: Layout, suppression: Suppression) -> None:
    """The same as :func:`add_suppression` by TensorRT's plugin EfficientNMS_TRT (version 1): for plans alone.

    The plugin looks at up to 4096 candidates. Inputs, outputs and attributes: NVIDIA/TensorRT,
    plugin/efficientNMSPlugin/README.md.

    Raises:
        ModelError: the model has no such output, or is written in operators older than opset 11.
    """
    made = Appender(model)
    values, batch = _take_output(made, output)
    rows = values if layout == "objectness" else made.node("Transpose", values, out="by_box", perm=[0, 2, 1])
    low, high = _low_and_high(made, rows)
    boxes = made.node("Concat", low, high, out="corners", axis=2)
    model.opset_import.append(helper.make_opsetid(_PLUGIN_DOMAIN, 1))
    counts, boxes, scores, classes = made.nodes(
        "EfficientNMS_TRT",
        boxes,
        _best_scores(made, rows, layout),
        outs=["found", "found_boxes", "found_scores", "found_classes"],
        domain=_PLUGIN_DOMAIN,
        plugin_version="1",
        background_class=-1,
        score_threshold=_just_below(suppression.confidence),
        iou_threshold=suppression.iou,
        max_output_boxes=suppression.max_detections,
        score_activation=0,
        box_coding=0,
        class_agnostic=0,
    )
    table = _table(made, boxes, scores, classes)
    places = made.constant("places", np.arange(suppression.max_detections, dtype=np.int32)[None])
    used = made.node("Less", places, counts, out="is_used")
    _give(made, _blank_unused(made, table, used), batch, suppression.max_detections)


def _take_output(made: Appender, output: str) -> tuple[str, int | str]:
    """The old output as a float32 tensor, under a name that does not clash with the new one's; its batch."""
    graph = made.model.graph
    found = {value.name: value.type.tensor_type for value in graph.output}
    if output not in found:
        raise ModelError(f"the model has no output {output}; it has {', '.join(found)}. Name one of these.")
    if opset_of(made.model) < _OLDEST_OPSET:
        raise ModelError(
            f"the model is written in operators of opset {opset_of(made.model)}; suppression needs {_OLDEST_OPSET} "
            f"or later. Export the model again with opset {_OLDEST_OPSET} or above."
        )
    values = PREFIX + "old_output"
    rename_tensor(graph, output, values)
    sides = found[output].shape.dim
    batch = (sides[0].dim_value if sides else 0) or "batch"
    if found[output].elem_type == TensorProto.FLOAT:
        return values, batch
    return made.node("Cast", values, out="values", to=TensorProto.FLOAT), batch


def _just_below(confidence: float) -> float:
    """The float32 before it: greater than that is at least it, and unlike Less, Greater drops NaN."""
    return float(np.nextafter(np.float32(confidence), np.float32(0)))


def _low_and_high(made: Appender, rows: str) -> tuple[str, str]:
    """(batch, k, 2) twice: x1, y1 and x2, y2 from rows that start with centre x, centre y, width, height."""
    centre, size = (made.cut(rows, at, at + 2, axis=2, out=name) for at, name in ((0, "centre"), (2, "size")))
    half = made.node("Mul", size, made.number("half", 0.5), out="half_size")
    return made.node("Sub", centre, half, out="low"), made.node("Add", centre, half, out="high")


def _of_class(made: Appender, scores: str, classes: str, *, axis: int) -> str:
    """Which ``scores`` belong to the class in ``classes``: the shape of both together, classes along ``axis``."""
    shape = made.node("Shape", scores, out="class_shape")
    count = made.node("Gather", shape, made.constant("last", np.array(2)), out="class_count")
    zero, one = (made.constant(f"range/{value}", np.array(value)) for value in (0, 1))
    sides = [1, 1, 1]
    sides[axis] = -1
    numbers = made.reshape(made.node("Range", zero, count, one, out="range"), *sides, out="class_numbers")
    return made.node("Equal", classes, numbers, out="is_of_class")


def _best_scores(made: Appender, rows: str, layout: Layout) -> str:
    """(batch, n, classes): the score of each box's best class, 0 for the other classes."""
    scores = made.cut(rows, _FIRST_CLASS[layout], None, axis=2, out="class_scores")
    if layout == "objectness":
        objectness = made.cut(rows, 4, 5, axis=2, out="objectness")
        scores = made.node("Mul", scores, objectness, out="scores")
    best = made.node("ArgMax", scores, out="best_class", axis=2, keepdims=1)
    mine = _of_class(made, scores, best, axis=2)
    return made.node("Where", mine, scores, made.number("not_best", 0), out="best_scores")


def _table(made: Appender, boxes: str, scores: str, classes: str) -> str:
    """(batch, k, 6): boxes (batch, k, 4), scores (batch, k) and classes (batch, k) side by side, float32."""
    score_column = made.reshape(scores, 0, -1, 1, out="score_column")
    numbers = made.node("Cast", classes, out="class_values", to=TensorProto.FLOAT)
    return made.node(
        "Concat", boxes, score_column, made.reshape(numbers, 0, -1, 1, out="class_column"), out="table", axis=2
    )


def _blank_unused(made: Appender, table: str, used: str) -> str:
    """A table (batch, count, 6) with zeros in the rows that are not ``used`` (batch, count)."""
    column = made.reshape(used, 0, -1, 1, out="is_used_row")
    return made.node("Where", column, table, made.number("blank_row", 0), out="filled")


def _candidates(made: Appender, values: str, layout: Layout, confidence: float) -> tuple[str, str]:
    """The k boxes of the best scores, in order: (batch, k, attributes) and (batch, k); no detection scores 0."""
    axis, nought = _AXIS[layout], made.number("nought", 0)
    best = made.reduce(
        "ReduceMax",
        made.cut(values, _FIRST_CLASS[layout], None, axis=axis, out="class_scores"),
        axis=axis,
        out="best_class_score",
    )
    if layout == "objectness":
        objectness = made.reshape(made.cut(values, 4, 5, axis=axis, out="objectness"), 0, -1, out="objectness_row")
        best = made.node("Mul", best, objectness, out="best_score")
    is_clear = made.node("Greater", best, made.number("below", _just_below(confidence)), out="is_clear")
    clear = made.node("Where", is_clear, best, nought, out="clear")
    # Padded, so that k does not depend on n, which some files do not tell.
    padded = made.node("Pad", clear, made.ints("padding", 0, 0, 0, _CANDIDATES), out="padded")
    scores, order = made.nodes("TopK", padded, made.ints("k", _CANDIDATES), outs=["scores", "order"], axis=1)
    is_real = made.node("Greater", scores, nought, out="is_real")
    places = made.node("Where", is_real, order, made.ints("first", 0), out="places")
    width = made.node("Gather", made.node("Shape", values, out="shape"), made.ints("axis", axis), out="width")
    if layout == "objectness":
        return made.rows(values, places, width, out="candidate_rows"), scores
    # A row of places for every attribute, as GatherElements wants them.
    shape = made.node("Concat", made.ints("one_before", 1), width, made.ints("one_after", 1), out="index_shape", axis=0)
    index = made.node("Expand", made.reshape(places, 0, 1, -1, out="place_row"), shape, out="index")
    columns = made.node("GatherElements", values, index, out="columns", axis=2)
    return made.node("Transpose", columns, out="candidate_rows", perm=[0, 2, 1]), scores


def _boxes(made: Appender, rows: str) -> tuple[str, str]:
    """(batch, k, 4): x1, y1, x2, y2 of candidates; (batch, k): 1 if finite and not empty, else 0."""
    low, high = _low_and_high(made, rows)
    extent = made.node("Sub", high, low, out="extent")
    positive = made.node("Greater", extent, made.number("none", 0), out="is_positive")  # NaN is not
    finite = made.node("Less", extent, made.number("infinite", np.inf), out="is_finite")
    both = made.node("And", positive, finite, out="is_extent")
    ones = made.node("Cast", both, out="ones", to=TensorProto.FLOAT)
    limits = [made.number(name, value) for name, value in (("nearest", -_FARTHEST_PX), ("farthest", _FARTHEST_PX))]
    corners = made.node("Concat", low, high, out="corners", axis=2)
    return made.node("Clip", corners, *limits, out="boxes"), made.reduce("ReduceMin", ones, axis=2, out="sound")


def _apart(made: Appender, rows: str, scores: str, layout: Layout) -> tuple[str, str]:
    """The class of each candidate, (batch, k), and its score in a row for that class, (batch, classes, k), 0 elsewhere.

    Moving the boxes of each class to a place of its own would do as well, but blurs them where classes are many.
    """
    of_class = made.cut(rows, _FIRST_CLASS[layout], None, axis=2, out="candidate_class_scores")
    classes = made.node("ArgMax", of_class, out="classes", axis=2, keepdims=0)
    mine = _of_class(made, of_class, made.reshape(classes, 0, 1, -1, out="class_row"), axis=1)
    row = made.reshape(scores, 0, 1, -1, out="score_row")
    return classes, made.node("Where", mine, row, made.number("not_mine", 0), out="apart")


def _kept(made: Appender, boxes: str, scores: str, apart: str, suppression: Suppression) -> str:
    """(batch, k): the scores of the boxes that stay, 0 for the others."""
    limit = made.ints("limit", suppression.max_detections)
    iou = made.constant("iou", np.array([suppression.iou], dtype=np.float32))
    least = made.constant("least", np.array([0], dtype=np.float32))
    selected = made.node("NonMaxSuppression", boxes, apart, limit, iou, least, out="selected")
    where = made.node("Gather", selected, made.ints("picture_and_box", 0, 2), out="where", axis=1)
    blank = made.node("ConstantOfShape", made.node("Shape", scores, out="scores/shape"), out="blank")
    return made.node("ScatterND", blank, where, made.node("GatherND", scores, where, out="stay"), out="kept")


def _best_rows(made: Appender, boxes: str, kept: str, classes: str, count: int) -> str:
    """(batch, count, 6): the result's rows, from what stays."""
    scores, order = made.nodes("TopK", kept, made.ints("rows", count), outs=["best_kept", "best_order"], axis=1)
    table = _table(made, boxes, kept, classes)
    best = made.rows(table, order, made.ints("result_width", 6), out="best_rows")
    return _blank_unused(made, best, made.node("Greater", scores, made.number("unused", 0), out="is_used"))


def _give(made: Appender, rows: str, batch: int | str, count: int) -> None:
    """Make a tensor of rows the model's only output."""
    graph = made.model.graph
    rename_tensor(graph, rows, DETECTIONS)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, TensorProto.FLOAT, [batch, count, 6]))
