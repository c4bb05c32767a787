"""Where streamproc keeps what is the user's own, by the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "state_folder"]


def cache_folder() -> Path:
    """What can be made again: $STREAMPROC_CACHE, else $XDG_CACHE_HOME/streamproc, else ~/.cache/streamproc."""
    return _folder("STREAMPROC_CACHE", "XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """What outlives a command, such as logs: $STREAMPROC_STATE, else $XDG_STATE_HOME/streamproc, else
    ~/.local/state/streamproc."""
    return _folder("STREAMPROC_STATE", "XDG_STATE_HOME", ".local/state")


def _folder(own: str, common: str, fallback: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).absolute()
    base = os.environ.get(common, "")
    # The specification has relative paths ignored.
    return (Path(base) if base.startswith("/") else Path.home() / fallback) / "streamproc"
