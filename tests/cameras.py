"""Cameras for tests: a real RTSP server that plays a file."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.brokers import Certificates

__all__ = ["behind_tls", "serve", "start_server"]

SERVER = Path(__file__).with_name("rtsp_camera.py")
PACKAGES = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good python3-gi"


@contextmanager
def serve(path: Path, *login: str, options: Sequence[str] = ()) -> Iterator[int]:
    """An RTSP server that plays ``path`` as /cam; its port. ``options`` as of ``rtsp_camera.py``."""
    with start_server(path, *login, options=options) as (_, port):
        yield port


@contextmanager
def start_server(path: Path, *login: str, options: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The server's process, killed in the end, and its port."""
    command = ["/usr/bin/python3", str(SERVER), str(path), *options, *(["--login", *login] if login else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            if not port:
                pytest.fail(f"the RTSP server of this test did not start; it needs the system packages {PACKAGES}")
            yield process, int(port)
        finally:
            process.kill()


@asynccontextmanager
async def behind_tls(port: int, certificates: Certificates) -> AsyncIterator[int]:
    """A port of this machine where what is spoken at ``port`` is spoken through TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
        target.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
