"""Which versions of a model a server serves: the newest, all, or those that are named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamproc.errors import ConfigError, Problem

__all__ = ["VersionPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPolicy:
    """``latest`` newest versions, or the ``versions`` named, or all where both are empty."""

    latest: int | None = 1
    versions: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> VersionPolicy:
        """From ``latest``, ``latest:2``, ``all`` or ``1,3``.

        Raises:
            ConfigError: it is none of these.

        >>> VersionPolicy.parse("latest:2")
        VersionPolicy(latest=2, versions=())
        >>> str(VersionPolicy.parse("3,1"))
        'version 1, 3'
        """
        word, _, count = text.partition(":")
        try:
            if word == "latest":
                return cls(latest=_positive(count or "1"))
            if text == "all":
                return cls(latest=None)
            return cls(latest=None, versions=tuple(sorted({_positive(number) for number in text.split(",")})))
        except ValueError as exc:
            problem = Problem(
                key="version policy",
                found=text,
                expected="latest, latest:2, all, or version numbers such as 1,3",
                remedy="Correct it.",
            )
            raise ConfigError("models", [problem]) from exc

    def served(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Of the versions there are, those that are served; ascending.

        >>> VersionPolicy(latest=2).served([1, 2, 5])
        (2, 5)
        """
        there = sorted(versions)
        if self.versions:
            return tuple(version for version in there if version in self.versions)
        return tuple(there if self.latest is None else there[-self.latest :])

    def __str__(self) -> str:
        if self.versions:
            return f"version {', '.join(map(str, self.versions))}"
        if self.latest is None:
            return "all versions"
        return "the newest version" if self.latest == 1 else f"the newest {self.latest} versions"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
