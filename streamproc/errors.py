"""The project's errors, one tree.

::

    StreamprocError
    ├── ConfigError            the configuration cannot be used: every problem at once (exit code 2)
    ├── FatalError             going on is pointless; the run ends with exit code 1
    │   ├── ModelError         a model file that cannot be read, or that is none of the supported kinds
    │   ├── EngineError        an inference engine that cannot be started, or an inference that failed
    │   │   └── RegionError    (engines.shared_memory) a kind of shared memory that cannot be had here
    │   └── DependencyError    an optional package or system library that this configuration needs is missing
    └── RetryableError         the other side may come back: a supervisor waits and tries again
        ├── EngineAwayError    an inference server that cannot be reached, is not ready, or did not answer in time
        ├── SourceError        a camera or file; carries the ``reason`` that the camera's status shows
        └── SinkError          a broker or another receiver

A bug is none of these: it propagates as itself and ends the process with a non-zero code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ConfigError",
    "DependencyError",
    "EngineAwayError",
    "EngineError",
    "FatalError",
    "ModelError",
    "Problem",
    "RetryableError",
    "SinkError",
    "SourceError",
    "StreamprocError",
]


class StreamprocError(Exception):
    """Root of every error that streamproc raises on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a configuration.

    ``key`` is the dotted path in the file (``cameras.gate.url``), ``found`` what stands there, ``expected`` what
    would be accepted, ``remedy`` what to do.
    """

    key: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        where = self.key or "(top level)"
        return f"{where}: found {self.found}; expected {self.expected}. {self.remedy}"


class ConfigError(StreamprocError):
    """A configuration that cannot be used; ``problems`` holds all that is wrong, not just the first."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count} problem{'s' if count != 1 else ''}\n{lines}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.source, self.problems)  # from one process to another


class FatalError(StreamprocError):
    """The run cannot go on, and trying again would not help."""


class ModelError(FatalError):
    """A model file that cannot be read, or whose tensors fit none of the supported heads."""


class EngineError(FatalError):
    """An inference engine that cannot be started, or an inference that failed."""


class DependencyError(FatalError):
    """A package or system library that this configuration needs is not installed."""


class RetryableError(StreamprocError):
    """The other side failed and may come back."""


class EngineAwayError(RetryableError):
    """A batch that an inference server did not answer; the server may come back."""


class SourceError(RetryableError):
    """A camera or file that cannot be opened or read further; ``reason`` is one word for its status."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SinkError(RetryableError):
    """A receiver (broker, file, encoder) that does not take what it is given."""
