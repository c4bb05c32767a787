"""The MQTT sink: results and states for subscribers, through a broker that may come and go."""

from __future__ import annotations

import asyncio
import logging
import os
import random as _random
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from streamproc import __version__
from streamproc.backoff import Backoff
from streamproc.channel import Channel, LoopSignal
from streamproc.errors import SinkError
from streamproc.ledger import DropReason
from streamproc.messages import encode_camera_status, encode_detections, encode_site_status
from streamproc.sinks.base import Delivery, SinkCounts
from streamproc.sinks.endpoint import Endpoint
from streamproc.sinks.mqtt import Connection, LoginError, connect
from streamproc.telemetry import RateLimitedLog, StatusBoard
from streamproc.types import CameraState, CameraStatus

__all__ = ["MqttSink"]

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
"""So long after an outage began, frames that must not be lost wait for its end: a broker's restart."""
_REFRESH_S = 10.0
"""Between looks at whether a camera's FPS moved."""
_DRAIN_S = 1.0
"""After the inbox closed, for the last deliveries."""
_FAREWELL_S = 1.8
"""After the inbox closed, for everything: ending takes less than 2 s in all."""
_BURST = 64
"""Messages written in one go: the loop wakes once for all of them (17 us of CPU a message, against 67 us singly)."""
_HEALTHY_S = 60.0
"""A connection that held so long resets the back-off."""


class MqttSink:
    """Publishes detections at QoS 0, camera and site states retained at QoS 1, and outlives the broker.

    Topics: ``<prefix>/<site>/status`` (whose will is ``offline``), ``<prefix>/<site>/<camera>/status`` and
    ``<prefix>/<site>/<camera>/detections``. Camera states go out on every change, all of them after each
    connect, and at most every 10 s when a camera's FPS moved.

    A live frame that finds no connection is lost at once; one that never ages waits up to 5 s from the beginning of
    the outage (and holds up what is behind it), so that neither a broker's restart nor the first connect costs any.
    When the inbox closes, what is inside gets 1 s more, then is answered ``unpublished``; the cameras not offline
    yet become offline with reason ``shutdown``.

    Args:
        board: the cameras and their states.
        fps_of: a camera's present frames per second.
        states: publish states, and have the will; False where another client of the same site does.
        client_id: must differ between all clients of the broker; default ``streamproc-<site>-<host>-<process>``.
        clock: monotonic seconds. utc_ns: UTC since the epoch. random: numbers in 0..1 for the back-off.
    """

    name = "mqtt"
    essential = True

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        site: str,
        board: StatusBoard,
        fps_of: Callable[[str], float] = lambda camera: 0.0,
        states: bool = True,
        prefix: str = "streamproc",
        keepalive_s: int = 30,
        client_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        utc_ns: Callable[[], int] = time.time_ns,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._endpoint = endpoint
        self._root = f"{prefix}/{site}"
        self._board = board
        self._fps_of = fps_of
        self._states = states
        self._site = site
        self._keepalive_s = keepalive_s
        self._client_id = client_id or f"streamproc-{site}-{socket.gethostname()}-{os.getpid()}"
        self._clock = clock
        self._utc_ns = utc_ns
        self._random = random
        self._warnings = RateLimitedLog(_log, interval_s=30.0, clock=clock)
        self._connection: Connection | None = None
        self._outage_began_s = clock()
        self._arrival = asyncio.Event()
        self._closing = False
        self.capacity = max(16, 2 * len(board.statuses()))
        self.counts = SinkCounts()

    async def start(self) -> None:
        """Nothing to prepare: the connection belongs to :meth:`run`."""

    async def run(self, inbox: Channel[Delivery]) -> None:
        """Publish until the inbox is closed and empty, then say goodbye; takes less than 2 s after the closing."""
        self._outage_began_s = self._clock()
        changes = LoopSignal()
        self._board.subscribe(changes)
        try:
            async with asyncio.TaskGroup() as group:
                connecting = group.create_task(self._keep_connected(changes), name="mqtt connection")
                forwarding = group.create_task(self._forward(inbox), name="mqtt deliveries")
                # Not the forwarding's end: it waits for a broker that hangs.
                await inbox.wait_closed()
                closed_s = self._clock()
                await asyncio.wait({forwarding}, timeout=_DRAIN_S)
                forwarding.cancel()
                self._closing = True
                changes.ring()
                if self._connection is not None:
                    await asyncio.wait({connecting}, timeout=closed_s + _FAREWELL_S - self._clock())
                    if not connecting.done():
                        _log.warning("%s does not answer: leaving it without a farewell", self._endpoint)
                connecting.cancel()
        finally:
            self._lose(deque(inbox.drain()), DropReason.UNPUBLISHED)

    async def _keep_connected(self, changes: LoopSignal) -> None:
        """Connect for ever; every session shows the states until it is lost, the last one until the farewell."""
        soon = Backoff(0.5, 10.0, self._random)
        later = Backoff(10.0, 60.0, self._random)
        while True:
            began_s = self._clock()
            try:
                await self._session(changes)
            except SinkError as exc:
                self._warnings.warning(str(exc), "%s", exc)
                backoff = later if isinstance(exc, LoginError) else soon
            if self._closing:
                return
            if self._clock() - began_s > _HEALTHY_S:
                soon.reset()
            await asyncio.sleep(backoff.next_s())

    async def _session(self, changes: LoopSignal) -> None:
        will = (f"{self._root}/status", self._site_status("offline")) if self._states else None
        opened = connect(self._endpoint, client_id=self._client_id, will=will, keepalive_s=self._keepalive_s)
        async with opened as connection:
            _log.info("connected to %s", self._endpoint)
            showing = self._show_states(connection, changes) if self._states else self._until_closing(changes)
            states = asyncio.create_task(showing, name="mqtt states")
            loss = asyncio.create_task(connection.until_lost(), name="mqtt loss")
            self._connection = connection
            self._arrival.set()
            try:
                await asyncio.wait({states, loss}, return_when=asyncio.FIRST_COMPLETED)
                (states if states.done() else loss).result()
            finally:
                if self._connection is not None:
                    self._disconnected()
                states.cancel()
                loss.cancel()
                await asyncio.gather(states, loss, return_exceptions=True)

    async def _until_closing(self, changes: LoopSignal) -> None:
        while not self._closing:
            await changes.wait()

    async def _show_states(self, connection: Connection, changes: LoopSignal) -> None:
        """Keep the retained states right until closing, then say goodbye."""
        await connection.retain(f"{self._root}/status", self._site_status("online"))
        shown: dict[str, tuple[CameraStatus, float]] = {}
        refreshed_s = self._clock()
        while not self._closing:
            refresh = self._clock() - refreshed_s >= _REFRESH_S
            if refresh:
                refreshed_s = self._clock()
            for camera, status in self._board.statuses().items():
                known, known_fps = shown.get(camera, (None, 0.0))
                fps = round(self._fps_of(camera), 1)
                if status != known or (refresh and fps != known_fps):
                    await self._show(connection, status, fps)
                    shown[camera] = (status, fps)
            await changes.wait(refreshed_s + _REFRESH_S - self._clock())
        for status in self._board.statuses().values():
            if status.state is not CameraState.OFFLINE:
                status = replace(status, state=CameraState.OFFLINE, reason="shutdown", since_utc_ns=self._utc_ns())
            await self._show(connection, status, 0.0)
        await connection.retain(f"{self._root}/status", self._site_status("offline"))

    def _site_status(self, state: Literal["online", "offline"]) -> bytes:
        return encode_site_status(state, site=self._site, version=__version__)

    async def _show(self, connection: Connection, status: CameraStatus, fps: float) -> None:
        await connection.retain(
            f"{self._root}/{status.camera}/status", encode_camera_status(status, site=self._site, fps=fps)
        )

    async def _forward(self, inbox: Channel[Delivery]) -> None:
        async for deliveries in inbox.bursts(_BURST):
            burst = deque(deliveries)
            try:
                while burst:
                    await self._deliver(burst)
            finally:
                self._lose(burst, DropReason.UNPUBLISHED)

    async def _deliver(self, burst: deque[Delivery]) -> None:
        """Answer and remove deliveries from the front of ``burst``, as many as one attempt can."""
        connection = self._connection
        if connection is None:
            self._lose(burst, DropReason.SINK, lambda delivery: delivery.max_age_ms is not None)
            if burst and not await self._connection_returns():
                self._lose(burst, DropReason.SINK)
            return
        self._lose(burst, DropReason.LATE, Delivery.too_old)
        if not burst:
            return
        sent = await connection.send([self._message(delivery) for delivery in burst])
        for _ in range(sent):
            burst.popleft().taken()
        self.counts.taken += sent
        if burst and self._connection is connection:
            self._disconnected()

    def _message(self, delivery: Delivery) -> tuple[str, bytes]:
        topic = f"{self._root}/{delivery.result.frame.camera}/detections"
        with delivery.spending():
            return topic, encode_detections(delivery.result, site=self._site, age_ms=delivery.age_ms())

    async def _connection_returns(self) -> bool:
        patience_s = self._outage_began_s + _PATIENCE_S - self._clock()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._arrival.wait()
        return self._connection is not None

    def _disconnected(self) -> None:
        self._connection = None
        self._arrival.clear()
        self._outage_began_s = self._clock()

    def _lose(
        self,
        deliveries: deque[Delivery],
        reason: DropReason,
        which: Callable[[Delivery], bool] = lambda _: True,
    ) -> None:
        """Answer and remove those of ``deliveries`` that ``which`` names."""
        for delivery in [delivery for delivery in deliveries if which(delivery)]:
            deliveries.remove(delivery)
            delivery.lost(reason)
            self.counts.lost[reason.label] += 1
