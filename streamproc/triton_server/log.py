"""What Triton's log tells about a start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LogReader", "explain_failure", "progress_of"]

_LOADING = re.compile(r'"loading: (?P<model>.+):(?P<version>\d+)"')
_LOADED = re.compile(r"\"successfully loaded '(?P<model>.+)'\"")
_ROW = re.compile(r"^\| (?P<model>.*?) *\| (?P<version>.*?) *\| (?P<status>.*?) *\|$")
# The lines that end a start, as they read without time and place.
_FATAL = re.compile(
    r"^(?:error: |\S*tritonserver: (?:unrecognized|option)|.*(?:failed to start|failed to poll|Address already in use)"
    r"|.*error while loading shared libraries|docker: )"
)
_PREFIX = re.compile(r'^[IWEF]\d{4} [\d:.]+\s+\d+ \S+\] *"?')
_MOST_ROWS = 12


class LogReader:
    """A log file that grows: :meth:`lines` gives the whole lines since the last call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> Iterator[str]:
        """The lines that are complete and new."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield line.decode(errors="replace").rstrip()


def progress_of(line: str) -> str | None:
    """What a line tells about a model being loaded, for people.

    >>> progress_of('I1121 00:24:54.496268 30213 model_lifecycle.cc:472] "loading: yolov8n:1"')
    'loading yolov8n version 1'
    """
    if found := _LOADING.search(line):
        return f"loading {found['model']} version {found['version']}"
    if found := _LOADED.search(line):
        return f"loaded {found['model']}"
    return None


def explain_failure(log: str) -> str:
    """The lines that say why a server ended: the models that did not load, then what it said last."""
    lines = log.splitlines()
    told = list(_failed_models(lines))
    for line in lines:
        said = _PREFIX.sub("", line).rstrip('"')
        if _FATAL.match(said) and said not in told:
            told.append(said[:300])
    if told:
        return "\n".join(told)
    return "\n".join([line for line in lines if line.strip()][-5:]) or "it said nothing"


def _failed_models(lines: list[str]) -> Iterator[str]:
    """The rows of the table of models whose status is UNAVAILABLE; a long status goes on in rows without a name."""
    rows = 0
    for line in lines:
        row = _ROW.match(line)
        if row is None:
            rows = 0
        elif row["status"].startswith("UNAVAILABLE"):
            rows = 1
            yield f"model {row['model']} version {row['version']}: {row['status']}"
        elif rows and not row["model"] and rows < _MOST_ROWS:
            rows += 1
            if row["status"]:
                yield f"  {row['status']}"
        else:
            rows = 0
