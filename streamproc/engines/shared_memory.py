"""Memory shared with a server on the same machine: a POSIX segment that this process owns.

Not ``multiprocessing.shared_memory``: its resource tracker also unlinks segments that a process merely attached to.
Here only the creator unlinks, and what a killed creator left behind is found by a lock instead of a guess.
"""

from __future__ import annotations

import errno
import fcntl
import math
import mmap
import os
import re
import secrets
import stat
import weakref
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamproc.errors import EngineError
from streamproc.types import UInt8Array

__all__ = ["Layout", "RegionError", "SystemRegion", "lay_out", "orphans", "page_aligned", "sweep", "typed_view"]

_FOLDER = Path("/dev/shm")  # where shm_open(3) of glibc and musl looks for a segment
_NAME = re.compile(r"streamproc-\d+-[0-9a-f]{16}")
_MIB = 1 << 20


class RegionError(EngineError):
    """This kind of shared memory cannot be had here; another transport may still work."""


class SystemRegion:
    """One POSIX shared memory segment, created, owned and in the end unlinked by this process. Made by :meth:`create`.

    The mapping holds an exclusive lock (flock) on the segment for as long as it lives, which tells everybody who can
    see the segment, in whatever pid namespace, that its creator does. A forked child shares the mapping and with it
    the lock: the segment counts as in use until such a child has ended or has executed another program.
    """

    def __init__(self, name: str, memory: UInt8Array) -> None:
        self.name = name
        self.key = f"/{name}"
        self.size = memory.size
        self._memory: UInt8Array | None = memory
        self._unlink = weakref.finalize(self, _unlink_own, _FOLDER / name, os.getpid())  # also at interpreter exit

    @classmethod
    def create(cls, size: int, *, mode: int = 0o600) -> SystemRegion:
        """Make a segment of at least ``size`` bytes (whole pages), zeroed, its memory already set aside.

        ``mode`` are its exact permissions, whatever the umask. The default keeps camera pictures from other users; a
        server running as root (Triton's containers by default) or as the same user can open it. A server under
        another user id needs 0o660 and a group in common. Triton opens for reading and writing.

        Raises:
            RegionError: /dev/shm is missing, not writable or too small; the message has the sizes and the remedy.
            ValueError: ``size`` is not positive.
        """
        if size <= 0:
            raise ValueError(f"size of a shared memory region: expected more than 0 bytes, got {size}")
        size = page_aligned(size)
        try:
            return cls._create(size, mode)
        except OSError as exc:
            raise _cannot_have(size, exc) from exc

    @classmethod
    def _create(cls, size: int, mode: int) -> SystemRegion:
        with ExitStack() as undo:
            name, file = _create_locked()
            try:
                undo.callback((_FOLDER / name).unlink)
                os.fchmod(file, mode)
                # Without it a full /dev/shm would show as SIGBUS at the first write to a page that cannot be had.
                os.posix_fallocate(file, 0, size)
                # The map keeps a duplicate of the descriptor, and with it the lock.
                region = cls(name, np.frombuffer(mmap.mmap(file, size), dtype=np.uint8))
            finally:
                os.close(file)
            undo.pop_all()
            return region

    def array(self, offset: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """A writable view, C-contiguous, that starts ``offset`` bytes into the region.

        It stays valid memory after :meth:`close`, though then nobody else sees it.

        Raises:
            ValueError: it would reach beyond the region, or the region is closed.
        """
        return typed_view(self._memory, offset, shape, dtype)

    def close(self) -> None:
        """Unlink the segment (in its creator only) and let go of the mapping, which ends with its last view.

        A server that has registered the segment keeps its own mapping until it is told to unregister. May be called
        again.
        """
        self._unlink()
        # Never mmap.close(): a view that somebody still holds would then point to nowhere.
        self._memory = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where every slot's parts lie in a region of ``size`` bytes: ``offsets[slot][part]``, bytes, page-aligned."""

    size: int
    offsets: tuple[tuple[int, ...], ...]


def lay_out(parts: Sequence[int], slots: int) -> Layout:
    """Lay ``slots`` slots, each of parts of these sizes in bytes, one behind the other, every part on pages of its own.

    >>> lay_out([1 << 20, 1 << 16], slots=2)
    Layout(size=2228224, offsets=((0, 1048576), (1114112, 2162688)))
    """
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + page_aligned(part))
    *starts, stride = starts
    offsets = tuple(tuple(slot * stride + start for start in starts) for slot in range(slots))
    return Layout(size=slots * stride, offsets=offsets)


def page_aligned(nbytes: int) -> int:
    """``nbytes`` rounded up to whole pages of this machine (4 KiB on x86-64, up to 64 KiB on ARM)."""
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def sweep() -> list[str]:
    """Unlink the segments whose creator is dead, and return their names, which a server may still have registered.

    Segments of other users, of other programs, and of living processes (other pid namespaces included) stay.
    """
    try:
        names = [name for name in os.listdir(_FOLDER) if _NAME.fullmatch(name)]
    except OSError:
        return []
    return [name for name in sorted(names) if _swept(_FOLDER / name)]


def orphans(names: Iterable[str]) -> list[str]:
    """Those among a server's regions that were ours and whose segment is gone: their creator was killed, and swept.

    To be asked only where the server maps segments of this very folder.
    """
    return [name for name in names if _NAME.fullmatch(name) and not (_FOLDER / name).exists()]


def typed_view(memory: UInt8Array | None, offset: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """A view of this shape and type into a region's bytes; None is a closed region.

    Raises:
        ValueError: it would reach beyond the region, or the region is closed.
    """
    if memory is None:
        raise ValueError("the shared memory region is closed")
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if offset < 0 or offset + nbytes > memory.size:
        raise ValueError(
            f"{nbytes} bytes at offset {offset} do not lie within a shared memory region of {memory.size} bytes"
        )
    return memory[offset : offset + nbytes].view(dtype).reshape(shape)


def _create_locked() -> tuple[str, int]:
    """A new, empty segment and its descriptor, which holds the lock."""
    while True:
        name = f"streamproc-{os.getpid()}-{secrets.token_hex(8)}"  # the pid is for people, the nonce for uniqueness
        file = os.open(_FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return name, file
        os.close(file)  # somebody's sweep came between the open and the lock, and took it for a dead one


def _swept(path: Path) -> bool:
    try:
        # Neither follows a planted link nor waits for the writer of a planted FIFO.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # another user's, or gone already
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False  # its creator lives, it is not ours to unlink, or another sweep was faster
    finally:
        os.close(file)
    return True


def _unlink_own(path: Path, creator: int) -> None:
    if os.getpid() == creator:  # a forked child has inherited this clean-up, but not the segment
        path.unlink(missing_ok=True)


def _cannot_have(size: int, exc: OSError) -> RegionError:
    if exc.errno != errno.ENOSPC:
        return RegionError(
            f"system shared memory: {_FOLDER} cannot be used for {size / _MIB:.1f} MiB: {exc.strerror}. Make it a "
            "writable tmpfs (in a container: --shm-size or --ipc=host), or set engine.shared_memory: none."
        )
    folder = os.statvfs(_FOLDER)
    total, free = folder.f_blocks * folder.f_frsize, folder.f_bavail * folder.f_frsize
    enough = f"{-(-(total - free + size) // _MIB)}m"
    return RegionError(
        f"system shared memory: {_FOLDER} is too small: {size / _MIB:.1f} MiB needed, {free / _MIB:.1f} of "
        f"{total / _MIB:.1f} MiB free. In a container: --shm-size={enough} (compose: shm_size: {enough}); "
        f"elsewhere: mount -o remount,size={enough} {_FOLDER}. Or set engine.shared_memory: none."
    )
