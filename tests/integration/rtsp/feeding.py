"""Feeds for tests: encoded pictures of a file or of an encoder, published at their own pace from a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from streamproc.rtsp import Feed
from streamproc.types import AccessUnit

__all__ = ["SAMPLES", "Publisher", "publishing", "units_of_encoder", "units_of_file"]

SAMPLES = Path(__file__).parents[3] / "samples"
FPS = 24


@cache
def units_of_file(path: Path) -> tuple[AccessUnit, ...]:
    """The pictures of an H.264 file in decoding order, as Annex B."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        to_annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [packet for source in container.demux(stream) for packet in to_annex_b.filter(source)]
    return tuple(
        AccessUnit(
            data=bytes(packet),
            codec="h264",
            pts_s=float(packet.pts * packet.time_base),
            keyframe=packet.is_keyframe,
            captured_utc_ns=0,
        )
        for packet in packets
        if packet.pts is not None and packet.time_base is not None
    )


@cache
def units_of_encoder() -> tuple[AccessUnit, ...]:
    """Two seconds of H.265 with a keyframe a second."""
    encoder = av.CodecContext.create("libx265", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = 320, 192, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x265-params": f"keyint={FPS}:repeat-headers=1:log-level=none",
    }
    packets = []
    for index in range(2 * FPS):
        picture = np.full((192, 320, 3), index * 5, dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return tuple(
        AccessUnit(data=bytes(packet), codec="hevc", pts_s=index / FPS, keyframe=packet.is_keyframe, captured_utc_ns=0)
        for index, packet in enumerate(packets)
    )


class Publisher:
    """Publishes units again and again on a thread of its own, at 24 a second, while watched.

    ``watched`` holds what ``on_watch`` was told.
    """

    def __init__(self, path: str, units: Sequence[AccessUnit], *, linger_s: float = 0.1) -> None:
        self.watched: list[bool] = []
        self.feed = Feed(path, self.watched.append, linger_s=linger_s)
        self._units = units
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"publisher of {path}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = time.monotonic()
        for count in range(1_000_000):
            turn, index = divmod(count, len(self._units))
            unit = self._units[index]
            due_s = began_s + count / FPS
            if self._ended.wait(max(0.0, due_s - time.monotonic())):
                return
            self.feed.publish(
                AccessUnit(
                    data=unit.data,
                    codec=unit.codec,
                    pts_s=unit.pts_s + turn * len(self._units) / FPS,
                    keyframe=unit.keyframe,
                    captured_utc_ns=time.time_ns(),
                )
            )


@contextmanager
def publishing(*publishers: Publisher) -> Iterator[dict[str, Feed]]:
    """Their feeds by path, while they publish."""
    for publisher in publishers:
        publisher.start()
    try:
        yield {publisher.feed.path: publisher.feed for publisher in publishers}
    finally:
        for publisher in publishers:
            publisher.stop()
