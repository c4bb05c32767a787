"""Opens a camera or file: libav's options, the login, hardware decoding."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import quote

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from streamproc.sources.faults import UnsupportedError, no_video_error

__all__ = ["Acceleration", "HardwareChoice", "Transport", "opened", "stream_options", "with_login"]

logger = logging.getLogger(__name__)

Transport = Literal["auto", "tcp", "udp"]
Acceleration = Literal["none", "auto", "cuda", "qsv"]


def stream_options(transport: Transport, timeout_s: float) -> dict[str, str]:
    """libav's options for an RTSP camera; ``auto`` asks for TCP and takes UDP where the camera insists."""
    options = {
        "timeout": str(round(timeout_s * 1e6)),  # µs; the socket's own limit
        "allowed_media_types": "video",
        # The rate is only a fallback here: do not sit on the first pictures to estimate it.
        "fpsprobesize": "0",
    }
    return options | ({"rtsp_flags": "prefer_tcp"} if transport == "auto" else {"rtsp_transport": transport})


def with_login(url: str, username: str, password: str) -> str:
    """``url`` as libav wants it, with this login in place of its own; without a ``username`` as it is.

    >>> with_login("rtsp://10.0.0.5/live", "ad@min", "p:a/s%40s")
    'rtsp://ad%40min:p%3Aa%2Fs%2540s@10.0.0.5/live'
    """
    if not username:
        return url
    scheme, _, rest = url.partition("://")
    # As in libav, the last '@' before the first of '/?#' ends the user information.
    rest = re.sub(r"^[^/?#]*@", "", rest)
    return f"{scheme}://{quote(username, safe='')}:{quote(password, safe='')}@{rest}"


class HardwareChoice:
    """One camera's hardware decoder, chosen anew at each opening: a device may come and go.

    Says once that it has to do without; libav then decodes in software.
    """

    def __init__(self, camera: str, wanted: Acceleration) -> None:
        self._camera = camera
        self._wanted = wanted
        self._told = wanted == "none"

    def device(self) -> HWAccel | None:
        """A device of the wanted kind that can be used here, or None."""
        if self._wanted == "none":
            return None
        for kind in hwdevices_available() if self._wanted == "auto" else [self._wanted]:
            accel = HWAccel(kind, allow_software_fallback=True)
            try:
                accel.create(av.Codec("h264", "r"))
            except (av.FFmpegError, NotImplementedError):
                continue
            return accel
        self._tell("no device of that kind can be used here")
        return None

    def check(self, stream: VideoStream) -> None:
        """Note whether the stream's decoder took the device."""
        if not stream.codec_context.is_hwaccel:
            self._tell(f"the device does not decode {stream.codec_context.name}")

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "camera %s: hwaccel: %s: %s; decoding in software. Check the driver, or set hwaccel: none.",
                self._camera,
                self._wanted,
                why,
            )


@contextmanager
def opened(
    camera: str, url: str, options: dict[str, str], *, timeouts_s: tuple[float, float], hardware: HardwareChoice
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """An open input and its video stream; both are dead memory once this is left.

    Args:
        timeouts_s: how long opening may take, and each read.

    Raises:
        SourceError: it has no video.
        UnsupportedError: no decoder for it.
        av.FFmpegError: everything else.
    """
    with av.open(url, options=options, timeout=timeouts_s, hwaccel=hardware.device()) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise no_video_error(camera, url, [other.type for other in container.streams])
        if stream.codec_context is None:
            raise UnsupportedError(f"codec {stream.codec_tag!r}: no decoder for it")
        hardware.check(stream)
        for other in container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        yield container, stream
