"""Whole Python values from one process of a run to another, over a socket pair.

Both ends are the same program of the same user, and nobody else has the socket: values are pickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import struct

__all__ = ["Link"]

_LENGTH = struct.Struct("<I")


class Link:
    """One end. Used on its event loop only.

    Raises (on reading):
        EOFError: the other end is gone.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Link:
        """A link over one end of a socket pair, which it owns from now on."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end))

    @property
    def waiting_bytes(self) -> int:
        """What the other end has not taken in yet, beyond what the system holds."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, value: object) -> None:
        """Send a value; never waits, and does nothing where the other end is gone."""
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> object:
        """The next value. Raises EOFError: the other end is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise EOFError from exc

    def abort(self) -> None:
        """Close it at once: the other end may never take in what waits."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Send what waits, then close."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
