"""Models that give what they are given, pictures full of boxes for them, and what the decoders make of those."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from streamproc.graphs.suppression import Layout, Suppression
from streamproc.models.heads import Thresholds
from streamproc.models.heads.yolo import ObjectnessDecoder, RawDecoder
from streamproc.types import Detections, Letterbox
from tests.tiny_models import Side

__all__ = ["CLASSES", "assert_same", "crowd", "decoded", "passing_through", "wanted"]

CLASSES = 5

_SAME = Letterbox.fit((640, 640), (640, 640))


def passing_through(layout: Layout, *, dtype: int = TensorProto.FLOAT, opset: int = 17) -> onnx.ModelProto:
    """A model whose output ``out`` is its input ``values``, of any batch and any number of boxes."""
    shape: list[Side | None] = ["batch", 4 + CLASSES, "n"] if layout == "raw" else ["batch", "n", 5 + CLASSES]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["values"], ["out"])],
        "through",
        [helper.make_tensor_value_info("values", dtype, shape)],
        [helper.make_tensor_value_info("out", dtype, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def wanted(confidence: float = 0.25, iou: float = 0.45, max_detections: int = 300) -> Suppression:
    return Suppression(confidence=confidence, iou=iou, max_detections=max_detections)


def crowd(layout: Layout, seed: int, count: int = 60, batch: int = 3) -> NDArray[np.float32]:
    """Boxes that overlap much, their scores all different."""
    random = np.random.default_rng(seed)
    boxes = np.concatenate([random.uniform(0, 640, (batch, count, 2)), random.uniform(20, 300, (batch, count, 2))], 2)
    scores = random.permutation(np.linspace(0, 1, batch * count * CLASSES)).reshape(batch, count, CLASSES)
    if layout == "raw":
        return np.concatenate([boxes, scores], 2).transpose(0, 2, 1).astype(np.float32)
    objectness = random.uniform(0.3, 1, (batch, count, 1))
    return np.concatenate([boxes, objectness, scores], 2).astype(np.float32)


def decoded(layout: Layout, values: NDArray[Any], row: int, suppression: Suppression) -> Detections:
    thresholds = Thresholds(
        confidence=suppression.confidence,
        iou=suppression.iou,
        class_ids=None,
        max_detections=suppression.max_detections,
    )
    decoder = RawDecoder("out", CLASSES) if layout == "raw" else ObjectnessDecoder("out", CLASSES)
    return decoder.decode({"out": values}, row, _SAME, thresholds)


def assert_same(found: NDArray[np.float32], expected: Detections) -> None:
    """``found``: (max_detections, 6), of boxes that may reach out of the picture."""
    used = found[: len(expected)]
    np.testing.assert_allclose(used[:, 4], expected.confidence, rtol=1e-6)
    np.testing.assert_array_equal(used[:, 5], expected.class_ids)
    np.testing.assert_allclose(np.clip(used[:, :4], 0, 640), expected.boxes, atol=0.01)
    assert not found[len(expected) :].any()
