"""A function in a process of its own: what it gives, what it raises, and what is said when it dies."""

from __future__ import annotations

import os

import pytest

from streamproc.bench.child import in_child
from streamproc.errors import ConfigError, FatalError, Problem


def refuse(key: str) -> None:
    raise ConfigError("file", [Problem(key=key, found="1", expected="2", remedy="Write 2.")])


async def test_what_it_gives() -> None:
    assert await in_child(os.getppid) == os.getpid()


async def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(ConfigError, match=r"model\.path: found 1"):
        await in_child(refuse, "model.path")


async def test_its_death_is_told() -> None:
    with pytest.raises(FatalError, match="the process that measured died"):
        await in_child(os._exit, 3)
