"""Small test videos, written with libav, whose every picture carries its own number.

The upper half of a picture is a 2 x 8 grid of bright and dark blocks, the 16 bits of its number, most significant
first; the lower half is a moving texture, so that pictures depend on one another. A number survives lossy coding,
conversion and a turn, so a test knows which picture it is looking at.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamproc.types import Picture, UInt8Array

__all__ = [
    "concatenate",
    "damage",
    "lose_access_units",
    "lose_transport_packets",
    "number_in",
    "numbered_luma",
    "truncate",
    "write_audio_only",
    "write_solid",
    "write_video",
]

_COLUMNS, _ROWS = 8, 2
_DARK, _BRIGHT = 60, 190
_TICKS_PER_S = 1000


def numbered_luma(number: int, width: int, height: int) -> UInt8Array:
    """The luma plane (height, width) of picture ``number`` (0..65535)."""
    luma = np.empty((height, width), dtype=np.uint8)
    half = height // 2
    bits = np.array([number >> bit & 1 for bit in range(15, -1, -1)]).reshape(_ROWS, _COLUMNS)
    row = np.arange(half) * _ROWS // half
    column = np.arange(width) * _COLUMNS // width
    luma[:half] = np.where(bits[row][:, column], _BRIGHT, _DARK)
    y, x = np.mgrid[0 : height - half, 0:width]
    luma[half:] = 125 + 60 * np.sin((x + 5 * number) / 11) * np.cos((y - 3 * number) / 7)
    return luma


def number_in(picture: Picture) -> int:
    """The number that a decoded picture carries, read upright."""
    luma = np.rot90(picture.planes[0], -picture.rotation // 90)
    height, width = luma.shape
    half = height // 2
    number = 0
    for bit in range(_ROWS * _COLUMNS):
        row, column = divmod(bit, _COLUMNS)
        y, x = (2 * row + 1) * half // (2 * _ROWS), (2 * column + 1) * width // (2 * _COLUMNS)
        number = number << 1 | int(luma[y - 1 : y + 2, x - 1 : x + 2].mean() > (_DARK + _BRIGHT) / 2)
    return number


def write_video(
    path: Path,
    *,
    frames: int = 50,
    size: tuple[int, int] = (160, 120),
    rate: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 10,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times_ms: Sequence[int] | None = None,
    first_number: int = 0,
    audio: bool = False,
    full_range: bool = False,
    rotate_ccw: int = 0,
) -> Path:
    """Write ``frames`` numbered pictures; the suffix of ``path`` chooses the container.

    ``times_ms``: presentation times for variable frame rate, otherwise ``rate`` pictures a second. ``rotate_ccw``: the
    counter-clockwise turn of the display matrix. H.264 and H.265 are coded without B-frames unless ``options`` say
    otherwise.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=_coder_options(codec) | (options or {}))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        stream.codec_context.time_base = Fraction(1, rate) if times_ms is None else Fraction(1, _TICKS_PER_S)
        if full_range:
            stream.color_range = 2
        if rotate_ccw:
            stream.set_display_rotation(rotate_ccw)
        if audio:
            _add_silence(container, frames / rate)
        scaler = VideoReformatter()
        for index in range(frames):
            frame = scaler.reformat(
                _frame(numbered_luma(first_number + index, *size), full_range=full_range), format=pix_fmt
            )
            frame.pts = index if times_ms is None else times_ms[index]
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_solid(
    path: Path,
    yuv: tuple[int, int, int],
    *,
    pix_fmt: str,
    codec: str,
    colorspace: int = 2,
    full_range: bool = False,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Write three pictures of one colour, given as 8-bit Y, U, V, stored as ``pix_fmt`` without a range conversion."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=_coder_options(codec))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.colorspace = colorspace
        stream.color_range = 2 if full_range else 1
        luma = np.full((size[1], size[0]), yuv[0], dtype=np.uint8)
        for index in range(3):
            plain = _frame(luma, chroma=yuv[1:], full_range=full_range)
            frame = plain.reformat(format=pix_fmt, src_color_range=plain.color_range, dst_color_range=plain.color_range)
            frame.colorspace, frame.color_range = colorspace, plain.color_range
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_audio_only(path: Path) -> Path:
    """Write half a second of silence and no video."""
    with av.open(str(path), "w") as container:
        _add_silence(container, 0.5)
    return path


def concatenate(parts: Sequence[Path], path: Path) -> Path:
    """Join the bytes of MPEG-TS or elementary streams: times jump, and the size may change, at each seam."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def damage(source: Path, path: Path, *, seed: int, count: int, how: Literal["flip", "zero"] = "flip") -> Path:
    """Copy a video with ``count`` damaged places between 30 % and 70 % of its bytes.

    ``flip`` inverts one bit a place, ``zero`` overwrites 200 bytes. Headers and indexes at either end stay whole.
    """
    rng = random.Random(seed)
    data = bytearray(source.read_bytes())
    for _ in range(count):
        at = rng.randrange(int(len(data) * 0.3), int(len(data) * 0.7))
        if how == "flip":
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    return path


def lose_transport_packets(source: Path, path: Path, *, seed: int) -> Path:
    """Copy an MPEG-TS without one to four of its 188-byte packets, as a lossy network would."""
    rng = random.Random(seed)
    data = source.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    start = rng.randrange(20, len(packets) - 20)
    lost = {*range(start, start + rng.randint(1, 3)), rng.randrange(20, len(packets) - 20)}
    path.write_bytes(b"".join(packet for index, packet in enumerate(packets) if index not in lost))
    return path


def lose_access_units(source: Path, path: Path, lost: Sequence[int]) -> Path:
    """Copy a video's coded pictures without those at the given places in decoding order."""
    with av.open(str(source)) as reader, av.open(str(path), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for index, packet in enumerate(packet for packet in reader.demux(stream) if packet.size):
            if index not in lost:
                packet.stream = copy
                writer.mux(packet)
    return path


def truncate(source: Path, path: Path, fraction: float) -> Path:
    """Copy the first ``fraction`` of a file's bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def _coder_options(codec: str) -> dict[str, str]:
    """One thread and no B-frames."""
    options = {"threads": "1"}
    if codec == "libx264":
        return options | {"preset": "veryfast", "bf": "0"}
    if codec == "libx265":
        return options | {"preset": "ultrafast", "x265-params": "bframes=0:log-level=none:pools=none:frame-threads=1"}
    return options


def _frame(luma: UInt8Array, *, chroma: Sequence[int] = (110, 140), full_range: bool) -> VideoFrame:
    height, width = luma.shape
    frame = VideoFrame(width, height, "yuv420p")
    frame.color_range = 2 if full_range else 1
    contents: tuple[UInt8Array | int, ...] = (luma, *chroma)
    for plane, content in zip(frame.planes, contents, strict=True):
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = content
    return frame


def _add_silence(container: OutputContainer, duration_s: float) -> None:
    stream = container.add_stream("aac", rate=48000)
    samples = 1024
    for index in range(int(duration_s * 48000 / samples)):
        frame = AudioFrame(format="fltp", layout="mono", samples=samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = 48000
        frame.pts = index * samples
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
