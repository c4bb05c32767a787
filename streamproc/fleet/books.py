"""Memory for the cameras' books that a run's processes share."""

from __future__ import annotations

import mmap
import os
from types import TracebackType

from streamproc.ledger import CameraLedger

__all__ = ["SharedBooks"]


class SharedBooks:
    """Memory without a name, all zero, for the books of so many cameras: it goes with the last process that has it.

    Args:
        cameras: how many.
        handle: the file descriptor of memory that another process has made; None makes it.

    Leaving the context closes the handle; ``memory`` stays.
    """

    def __init__(self, cameras: int, handle: int | None = None) -> None:
        size = cameras * 8 * CameraLedger.CELLS
        if handle is None:
            handle = os.memfd_create("streamproc-books")
            os.ftruncate(handle, size)
        self.handle = handle
        self.memory = memoryview(mmap.mmap(handle, size))

    def __enter__(self) -> SharedBooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.handle)
