"""``streamproc simulate``: cameras to try things out with."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from streamproc.cli.terminal import EXIT_BAD_CONFIG, errors, fail, out, set_up_logging

__all__ = ["simulate"]


def simulate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="H.264 or H.265 video files.")],
    host: Annotated[str, typer.Option(help="Address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one.", min=0, max=65535)] = 8654,
    username: Annotated[str | None, typer.Option(help="What viewers must know; needs --password.")] = None,
    password: Annotated[str | None, typer.Option(help="Likewise.", envvar="STREAMPROC_SIMULATE_PASSWORD")] = None,
) -> None:
    """Serve video files as RTSP cameras, each at rtsp://HOST:PORT/NAME, until SIGINT or SIGTERM."""
    set_up_logging()
    names = [path.stem for path in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        fail(f"two files are called {twice[0]}: a camera has its file's name. Rename one", EXIT_BAD_CONFIG)
    if (username is None) != (password is None):
        fail("--username and --password go together", EXIT_BAD_CONFIG)
    login = (username, password) if username is not None and password is not None else None
    with errors():
        asyncio.run(_serve(dict(zip(names, files, strict=True)), host, port, login))


async def _serve(files: dict[str, Path], host: str, port: int, login: tuple[str, str] | None) -> None:
    from streamproc.rtsp import Credentials
    from streamproc.simulate import simulated_cameras

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    credentials = Credentials(username=login[0], password=login[1]) if login else None
    async with simulated_cameras(files, host, port, credentials=credentials) as real_port:
        for name in files:
            shown = f"[{host}]" if ":" in host else host
            out.print(f"rtsp://{shown}:{real_port}/{name}", markup=False, highlight=False, soft_wrap=True)
        await stop.wait()
