"""Live streams of one run: annotated ones, encoded while they are watched, and the cameras' own, passed on."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from streamproc.config import RtspConfig
from streamproc.preprocess import to_bgr
from streamproc.rtsp import Credentials, Feed, Pusher, RtspServer
from streamproc.sinks.live import LiveSink, LiveStyle
from streamproc.telemetry import redact
from streamproc.types import AccessUnit, Frame

__all__ = ["LiveStreams", "host_and_port"]


class LiveStreams:
    """An RTSP server with ``CAMERA`` and, unless that is turned off, ``CAMERA/raw`` for each camera; and pushes of what
    is at ``CAMERA`` to another server. Either may be left out.

    ``sink`` draws and encodes; it takes part in the run as every other sink.

    Args:
        tap: begins or ends a camera's handing its packets to :meth:`raw`; called on the event loop.
        spent: see :class:`LiveSink`.
    """

    def __init__(
        self,
        rtsp: RtspConfig,
        cameras: Sequence[str],
        *,
        tap: Callable[[str, bool], None],
        spent: Callable[[str, int], None],
    ) -> None:
        drawn = {
            camera: Feed(camera, partial(self._watch, camera), on_join=partial(self._refresh, camera))
            for camera in cameras
        }
        raw = cameras if rtsp.raw and rtsp.listen is not None else ()
        self._raw = {camera: Feed(f"{camera}/raw", partial(tap, camera)) for camera in raw}
        self._feeds = {feed.path: feed for feed in (*drawn.values(), *self._raw.values())}
        self.sink = LiveSink(
            {camera: feed.publish for camera, feed in drawn.items()},
            style=LiveStyle(fps=rtsp.fps, height=rtsp.height, bitrate_kbps=rtsp.bitrate_kbps),
            to_bgr=to_bgr,
            spent=spent,
        )
        self._server: RtspServer | None = None
        self._places: list[str] = []
        if rtsp.listen is not None:
            self._server = RtspServer(*host_and_port(rtsp.listen), self._feeds, credentials=_credentials(rtsp))
            self._places.append(f"at rtsp://{rtsp.listen}/CAMERA")
        pushes: dict[str, tuple[Feed, str]] = {}
        if rtsp.push is not None:
            pushes = {camera: (feed, rtsp.push_url(camera)) for camera, feed in drawn.items()}
            self._places.append(f"pushed to {redact(rtsp.push_url('CAMERA')).partition('?')[0]}")
        self._pusher = Pusher(pushes)

    def __str__(self) -> str:
        """Where they are to be seen."""
        return ", ".join(self._places)

    def raw(self, camera: str) -> Callable[[AccessUnit], None] | None:
        """What takes a camera's own packets, on its reader's thread; None where they are not served."""
        feed = self._raw.get(camera)
        return None if feed is None else feed.publish

    def not_inferred(self, frame: Frame) -> None:
        """Show a frame that will have no result, where somebody watches its camera; from any thread, never waits."""
        self.sink.not_inferred(frame)

    async def start(self) -> None:
        """Listen, where that is asked for.

        Raises:
            FatalError: the address cannot be listened on.
        """
        for feed in self._feeds.values():
            feed.attach(asyncio.get_running_loop())
        if self._server is not None:
            await self._server.start()

    async def push(self) -> None:
        """Push what is to be pushed, between :meth:`start` and :meth:`close`, until cancelled."""
        await self._pusher.run()

    async def close(self) -> None:
        """End every session, and stop listening."""
        if self._server is not None:
            await self._server.close()
        for feed in self._feeds.values():
            feed.detach()

    def counts(self) -> Mapping[str, Any]:
        """For the report: who watched, what was sent and pushed, how many of the annotated pictures were not inferred,
        and how old annotated pictures were when their packets went out."""
        return {
            "refused": self._server.stats().refused if self._server is not None else {},
            "feeds": {path: dataclasses.asdict(feed.stats()) for path, feed in self._feeds.items()},
            "push": {camera: dataclasses.asdict(push) for camera, push in self._pusher.stats().items()},
            "carried": self.sink.carried,
            "age_ms": self.sink.ages().summary(),
        }

    def _watch(self, camera: str, watched: bool) -> None:
        self.sink.watch(camera, watched)

    def _refresh(self, camera: str) -> None:
        self.sink.request_keyframe(camera)


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
