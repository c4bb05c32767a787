"""Writes and reads the sample videos: H.264 in MP4 through PyAV."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from samples.camera import HEIGHT, WIDTH
from samples.traffic import FPS

__all__ = ["read", "write"]

Pixels = NDArray[np.uint8]


def write(path: Path, frames: Iterable[Pixels], crf: int = 22) -> None:
    """Encodes 1280x720 BGR frames at 24 FPS: yuv420p, BT.709 limited range, a closed group of pictures every 2 s."""
    options = {
        "crf": str(crf), "preset": "medium", "bf": "2", "flags": "+cgop", "sc_threshold": "0",
        # libx264 works on the same frames with any number of threads, but only one gives the same bytes everywhere.
        "threads": "1",
    }  # fmt: skip
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.gop_size = 2 * FPS
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
        context.color_range = 1  # limited
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            converted = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            container.mux(stream.encode(converted))
        container.mux(stream.encode())


def read(path: Path) -> Iterator[Pixels]:
    """All frames as (720, 1280, 3) uint8 BGR."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert isinstance(stream, VideoStream)
        for frame in container.decode(stream):
            yield frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
