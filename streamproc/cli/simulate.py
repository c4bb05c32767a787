"""``streamproc simulate``: cameras to try things out with, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.terminal import EXIT_BAD_CONFIG, errors, fail, out, set_up_logging

if TYPE_CHECKING:
    from streamproc.simulate import Change, Fault

__all__ = ["simulate"]

_FAULT_HELP = (
    "[CAMERA/]KIND[:SECONDS]\\[@AT], as often as you like: what goes wrong, for how long (without: for good) and how "
    "many seconds after the start (without: from the start), with one camera or all. KIND: refuse (new viewers are cut "
    "off), drop (viewers are cut off once), stall (no packets), hang (no answers), password (the right one is denied), "
    "corrupt (bytes are overwritten), loss (UDP packets get lost), jump (timestamps jump by hours), resize (half the "
    "size, as H.264), reboot (away for 5 s, then the file starts over). For example: gate/stall:30@10s."
)


def simulate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="H.264 or H.265 video files.")],
    host: Annotated[str, typer.Option(help="Address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one.", min=0, max=65535)] = 8654,
    username: Annotated[str | None, typer.Option(help="What viewers must know; needs --password.")] = None,
    password: Annotated[str | None, typer.Option(help="Likewise.", envvar="STREAMPROC_SIMULATE_PASSWORD")] = None,
    fault: Annotated[list[str] | None, typer.Option(metavar="FAULT", help=_FAULT_HELP)] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats what faults leave to chance; random without.")] = None,
) -> None:
    """Serve video files as RTSP cameras, each at rtsp://HOST:PORT/NAME, until SIGINT or SIGTERM.

    Every beginning and end of a fault is printed: seconds since the start, camera, fault, and which of the two.
    """
    from streamproc.simulate import parse_faults

    set_up_logging()
    names = [path.stem for path in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        fail(f"two files are called {twice[0]}: a camera has its file's name. Rename one", EXIT_BAD_CONFIG)
    if (username is None) != (password is None):
        fail("--username and --password go together", EXIT_BAD_CONFIG)
    login = (username, password) if username is not None and password is not None else None
    chosen = secrets.randbits(32) if seed is None else seed
    with errors():
        faults = parse_faults(fault or (), names)
        asyncio.run(_serve(dict(zip(names, files, strict=True)), host, port, login, faults, chosen))


async def _serve(
    files: dict[str, Path], host: str, port: int, login: tuple[str, str] | None, faults: list[Fault], seed: int
) -> None:
    from streamproc.rtsp import Credentials
    from streamproc.simulate import simulated_cameras

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    credentials = Credentials(username=login[0], password=login[1]) if login else None
    async with (
        simulated_cameras(files, host, port, credentials=credentials, faults=faults, seed=seed) as cameras,
        asyncio.TaskGroup() as tasks,
    ):
        for name in files:
            shown = f"[{host}]" if ":" in host else host
            _say(f"rtsp://{shown}:{cameras.port}/{name}")
        failing = tasks.create_task(cameras.fail(_tell), name="faults")
        await stop.wait()
        failing.cancel()


def _tell(elapsed_s: float, change: Change) -> None:
    _say(f"{elapsed_s:.3f} {change}")


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.file.flush()
