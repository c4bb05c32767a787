"""What `streamproc simulate` does: serve files as the RTSP cameras that they were recorded from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from streamproc.rtsp import Credentials, Feed, RtspServer
from streamproc.sources.player import FilePlayer

__all__ = ["simulated_cameras"]


@asynccontextmanager
async def simulated_cameras(
    files: Mapping[str, Path], host: str, port: int, *, credentials: Credentials | None = None
) -> AsyncIterator[int]:
    """Cameras that play while the block lasts, each at ``rtsp://host:port/NAME``; gives the port.

    Every file plays in real time, over and over, watched or not. A camera that somebody begins to watch starts over
    with its first picture, so that nobody waits for a keyframe.

    Raises:
        FatalError: the address cannot be listened on.
        SourceError: a file cannot be read, or is neither H.264 nor H.265.
    """
    players: dict[str, FilePlayer] = {}

    def watched(name: str, begins: bool) -> None:
        if begins:
            players[name].begin_again()

    feeds = {name: Feed(name, partial(watched, name)) for name in files}
    server = RtspServer(host, port, feeds, credentials=credentials)
    await server.start()
    try:
        for name, path in files.items():
            players[name] = FilePlayer(name, path, feeds[name].publish)
            players[name].start()
        yield server.port
    finally:
        await asyncio.to_thread(_stop, players)
        await server.close()


def _stop(players: Mapping[str, FilePlayer]) -> None:
    for player in players.values():
        player.stop()
