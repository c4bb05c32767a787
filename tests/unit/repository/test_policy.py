"""Version policies."""

from __future__ import annotations

import pytest

from streamproc.errors import ConfigError
from streamproc.repository.policy import VersionPolicy


@pytest.mark.parametrize(
    ("text", "served", "said"),
    [
        ("latest", (9,), "the newest version"),
        ("latest:2", (3, 9), "the newest 2 versions"),
        ("all", (1, 3, 9), "all versions"),
        ("1", (1,), "version 1"),
        ("3,1,1", (1, 3), "version 1, 3"),
        ("4", (), "version 4"),
    ],
)
def test_policy(text: str, served: tuple[int, ...], said: str) -> None:
    policy = VersionPolicy.parse(text)
    assert policy.served([9, 1, 3]) == served
    assert str(policy) == said


@pytest.mark.parametrize("text", ["", "newest", "latest:0", "latest:x", "0", "1,", "-1", "all:2"])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(ConfigError, match="expected latest, latest:2, all, or version numbers"):
        VersionPolicy.parse(text)
