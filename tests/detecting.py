"""Detection from end to end in tests: our own path, and a plain one to hold it against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from streamproc.engines.base import Engine
from streamproc.models.heads import Thresholds
from streamproc.models.spec import Head
from streamproc.preprocess import letterbox_into
from streamproc.types import Detections, Letterbox, Picture, UInt8Array
from tests.scoring import box_iou

__all__ = ["PlainYolo", "agreement", "detect_all", "obvious_nms"]


async def detect_all(
    engine: Engine, head: Head, pictures: Iterable[Picture], thresholds: Thresholds
) -> list[Detections]:
    """Our own path: letterbox into a slot, infer, decode; as many pictures at once as the engine has slots."""

    async def detect(picture: Picture) -> Detections:
        async with engine.lease() as slot:
            letterbox = letterbox_into(picture, slot.images[0], fit=engine.info.fit)
            return head.decode(await engine.infer(slot, 1), 0, letterbox, thresholds)

    limit = asyncio.Semaphore(engine.slots)

    async def bounded(picture: Picture) -> Detections:
        try:
            return await detect(picture)
        finally:
            limit.release()

    tasks = []
    async with asyncio.TaskGroup() as group:
        for picture in pictures:
            await limit.acquire()
            tasks.append(group.create_task(bounded(picture)))
    return [task.result() for task in tasks]


class PlainYolo:
    """YOLOv8 the straightforward way: full-size RGB by swscale, letterbox, float, ONNX Runtime, plain suppression."""

    def __init__(self, path: Path, *, confidence: float = 0.25, iou: float = 0.45) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._confidence = confidence
        self._iou = iou

    def detect(self, frame: VideoFrame) -> Detections:
        """The detections in a decoded frame, in its pixels."""
        rgb = frame.to_ndarray(format="rgb24")
        height, width = rgb.shape[:2]
        box = Letterbox.fit((width, height), (640, 640))
        image: UInt8Array = np.full((640, 640, 3), 114, dtype=np.uint8)
        (inner_width, inner_height), (left, top) = box.inner, box.pad
        image[top : top + inner_height, left : left + inner_width] = cv2.resize(rgb, box.inner)
        tensor = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32) / 255
        (output,) = self._session.run(None, {"images": tensor})
        rows = output[0].T
        class_ids, scores = rows[:, 4:].argmax(axis=1), rows[:, 4:].max(axis=1)
        keep = scores >= self._confidence
        centre, size = rows[keep, :2], rows[keep, 2:4]
        boxes = np.hstack([centre - size / 2, centre + size / 2])
        kept = obvious_nms(boxes, scores[keep], class_ids[keep], self._iou)
        return Detections.of(box.to_source(boxes[kept]), scores[keep][kept], class_ids[keep][kept])


def obvious_nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int64], iou: float
) -> NDArray[np.int64]:
    """Greedy suppression, box by box and class by class; indices, best first."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        rivals = [other for other in kept if class_ids[other] == class_ids[index]]
        overlaps = box_iou(boxes[[index]].astype(np.float64), boxes[rivals].astype(np.float64))
        if not (overlaps > iou).any():
            kept.append(int(index))
    return np.array(kept, dtype=np.int64)


def agreement(
    reference: Detections, found: Detections, *, confidence: float = 0.4, iou: float = 0.9
) -> tuple[int, int]:
    """How many of the reference's clear boxes were found with their class, and how many there are."""
    clear = reference.confidence >= confidence
    overlaps = box_iou(reference.boxes[clear].astype(np.float64), found.boxes.astype(np.float64))
    same = reference.class_ids[clear][:, None] == found.class_ids[None, :]
    return int(((overlaps >= iou) & same).any(axis=1).sum()), int(clear.sum())
