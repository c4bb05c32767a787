"""Live streams of one run: annotated ones, encoded while somebody watches, and the cameras' own, passed on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from streamproc.config import RtspConfig
from streamproc.preprocess import to_bgr
from streamproc.rtsp import Credentials, Feed, RtspServer
from streamproc.sinks.live import LiveSink, LiveStyle
from streamproc.types import AccessUnit

__all__ = ["LiveStreams", "host_and_port"]


class LiveStreams:
    """An RTSP server with ``CAMERA`` and, unless that is turned off, ``CAMERA/raw`` for each camera.

    ``sink`` draws and encodes; it takes part in the run as every other sink.

    Args:
        tap: begins or ends a camera's handing its packets to :meth:`raw`; called on the event loop.
    """

    def __init__(self, rtsp: RtspConfig, cameras: Sequence[str], *, tap: Callable[[str, bool], None]) -> None:
        drawn = {camera: Feed(camera, partial(self._watch, camera)) for camera in cameras}
        self._raw = {camera: Feed(f"{camera}/raw", partial(tap, camera)) for camera in cameras} if rtsp.raw else {}
        self.sink = LiveSink(
            {camera: feed.publish for camera, feed in drawn.items()},
            style=LiveStyle(fps=rtsp.fps, height=rtsp.height, bitrate_kbps=rtsp.bitrate_kbps),
            to_bgr=to_bgr,
        )
        host, port = host_and_port(rtsp.listen)
        feeds = [*drawn.values(), *self._raw.values()]
        self._server = RtspServer(host, port, {feed.path: feed for feed in feeds}, credentials=_credentials(rtsp))

    def raw(self, camera: str) -> Callable[[AccessUnit], None] | None:
        """What takes a camera's own packets, on its reader's thread; None where they are not served."""
        feed = self._raw.get(camera)
        return None if feed is None else feed.publish

    async def start(self) -> None:
        """Listen.

        Raises:
            FatalError: the address cannot be listened on.
        """
        await self._server.start()

    async def close(self) -> None:
        """End every session, and stop listening."""
        await self._server.close()

    def counts(self) -> Mapping[str, Any]:
        """For the report: who watched, what was sent, and how old pictures were when their packets went out."""
        stats = self._server.stats()
        return {
            "refused": stats.refused,
            "feeds": {path: dataclasses.asdict(feed) for path, feed in stats.feeds.items()},
            "age_ms": self.sink.ages().summary(),
        }

    def _watch(self, camera: str, watched: bool) -> None:
        self.sink.watch(camera, watched)


def host_and_port(listen: str) -> tuple[str, int]:
    """The parts of a checked ``host:port``."""
    parts = urlsplit(f"rtsp://{listen}")
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _credentials(rtsp: RtspConfig) -> Credentials | None:
    if rtsp.username is None or rtsp.password is None:
        return None
    return Credentials(username=rtsp.username, password=rtsp.password.get_secret_value())
