"""Threads that a sink owns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

__all__ = ["start_daemon"]


def start_daemon(name: str, work: Callable[[], None], *, at_end: Callable[[], object]) -> Future[None]:
    """Run ``work`` on a thread of its own, and ``at_end`` when it has ended, however that was.

    What it returns is done after that, with the exception that ended ``work`` if one did: a bug, for the event loop to
    raise. A daemon: one that hangs, in a driver or on a dead disk, must not keep the process alive.
    """
    done: Future[None] = Future()

    def main() -> None:
        try:
            try:
                work()
            finally:
                at_end()
        except BaseException as exc:  # noqa: BLE001 - raised by whoever asks
            done.set_exception(exc)
        else:
            done.set_result(None)

    threading.Thread(target=main, name=name, daemon=True).start()
    return done
