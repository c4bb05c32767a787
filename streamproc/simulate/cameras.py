"""Files served as the RTSP cameras that they were recorded from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

from streamproc.rtsp import Credentials, Feed, Limits, RtspServer
from streamproc.simulate.condition import Condition
from streamproc.simulate.faults import Change, Fault, FaultKind, changes
from streamproc.simulate.tampering import Tampering
from streamproc.sinks.live_encoder import require_software_codec
from streamproc.sources.player import FilePlayer

__all__ = ["SimulatedCameras", "simulated_cameras"]

_LIMITS = Limits(idle_s=60.0)
"""It is the client's patience that a camera which hangs is to test."""

_CUTTING = frozenset({FaultKind.DROP, FaultKind.PASSWORD, FaultKind.REBOOT})
_ENDING_WITH_A_KEYFRAME = frozenset({FaultKind.STALL, FaultKind.CORRUPT, FaultKind.RESIZE, FaultKind.REBOOT})


class SimulatedCameras:
    """Cameras that play; made by :func:`simulated_cameras`. Used on the event loop.

    Every file plays in real time, over and over, watched or not. A camera that somebody begins to watch starts over
    with its first picture, so that nobody waits for a keyframe; so does one that has recovered.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        host: str,
        port: int,
        *,
        credentials: Credentials | None,
        faults: Iterable[Fault],
        seed: int,
    ) -> None:
        self._changes = changes(faults)
        self._conditions = {name: Condition(Random(f"{seed} {name}")) for name in files}
        self._feeds = {
            name: Feed(name, partial(self._watched, name), trouble=condition)
            for name, condition in self._conditions.items()
        }
        self._players = {
            name: FilePlayer(name, path, self._tampering(name, Random(f"{seed} {name} pictures")).take)
            for name, path in files.items()
        }
        self._server = RtspServer(host, port, self._feeds, credentials=credentials, limits=_LIMITS)

    @property
    def port(self) -> int:
        """The port that they are served at."""
        return self._server.port

    async def fail(self, tell: Callable[[float, Change], None]) -> None:
        """Let the faults come and go, counting from now; ``tell`` is called at every change, with the seconds since."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for change in self._changes:
            await asyncio.sleep(began_s + change.at_s - loop.time())
            self._apply(change)
            tell(loop.time() - began_s, change)

    async def start(self) -> None:
        """Serve and play. Raises as :func:`simulated_cameras` says."""
        if any(change.kind is FaultKind.RESIZE for change in self._changes):
            require_software_codec()
        await self._server.start()
        for player in self._players.values():
            player.start()

    async def stop(self) -> None:
        """End both; also after a :meth:`start` that failed."""
        await asyncio.to_thread(self._stop_players)
        await self._server.close()

    def _apply(self, change: Change) -> None:
        self._conditions[change.camera].change(change)
        begins = change.how != "ends"
        if begins and change.kind in _CUTTING:
            self._server.cut(change.camera)
        if change.kind is FaultKind.RESIZE or (not begins and change.kind in _ENDING_WITH_A_KEYFRAME):
            self._players[change.camera].begin_again()

    def _watched(self, name: str, begins: bool) -> None:
        if begins:
            self._players[name].begin_again()

    def _tampering(self, name: str, random: Random) -> Tampering:
        return Tampering(self._conditions[name], random, self._feeds[name].publish)

    def _stop_players(self) -> None:
        for player in self._players.values():
            player.stop()


@asynccontextmanager
async def simulated_cameras(
    files: Mapping[str, Path],
    host: str,
    port: int,
    *,
    credentials: Credentials | None = None,
    faults: Iterable[Fault] = (),
    seed: int = 0,
) -> AsyncIterator[SimulatedCameras]:
    """Cameras that play while the block lasts, each at ``rtsp://host:port/NAME``.

    Args:
        files: H.264 or H.265 videos by the cameras' names.
        port: 0 takes a free one.
        credentials: what viewers must know.
        faults: what goes wrong while :meth:`SimulatedCameras.fail` runs.
        seed: of what they leave to chance.

    Raises:
        FatalError: the address cannot be listened on.
        SourceError: a file cannot be read, or is neither H.264 nor H.265.
        DependencyError: pictures are to be resized, and there is no encoder for that.
    """
    cameras = SimulatedCameras(files, host, port, credentials=credentials, faults=faults, seed=seed)
    try:
        await cameras.start()
        yield cameras
    finally:
        await cameras.stop()
