"""A tiny detector in the layouts of the YOLO family, with boxes and scores that depend on the picture's brightness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from onnx import helper

from tests.tiny_models import Side, save

__all__ = ["CELLS", "SIZE", "save_detector", "save_picture"]

SIZE = (64, 64)
CELLS = 84  # of strides 8, 16 and 32 together
NAMES = "{0: 'person', 1: 'car'}"


def save_detector(
    path: Path,
    *,
    layout: Literal["raw", "objectness", "end-to-end"] = "raw",
    batch: Side = "batch",
    brighter: float = 1.0,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write it; ``brighter`` multiplies every score."""
    generator = np.random.default_rng(7)
    rows = {"raw": CELLS, "objectness": 3 * CELLS, "end-to-end": 20}[layout]
    boxes = np.concatenate([generator.uniform(10, 54, (rows, 2)), generator.uniform(6, 20, (rows, 2))], axis=1)
    scores = generator.uniform(0, 0.4, (rows, 2)) * brighter
    scores[:6, 0] = np.linspace(1.2, 1.9, 6) * brighter
    if layout == "objectness":
        columns = np.concatenate([boxes, np.ones((rows, 1)), scores], axis=1)
    elif layout == "end-to-end":
        corners = np.concatenate([boxes[:, :2] - 5, boxes[:, :2] + 5], axis=1)
        columns = np.concatenate([corners, scores.max(axis=1, keepdims=True), np.ones((rows, 1))], axis=1)
    else:
        columns = np.concatenate([boxes, scores], axis=1)
    varying = np.zeros_like(columns)
    varying[:, 4 + (layout == "objectness") : 5 if layout == "end-to-end" else None] = 1
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


def save_picture(path: Path, *, value: int = 200, size: tuple[int, int] = (80, 60)) -> Path:
    """Write a picture with a gradient, at most as bright as ``value``."""
    row = np.linspace(value // 2, value, size[0])
    pixels = np.repeat(np.tile(row, (size[1], 1))[:, :, None], 3, axis=2).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path
