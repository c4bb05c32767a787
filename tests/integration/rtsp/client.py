"""A bare RTSP client for tests: says exactly what it is told to, and reads what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

__all__ = ["Answer", "Client", "connected"]

PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection. ``packets`` are the interleaved packets that came before an answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, base: str) -> None:
        self.reader = reader
        self.writer = writer
        self.base = base
        self.session = ""
        self.packets: list[tuple[int, bytes]] = []
        self._cseq = 0

    async def ask(self, method: str, path: str = "gate", **headers: str) -> Answer:
        """Send a request and return its answer."""
        self._cseq += 1
        if self.session:
            headers.setdefault("Session", self.session)
        lines = [f"{method} {self.base}/{path} RTSP/1.0", f"CSeq: {self._cseq}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = await self.answer()
        assert answer.headers["cseq"] == str(self._cseq)
        return answer

    async def answer(self) -> Answer:
        """The next answer."""
        async with asyncio.timeout(PATIENCE_S):
            while (first := await self.reader.readexactly(1)) == b"$":
                await self._packet()
            head = (first + await self.reader.readuntil(b"\r\n\r\n")).decode()
            start, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Answer(status=int(start.split()[1]), headers=headers, body=body)

    async def packet(self) -> tuple[int, bytes]:
        """The next interleaved packet: its channel and what it is."""
        async with asyncio.timeout(PATIENCE_S):
            assert await self.reader.readexactly(1) == b"$"
            return await self._packet()

    async def _packet(self) -> tuple[int, bytes]:
        channel, high, low = await self.reader.readexactly(3)
        packet = channel, await self.reader.readexactly(high << 8 | low)
        self.packets.append(packet)
        return packet

    async def play(self, path: str = "gate", transport: str = "RTP/AVP/TCP;unicast;interleaved=0-1") -> None:
        """Set up and play."""
        answer = await self.ask("SETUP", f"{path}/trackID=0", Transport=transport)
        assert answer.status == 200, answer
        self.session = answer.headers["session"].partition(";")[0]
        assert (await self.ask("PLAY", path)).status == 200

    async def closed(self) -> bool:
        """Wait until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self.reader.read(65_536):
                    pass
            except ConnectionError:
                return True
        return True


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """A client of the server on this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer, f"rtsp://127.0.0.1:{port}")
    finally:
        writer.transport.abort()
