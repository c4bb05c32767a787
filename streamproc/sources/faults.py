"""What went wrong while reading, in the words of a camera's status: one place that knows libav's errors."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import av

from streamproc.errors import SourceError
from streamproc.telemetry import redact

__all__ = [
    "UnsupportedError",
    "file_error",
    "no_keyframe_error",
    "no_picture_error",
    "no_video_error",
    "stream_error",
]


class UnsupportedError(Exception):
    """A codec or pixel format that cannot be decoded here; the text names it."""


def file_error(camera: str, path: Path, exc: av.FFmpegError | UnsupportedError) -> SourceError:
    """The error for a file that cannot be opened, or read further."""
    if isinstance(exc, UnsupportedError | av.error.DecoderNotFoundError | av.error.PatchWelcomeError):
        reason, remedy = "codec", "Convert it to H.264, for example with ffmpeg."
    elif isinstance(exc, av.error.FileNotFoundError):
        reason, remedy = "not_found", "Check the path of the camera's url; it is relative to the configuration file."
    elif isinstance(exc, av.error.PermissionError):
        reason, remedy = "refused", "Make the file readable for the user that runs streamproc."
    else:
        reason, remedy = "corrupt", "Check that it is a whole video file: does it play elsewhere?"
    return SourceError(f"camera {camera}: cannot read {path}: {_words(exc)}. {remedy}", reason=reason)


def stream_error(
    camera: str, url: str, exc: av.FFmpegError | UnsupportedError, *, opened: bool, timed_out: bool
) -> SourceError:
    """The error for a camera that cannot be opened, or (``opened``) stopped sending.

    libav reports its own time limits under several types, and a failed name look-up as an input/output error: what
    was going on and for how long (``timed_out``) decides first.
    """
    reason = _stream_reason(url, exc, opened=opened, timed_out=timed_out)
    words = _STATES.get(reason) or _words(exc)
    if reason == "refused" and isinstance(exc, av.error.InvalidDataError):
        words = "the connection was closed without an answer, or the answer is not RTSP"
    return SourceError(f"camera {camera}: {redact(url)}: {words}. {_REMEDIES[reason]}", reason=reason)


def no_video_error(camera: str, url: str, kinds: Sequence[str]) -> SourceError:
    """The error for an input whose streams are of these ``kinds`` only."""
    found = ", ".join(sorted(set(kinds))) or "no streams"
    return SourceError(
        f"camera {camera}: {redact(url)}: expected video, found {found}. {_REMEDIES['no_video']}", reason="no_video"
    )


def no_picture_error(camera: str, path: Path) -> SourceError:
    """The error for a file that was read to its end and gave nothing."""
    return SourceError(
        f"camera {camera}: {path}: not one picture could be decoded, for want of an intact keyframe. "
        "Check that the file plays elsewhere, or copy it again.",
        reason="corrupt",
    )


def no_keyframe_error(camera: str, waited_s: float) -> SourceError:
    """The error for a camera that sends packets and no picture."""
    return SourceError(
        f"camera {camera}: {waited_s:.1f} s of video and not one keyframe that can be decoded. "
        "Set the camera's keyframe (I-frame) interval to 1-4 s; over a lossy network use transport: tcp.",
        reason="corrupt",
    )


# Where libav's own words mislead ("Invalid data found" for a camera that does not answer).
_STATES = {
    "dns": "the host name does not resolve",
    "stalled": "no packet came in time",
    "timeout": "no answer came in time",
}
_REMEDIES = {
    "auth": "Check the user name and password in the camera's url.",
    "codec": "Set the camera to H.264 or H.265.",
    "corrupt": "Check that the url is an RTSP stream; over a lossy network use transport: tcp.",
    "dns": "Check the host name in the camera's url, and this machine's name server.",
    "eof": "The camera closed the connection; it will be tried again.",
    "no_video": "Choose a file or stream with video.",
    "not_found": "The camera answers but has no such stream: check the path in its url.",
    "refused": "Check the port in the camera's url, that RTSP is enabled, and how many viewers the camera allows.",
    "stalled": "The camera stopped sending; it will be tried again.",
    "timeout": "Check the camera's address and power, and that no firewall is in between.",
}


def _stream_reason(url: str, exc: Exception, *, opened: bool, timed_out: bool) -> str:
    if isinstance(exc, UnsupportedError | av.error.DecoderNotFoundError):
        return "codec"
    if isinstance(exc, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "auth"
    if isinstance(exc, av.error.HTTPNotFoundError):
        return "not_found"
    if timed_out or isinstance(exc, av.error.TimeoutError | av.error.ExitError):
        return "stalled" if opened else "timeout"
    if opened:
        return "corrupt" if isinstance(exc, av.error.InvalidDataError) else "eof"
    # libav finds a connection that is closed without an answer invalid data too.
    return "refused" if _resolves(url) else "dns"


def _resolves(url: str) -> bool:
    try:
        socket.getaddrinfo(urlsplit(url).hostname, None)
    except OSError:
        return False
    return True


def _words(exc: Exception) -> str:
    """libav's own words for the error; never ``str`` of it, which holds the url with its password."""
    return exc.strerror or type(exc).__name__ if isinstance(exc, av.FFmpegError) else str(exc)
