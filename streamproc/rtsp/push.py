"""Pushes streams to an existing RTSP server, such as a media server that many people watch: for ever, and by itself."""

from __future__ import annotations

import asyncio
import logging
import random as _random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamproc.backoff import RetryDelays
from streamproc.rtsp.client import Client, Destination, Dialer, PushError
from streamproc.rtsp.feed import Feed
from streamproc.rtsp.publisher import Patience, Publisher, PushState
from streamproc.rtsp.viewer import Sent
from streamproc.telemetry import RateLimitedLog

__all__ = ["PushStats", "Pusher", "probe_server"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushStats:
    """One camera's push: its state now, and since the start how often it began, how often it failed by reason, and
    the pictures sent, and skipped because the server was slow."""

    state: str
    began: int
    failures: dict[str, int]
    sent: int
    skipped: int


class Pusher:
    """Publishes feeds at RTSP servers, each by a connection and a task of its own, and tries again when one fails.

    A server that is away, hangs or refuses costs what its attempts cost, and disturbs nobody: nothing here blocks.

    Args:
        pushes: each camera's feed, and the checked url where it goes; the feeds are attached before :meth:`run`.
        patience: how long servers are waited for.
        random: gives numbers in 0..1, for the pauses between attempts.
    """

    def __init__(
        self,
        pushes: Mapping[str, tuple[Feed, str]],
        *,
        patience: Patience | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        patience = patience or Patience()
        self._dialer = Dialer(answer_s=patience.answer_s)
        warnings = RateLimitedLog(_log, interval_s=10.0)
        self._pushes = [
            _Push(camera, feed, Destination.of(url), self._dialer, patience, RetryDelays(random=random), warnings)
            for camera, (feed, url) in pushes.items()
        ]

    async def run(self) -> None:
        """Push until cancelled; then every server is told, within a second."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for push in self._pushes:
                    tasks.create_task(push.run(), name=f"push {push.camera}")
        finally:
            self._dialer.close()

    def stats(self) -> dict[str, PushStats]:
        """A snapshot of the counts, by camera."""
        return {push.camera: push.stats() for push in self._pushes}


class _Push:
    """One camera's push."""

    def __init__(
        self,
        camera: str,
        feed: Feed,
        destination: Destination,
        dialer: Dialer,
        patience: Patience,
        retry: RetryDelays,
        warnings: RateLimitedLog,
    ) -> None:
        self.camera = camera
        self._destination = destination
        self._retry = retry
        self._warnings = warnings
        self._state = PushState.CONNECTING
        self._pushing_since_s: float | None = None
        self._began = 0
        self._failures: Counter[str] = Counter()
        self._sent = Sent()
        self._publisher = Publisher(
            feed, destination, dialer=dialer, sent=self._sent, on_state=self._turned, patience=patience
        )

    async def run(self) -> None:
        while True:
            try:
                await self._publisher.publish()
            except PushError as failure:
                delay_s = self._delay_s(failure.reason)
                self._failures[failure.reason] += 1
                self._turned(PushState.RETRYING)
                self._warnings.warning(
                    failure.reason,
                    "camera %s: push to %s failed, next attempt in %.1f s: %s",
                    self.camera,
                    self._destination,
                    delay_s,
                    failure,
                )
            await asyncio.sleep(delay_s)

    def stats(self) -> PushStats:
        return PushStats(
            state=self._state.value,
            began=self._began,
            failures=dict(self._failures),
            sent=self._sent.pictures,
            skipped=self._sent.skipped,
        )

    def _turned(self, state: PushState) -> None:
        self._state = state
        if state is PushState.PUSHING:
            self._began += 1
            self._pushing_since_s = asyncio.get_running_loop().time()
            _log.info("camera %s: pushed to %s", self.camera, self._destination)

    def _delay_s(self, reason: str) -> float:
        since_s, self._pushing_since_s = self._pushing_since_s, None
        return self._retry.delay_s(reason, 0.0 if since_s is None else asyncio.get_running_loop().time() - since_s)


async def probe_server(url: str) -> str:
    """Ask the server of a checked url what it can do, and publish nothing; what is to be said of it.

    Raises:
        PushError: it cannot be reached, or takes no streams.
    """
    destination = Destination.of(url)
    dialer = Dialer()
    try:
        async with dialer.connected(destination) as client:
            return await _capable(client, destination)
    except PushError as error:
        raise PushError(f"{destination}: {error}", reason=error.reason) from error
    finally:
        dialer.close()


async def _capable(client: Client, destination: Destination) -> str:
    public = (await client.ask("OPTIONS")).header("public")
    methods = {method.strip().upper() for method in public.split(",")}
    if public and not {"ANNOUNCE", "RECORD"} <= methods:
        raise PushError("it takes no streams. Name a server that does in rtsp.push", reason="rejected")
    unproven = "; user name and password are tried when a stream is pushed" if destination.credentials else ""
    return f"{destination} answers{unproven}"
