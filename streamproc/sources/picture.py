"""Decoded libav frames as pictures: planes without a copy, colour and rotation said in the project's own words."""

from __future__ import annotations

from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from streamproc.sources.faults import UnsupportedError
from streamproc.types import ColorMatrix, Picture, PixelLayout, Rotation, UInt8Array

__all__ = ["PictureMaker", "rotation_of"]

_DIRECT: dict[str, PixelLayout] = {"yuv420p": "yuv420p", "yuvj420p": "yuv420p", "nv12": "nv12"}
_FULL_RANGE_NAMES = frozenset({"yuvj411p", "yuvj420p", "yuvj422p", "yuvj440p", "yuvj444p"})
# Values of AVColorSpace (libavutil/pixfmt.h); unspecified (2) and the BT.601 family (4, 5, 6) are bt601. The luma
# weights of SMPTE 240M (7) are within 0.02 of BT.709's.
_MATRICES: dict[int, ColorMatrix] = {1: "bt709", 7: "bt709", 9: "bt2020", 10: "bt2020"}


class PictureMaker:
    """Makes pictures for one reader, on its thread.

    ``yuv420p``, ``yuvj420p`` and ``nv12`` frames are taken as they are: the planes are views that keep the decoder's
    buffers alive. Everything else (10 bit, 4:2:2, 4:4:4, grey, RGB, palette) goes to yuv420p through one swscale
    context, kept because every new one costs about 15 MB.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def make(self, frame: VideoFrame) -> Picture:
        """The picture in ``frame``. Raises :class:`~streamproc.sources.faults.UnsupportedError`."""
        rotation = rotation_of(frame.rotation)
        name = frame.format.name
        full_range = frame.color_range == ColorRange.JPEG or name in _FULL_RANGE_NAMES
        if name not in _DIRECT:
            frame, full_range = self._convert(frame, full_range)
        return Picture(
            planes=tuple(
                _view(plane, interleaved=2 if name == "nv12" and index else 1)
                for index, plane in enumerate(frame.planes)
            ),
            layout=_DIRECT.get(name, "yuv420p"),
            rotation=rotation,
            matrix=_MATRICES.get(frame.colorspace, "bt601"),
            full_range=full_range,
        )

    def _convert(self, frame: VideoFrame, full_range: bool) -> tuple[VideoFrame, bool]:
        """The frame as yuv420p, and whether that is full range; matrix and range stay as they are.

        RGB and palettes have neither: they become BT.601 in limited range. Grey that does not say its range is full.
        """
        kind = frame.format
        colours = kind.is_rgb or kind.has_palette
        grey = kind.name.startswith("gray")
        if grey and frame.color_range == ColorRange.UNSPECIFIED:
            full_range = True
        # swscale takes grey for full range whatever it is told: full to full leaves the values alone.
        source = ColorRange.JPEG if full_range or grey or colours else ColorRange.MPEG
        target = ColorRange.MPEG if colours else source
        try:
            converted = self._reformatter.reformat(
                frame,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU601 if colours else None,
                src_color_range=source,
                dst_color_range=target,
                threads=1,
            )
        except av.FFmpegError as exc:
            raise UnsupportedError(f"pixel format {kind.name}: {exc.strerror}") from exc
        return converted, full_range and not colours


def rotation_of(counter_clockwise_deg: int) -> Rotation:
    """The clockwise turn that shows a picture upright, to the nearest quarter.

    libav gives the turn, counter-clockwise, that the display matrix asks the player for.

    >>> rotation_of(-90), rotation_of(180), rotation_of(-180), rotation_of(89)
    (90, 180, 180, 270)
    """
    return cast(Rotation, -round(counter_clockwise_deg / 90) % 4 * 90)


def _view(plane: VideoPlane, *, interleaved: int) -> UInt8Array:
    """A read-only view (h, w) of a plane, or (h, w, 2) of interleaved chroma; it keeps the frame alive."""
    stride = plane.line_size
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, abs(stride))
    if stride < 0:  # stored bottom up; the buffer starts at the lowest address
        rows = rows[::-1]
    view: UInt8Array = rows[:, : plane.width * interleaved]
    if interleaved > 1:
        view = view.reshape(plane.height, plane.width, interleaved)
    view.flags.writeable = False
    return view
