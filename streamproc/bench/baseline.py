"""What everything is compared with: a client as tutorials write it.

A picture is letterboxed and made float in NumPy, goes to the server within the request as FP32, the whole raw output
comes back within the answer, and a Python loop looks at each of its boxes.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from streamproc.bench.server import Access
from streamproc.engines.base import ModelInfo
from streamproc.errors import EngineError
from streamproc.models.heads import Thresholds
from streamproc.types import Detections, Letterbox, UInt8Array

__all__ = ["TutorialClients", "why_no_baseline"]


def why_no_baseline(info: ModelInfo, head: str) -> str | None:
    """Why a model cannot serve such a client; None where it can."""
    taken = info.inputs[0]
    if taken.dtype != "float32" or taken.shape[1] != 3:
        return f"its input is {taken.dtype} {taken.shape}, and tutorials send float32 (batch, 3, height, width)"
    if head != "yolo":
        return f"its output is that of {head}, and tutorials read the raw output of YOLOv8"
    return None


class TutorialClients:
    """So many of them side by side, each on a thread of its own, which is more than tutorials do."""

    def __init__(self, access: Access, info: ModelInfo, count: int) -> None:
        self._idle = [_TutorialClient(access, info) for _ in range(count)]
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="tutorial")

    async def detect(self, bgr: UInt8Array, thresholds: Thresholds) -> Detections:
        """The detections in a picture, in its pixels, best first; at most as many at once as there are clients.

        Raises:
            EngineError: the server failed.
        """
        client = self._idle.pop()
        found = await asyncio.get_running_loop().run_in_executor(self._threads, client.detect, bgr, thresholds)
        self._idle.append(client)
        return found

    def close(self) -> None:
        """Wait for what is under way, and end the connections."""
        self._threads.shutdown()
        for client in self._idle:
            client.close()


class _TutorialClient:
    """A synchronous client of a served YOLOv8 with its own FP32 input and raw output; for one thread."""

    def __init__(self, access: Access, info: ModelInfo) -> None:
        self._client = triton.InferenceServerClient(access.address, **access.tls_options())
        self._headers = dict(access.headers)
        self._info = info

    def detect(self, bgr: UInt8Array, thresholds: Thresholds) -> Detections:
        width, height = self._info.size
        letterbox = Letterbox.fit((bgr.shape[1], bgr.shape[0]), (width, height))
        output = self._infer(_as_tensor(bgr, letterbox, (width, height)))
        return _detections(output, letterbox, thresholds)

    def close(self) -> None:
        self._client.close()

    def _infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        images = triton.InferInput(self._info.inputs[0].name, tensor.shape, "FP32")
        images.set_data_from_numpy(tensor)
        name = self._info.outputs[0].name
        wanted = [triton.InferRequestedOutput(name)]
        try:
            answer = self._client.infer(self._info.name, [images], outputs=wanted, headers=self._headers)
        except InferenceServerException as exc:
            raise EngineError(f"model {self._info.name}: the tutorial's client failed: {exc.message()}") from exc
        output: NDArray[np.float32] = answer.as_numpy(name)[0]
        return output


def _as_tensor(bgr: UInt8Array, letterbox: Letterbox, size: tuple[int, int]) -> NDArray[np.float32]:
    (width, height), (left, top) = letterbox.inner, letterbox.pad
    resized = cv2.resize(bgr, letterbox.inner, interpolation=cv2.INTER_LINEAR)
    canvas = np.full((size[1], size[0], 3), 114, dtype=np.uint8)
    canvas[top : top + height, left : left + width] = resized
    rgb = cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB)
    scaled = rgb.astype(np.float32) / 255.0
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)


def _detections(output: NDArray[np.float32], letterbox: Letterbox, thresholds: Thresholds) -> Detections:
    """(4 + classes, boxes), row by row of its transpose; suppression regardless of class, as tutorials do it."""
    boxes: list[list[float]] = []
    scores: list[float] = []
    class_ids: list[int] = []
    for row in output.T:
        class_scores = row[4:]
        score = float(np.max(class_scores))
        if score >= thresholds.confidence:
            x, y, width, height = row[:4]
            boxes.append([float(x - width / 2), float(y - height / 2), float(width), float(height)])
            scores.append(score)
            class_ids.append(int(np.argmax(class_scores)))
    kept = [int(index) for index in cv2.dnn.NMSBoxes(boxes, scores, thresholds.confidence, thresholds.iou)]
    corners = np.array([[x, y, x + width, y + height] for x, y, width, height in boxes], dtype=np.float32)
    return Detections.of(
        letterbox.to_source(corners.reshape(-1, 4)[kept]),
        np.array([scores[index] for index in kept], dtype=np.float32),
        np.array([class_ids[index] for index in kept], dtype=np.int64),
    )
