"""A bare media server for tests: takes one publisher at a time, and does to it exactly what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Asked", "MediaServer", "hang", "media_server", "say"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request."""

    method: str
    uri: str
    headers: Mapping[str, str]
    body: bytes


Deed: TypeAlias = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def reply(asked: Asked, *lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"RTSP/1.0 {status}", f"CSeq: {asked.headers['cseq']}", *lines, "", ""]).encode()


def say(*lines: str, status: str = "200 OK", raw: bytes = b"") -> Deed:
    """Answer with this status and these headers, or with these bytes."""

    async def deed(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(raw or reply(asked, *lines, status=status))
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    return deed


async def hang(_: Asked, __: asyncio.StreamWriter) -> None:
    """Neither answer nor read any further."""
    await asyncio.get_running_loop().create_future()


SETUP = say("Session: 4711;timeout=60", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record")


@dataclass(slots=True)
class MediaServer:
    """What was asked, and what came between; ``deeds`` are what it does, by method, where it is not simply polite."""

    url: str = ""
    deeds: dict[str, Deed] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    packets: list[tuple[int, bytes]] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def methods(self) -> list[str]:
        return [asked.method for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                await self._next(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled: the test is over
        finally:
            writer.transport.abort()
            self.tasks.discard(task)

    async def _next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"$":
            channel, high, low = await reader.readexactly(3)
            self.packets.append((channel, await reader.readexactly(high << 8 | low)))
            return
        start, *lines = (first + await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        method, uri, _ = start.split()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(method=method, uri=uri, headers=headers, body=body)
        self.asked.append(asked)
        await self.deeds.get(method, SETUP if method == "SETUP" else say())(asked, writer)


@asynccontextmanager
async def media_server(tls: ssl.SSLContext | None = None, **deeds: Deed) -> AsyncIterator[MediaServer]:
    """A server on this machine, its ``url`` with ``{camera}`` in the path."""
    media = MediaServer(deeds=deeds)
    server = await asyncio.start_server(media.serve, "127.0.0.1", 0, ssl=tls)
    media.url = f"rtsp{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/live/{{camera}}"
    try:
        yield media
    finally:
        server.close()
        left = tuple(media.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left)
