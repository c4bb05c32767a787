"""A tiny detector in the layouts of the YOLO family, with boxes and scores that depend on the picture's brightness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from onnx import helper

from tests.tiny_models import Side, save

__all__ = ["CELLS", "SIZE", "save_convolutional", "save_detector", "save_picture"]

SIZE = (64, 64)
CELLS = 84  # of strides 8, 16 and 32 together
NAMES = "{0: 'person', 1: 'car'}"


def save_detector(
    path: Path,
    *,
    layout: Literal["raw", "objectness", "grid", "end-to-end"] = "raw",
    batch: Side = "batch",
    brighter: float = 1.0,
    keypoints: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write it; ``brighter`` multiplies every score, ``keypoints`` follow them in a raw output."""
    generator = np.random.default_rng(7)
    rows = {"raw": CELLS, "objectness": 3 * CELLS, "grid": CELLS, "end-to-end": 20}[layout]
    boxes = np.concatenate([generator.uniform(10, 54, (rows, 2)), generator.uniform(6, 20, (rows, 2))], axis=1)
    scores = generator.uniform(0, 0.4, (rows, 2)) * brighter
    scores[:6, 0] = np.linspace(1.2, 1.9, 6) * brighter
    if layout == "grid":  # beside the cells, of pictures that go up to 255
        boxes = np.concatenate([generator.uniform(0, 1, (rows, 2)), generator.uniform(-0.5, 0.8, (rows, 2))], axis=1)
        scores /= 255
    has_objectness = layout in ("objectness", "grid")
    if has_objectness:
        columns = np.concatenate([boxes, np.ones((rows, 1)), scores], axis=1)
    elif layout == "end-to-end":
        corners = np.concatenate([boxes[:, :2] - 5, boxes[:, :2] + 5], axis=1)
        columns = np.concatenate([corners, scores.max(axis=1, keepdims=True), np.ones((rows, 1))], axis=1)
    else:
        points = generator.uniform(0, 1, (rows, 3 * keypoints))
        columns = np.concatenate([boxes, scores, points], axis=1)
    varying = np.zeros_like(columns)
    varying[:, 4 + has_objectness : 5 if layout == "end-to-end" else columns.shape[1] - 3 * keypoints] = 1
    fixed, scaled = columns * (1 - varying), columns * varying
    if layout == "raw":
        fixed, scaled = fixed.T, scaled.T
    nodes = [
        helper.make_node("ReduceMean", ["pictures"], ["mean"], axes=[2, 3], keepdims=1),
        helper.make_node("ReduceMean", ["mean"], ["grey"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["grey", "scaled"], ["values"]),
        helper.make_node("Add", ["values", "fixed"], ["output0"]),
    ]
    return save(
        path,
        nodes,
        {"pictures": ("float32", (batch, 3, SIZE[1], SIZE[0]))},
        {"output0": (batch, *fixed.shape)},
        {"fixed": fixed[None].astype(np.float32), "scaled": scaled[None].astype(np.float32)},
        {"names": NAMES, "task": "detect", "stride": "32"} if metadata is None else metadata,
    )


def save_convolutional(path: Path, *, batch: Side = "batch") -> Path:
    """Write a detector of convolutions, as exporters write them: raw, two classes, a box for each cell of stride 8.

    ``stem`` and ``neck`` are followed by x * sigmoid(x), ``boxes`` and ``scores`` are the last; a sum over ``bins`` of
    a distribution follows the boxes.
    """
    generator = np.random.default_rng(8)

    def weights(*shape: int) -> np.ndarray:
        return generator.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)

    nodes = [helper.make_node("Conv", ["pictures", "stem_w", "stem_b"], ["stem"], "stem", strides=[8, 8])]
    for layer, then in (("stem", "neck"), ("neck", "")):
        nodes += [
            helper.make_node("Sigmoid", [layer], [f"{layer}_gate"], f"{layer}_gate"),
            helper.make_node("Mul", [layer, f"{layer}_gate"], [f"{layer}_act"], f"{layer}_act"),
        ]
        if then:
            taken = [f"{layer}_act", f"{then}_w", f"{then}_b"]
            nodes.append(helper.make_node("Conv", taken, [then], then, pads=[1, 1, 1, 1]))
    nodes += [
        helper.make_node("Conv", ["neck_act", "boxes_w"], ["boxes"], "boxes"),
        helper.make_node("Reshape", ["boxes", "by_bin"], ["spread"], "spread"),
        helper.make_node("Softmax", ["spread"], ["likely"], "likely", axis=1),
        helper.make_node("Conv", ["likely", "bins"], ["sums"], "sums"),
        helper.make_node("Reshape", ["sums", "by_side"], ["sides"], "sides"),
        helper.make_node("Conv", ["neck_act", "scores_w"], ["scores"], "scores"),
        helper.make_node("Reshape", ["scores", "by_class"], ["classes"], "classes"),
        helper.make_node("Sigmoid", ["classes"], ["likelihoods"], "likelihoods"),
        helper.make_node("Concat", ["sides", "likelihoods"], ["found"], "found", axis=1),
        helper.make_node("Pad", ["found", "coarser"], ["output0"], "output0"),
    ]
    constants = {
        "stem_w": weights(16, 3, 8, 8),
        "stem_b": weights(16, 1)[:, 0],
        "neck_w": weights(16, 16, 3, 3),
        "neck_b": weights(16, 1)[:, 0],
        "boxes_w": weights(16, 16, 1, 1),
        "scores_w": 8 * weights(2, 16, 1, 1),
        "bins": np.array([8, 16, 32, 56], dtype=np.float32).reshape(1, 4, 1, 1),
        "by_bin": np.array([0, 4, 4, 64], dtype=np.int64),
        "by_side": np.array([0, 4, 64], dtype=np.int64),
        "coarser": np.array([0, 0, 0, 0, 0, CELLS - 64], dtype=np.int64),  # the cells of the coarser strides, empty
        "by_class": np.array([0, 2, 64], dtype=np.int64),
    }
    return save(
        path,
        nodes,
        {"pictures": ("float32", (batch, 3, SIZE[1], SIZE[0]))},
        {"output0": (batch, 6, CELLS)},
        constants,
        {"names": NAMES, "task": "detect"},
    )


def save_picture(path: Path, *, value: int = 200, size: tuple[int, int] = (80, 60)) -> Path:
    """Write a picture with a gradient, at most as bright as ``value``."""
    row = np.linspace(value // 2, value, size[0])
    pixels = np.repeat(np.tile(row, (size[1], 1))[:, :, None], 3, axis=2).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path
