"""Writing into a repository that a server may be reading: everything appears whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from streamproc.errors import ModelError

__all__ = ["put_in_place", "staging", "write_whole"]

# Inside the repository, for renames work within one file system only; never a model, as it has no config.pbtxt.
_STAGING = ".streamproc-building"


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """An empty folder on the repository's file system, for one writer at a time; gone afterwards.

    What a writer that was killed has left there goes with the next one.

    Raises:
        ModelError: the repository cannot be written, or somebody else writes it at the moment.
    """
    with ExitStack() as cleanup:
        try:
            repository.mkdir(parents=True, exist_ok=True)
            handle = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
            cleanup.callback(os.close, handle)
            _lock(handle, repository)
            folder = repository / _STAGING
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        except OSError as exc:
            raise ModelError(
                f"model repository {repository} cannot be written: {exc}. Name another folder, or correct its rights."
            ) from exc
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def put_in_place(new: Path, target: Path) -> None:
    """Move a folder out of the staging folder to where it belongs; one that is there already gives way to it.

    Raises:
        ModelError: it cannot be moved; what was there is there again.
    """
    old = new.with_name(new.name + ".old")
    try:
        replaced = target.exists()
        if replaced:
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if replaced:
                old.rename(target)
            raise
    except OSError as exc:
        raise ModelError(f"{target} cannot be put in place: {exc}. Check the repository's rights.") from exc


def write_whole(path: Path, text: str, folder: Path) -> None:
    """Replace a file at once by way of the staging folder; a reader sees the old text or the new.

    Raises:
        ModelError: it cannot be written.
    """
    beside = folder / f"{path.name}.new"
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as exc:
        raise ModelError(f"{path} cannot be written: {exc}. Check the repository's rights.") from exc


def _lock(handle: int, repository: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise ModelError(
            f"model repository {repository}: another process writes to it. Wait until that has ended."
        ) from exc
