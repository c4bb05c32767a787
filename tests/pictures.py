"""Pictures for tests: from decoded video frames and image files, and made from planes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from streamproc.preprocess import to_bgr
from streamproc.types import ColorMatrix, Picture, PixelLayout, Rotation, UInt8Array

__all__ = ["frames_of", "make_picture", "picture_of", "read_picture"]

_MATRICES: dict[int, ColorMatrix] = {1: "bt709", 9: "bt2020"}  # ITU-T H.273 MatrixCoefficients; others count as BT.601


def frames_of(path: Path, every: int = 1) -> Iterator[VideoFrame]:
    """Each ``every``-th frame of a video or image file, decoded on one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            if index % every == 0:
                yield frame


def picture_of(frame: VideoFrame) -> Picture:
    """A decoded frame as a picture; formats that pictures do not have become 4:2:0 of the same matrix and range."""
    full_range = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        grey = frame.format.name.startswith("gray")  # swscale takes it for full range
        full_range = full_range or grey
        frame = frame.reformat(format="yuvj420p" if full_range else "yuv420p")
    planes = []
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        height = frame.height if index == 0 else (frame.height + 1) // 2
        width = frame.width if index == 0 else (frame.width + 1) // 2
        planes.append(rows[:height, :width])
    matrix = _MATRICES.get(int(frame.colorspace), "bt601")
    return Picture(planes=tuple(planes), layout="yuv420p", matrix=matrix, full_range=full_range)


def read_picture(path: Path) -> Picture:
    """An image file as a decoder would give it; chroma that OpenCV halves is as coarse as a camera's."""
    bgr = cv2.imread(str(path))
    assert bgr is not None
    height, width = (side - side % 2 for side in bgr.shape[:2])
    planes = np.asarray(cv2.cvtColor(bgr[:height, :width], cv2.COLOR_BGR2YUV_I420), dtype=np.uint8)
    y, u, v = np.split(planes.reshape(-1), [height * width, height * width * 5 // 4])
    half = (height // 2, width // 2)
    return Picture(planes=(y.reshape(height, width), u.reshape(half), v.reshape(half)), layout="yuv420p")


def make_picture(
    y: UInt8Array,
    u: UInt8Array,
    v: UInt8Array,
    *,
    layout: PixelLayout = "yuv420p",
    rotation: Rotation = 0,
    matrix: ColorMatrix = "bt601",
    full_range: bool = False,
) -> Picture:
    """A picture of three planes, with its chroma interleaved, or converted to RGB, where the layout wants it."""
    if layout == "rgb24":
        rgb = to_bgr(make_picture(y, u, v, matrix=matrix, full_range=full_range))[..., ::-1]
        return Picture(planes=(np.ascontiguousarray(rgb),), layout=layout, rotation=rotation)
    planes = (y, u, v) if layout == "yuv420p" else (y, np.dstack([u, v]))
    return Picture(planes=planes, layout=layout, rotation=rotation, matrix=matrix, full_range=full_range)
