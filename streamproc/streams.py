"""Live streams of one run, where viewers meet them: annotated ones, and the cameras' own."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from streamproc.config import RtspConfig
from streamproc.rtsp import Credentials, Feed, Pusher, RtspServer
from streamproc.telemetry import redact
from streamproc.types import AccessUnit

__all__ = ["LiveStreams", "Publish", "Screens", "Show", "host_and_port"]

Publish: TypeAlias = Callable[[AccessUnit], None]


class Show(Protocol):
    """Whoever makes the pictures of the cameras, here or in another process; all on the event loop."""

    def watch(self, camera: str, watched: bool) -> None:
        """Draw and encode a camera's results from now on, or no longer."""
        ...

    def refresh(self, camera: str) -> None:
        """Make its next picture a keyframe."""
        ...

    def tap(self, camera: str, watched: bool) -> None:
        """Hand on the camera's own packets from now on, or no longer."""
        ...


class Screens(Protocol):
    """Where pictures for viewers go: functions that take a camera's access units on any one thread at a time and never
    wait."""

    def drawn(self, camera: str) -> Publish:
        """For annotated pictures."""
        ...

    def raw(self, camera: str) -> Publish | None:
        """For the camera's own packets; None where they are not wanted."""
        ...


class LiveStreams:
    """An RTSP server with ``CAMERA`` and, unless that is turned off, ``CAMERA/raw`` for each camera; and pushes of what
    is at ``CAMERA`` to another server. Either may be left out."""

    def __init__(self, rtsp: RtspConfig, cameras: Sequence[str]) -> None:
        self._show: Show | None = None
        self._drawn = {
            camera: Feed(camera, partial(self._watch, camera), on_join=partial(self._refresh, camera))
            for camera in cameras
        }
        raw = cameras if rtsp.raw and rtsp.listen is not None else ()
        self._raw = {camera: Feed(f"{camera}/raw", partial(self._tap, camera)) for camera in raw}
        self._feeds = {feed.path: feed for feed in (*self._drawn.values(), *self._raw.values())}
        self._server: RtspServer | None = None
        self._places: list[str] = []
        if rtsp.listen is not None:
            self._server = RtspServer(*host_and_port(rtsp.listen), self._feeds, credentials=_credentials(rtsp))
            self._places.append(f"at rtsp://{rtsp.listen}/CAMERA")
        pushes: dict[str, tuple[Feed, str]] = {}
        if rtsp.push is not None:
            pushes = {camera: (feed, rtsp.push_url(camera)) for camera, feed in self._drawn.items()}
            self._places.append(f"pushed to {redact(rtsp.push_url('CAMERA')).partition('?')[0]}")
        self._pusher = Pusher(pushes)

    def __str__(self) -> str:
        """Where they are to be seen."""
        return ", ".join(self._places)

    def drawn(self, camera: str) -> Publish:
        """What takes a camera's annotated pictures, on any one thread at a time."""
        return self._drawn[camera].publish

    def raw(self, camera: str) -> Publish | None:
        """What takes a camera's own packets, on its reader's thread; None where they are not served."""
        feed = self._raw.get(camera)
        return None if feed is None else feed.publish

    async def start(self, show: Show) -> None:
        """Listen, where that is asked for; ``show`` is told what is watched.

        Raises:
            FatalError: the address cannot be listened on.
        """
        self._show = show
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
        """For the report: who was refused, what was sent and what was pushed."""
        return {
            "refused": self._server.stats().refused if self._server is not None else {},
            "feeds": {path: dataclasses.asdict(feed.stats()) for path, feed in self._feeds.items()},
            "push": {camera: dataclasses.asdict(push) for camera, push in self._pusher.stats().items()},
        }

    def _watch(self, camera: str, watched: bool) -> None:
        assert self._show is not None, "nothing can be watched before the start"
        self._show.watch(camera, watched)

    def _refresh(self, camera: str) -> None:
        assert self._show is not None, "nothing can be watched before the start"
        self._show.refresh(camera)

    def _tap(self, camera: str, watched: bool) -> None:
        assert self._show is not None, "nothing can be watched before the start"
        self._show.tap(camera, watched)


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
