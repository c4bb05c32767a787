"""What goes wrong with which camera and when: the faults of ``--fault``, and their order in time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from streamproc.errors import ConfigError, Problem

__all__ = ["Change", "Fault", "FaultKind", "changes", "parse_faults"]


class FaultKind(StrEnum):
    """The ways in which a camera fails."""

    REFUSE = "refuse"
    DROP = "drop"
    STALL = "stall"
    HANG = "hang"
    PASSWORD = "password"
    CORRUPT = "corrupt"
    LOSS = "loss"
    JUMP = "jump"
    RESIZE = "resize"
    REBOOT = "reboot"


_REBOOT_S = 5.0
_FORM = re.compile(
    r"(?:(?P<camera>.+)/)?(?P<kind>[a-z]+)(?::(?P<lasts>\d+(?:\.\d+)?)s?)?(?:@(?P<at>\d+(?:\.\d+)?)s?)?", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of one camera, ``at_s`` after the start. ``lasts_s``: None is for good; a ``drop`` takes no time."""

    camera: str
    kind: FaultKind
    at_s: float
    lasts_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A moment at which a camera's faults change."""

    at_s: float
    camera: str
    kind: FaultKind
    how: Literal["begins", "ends", "happens"]

    def __str__(self) -> str:
        return f"{self.camera} {self.kind} {self.how}"


def parse_faults(specs: Iterable[str], cameras: Sequence[str]) -> list[Fault]:
    """The faults that ``[CAMERA/]KIND[:SECONDS][@AT]`` ask for; without CAMERA one for each of ``cameras``.

    >>> parse_faults(["gate/stall:30@10s"], ["gate"])
    [Fault(camera='gate', kind=<FaultKind.STALL: 'stall'>, at_s=10.0, lasts_s=30.0)]

    Raises:
        ConfigError: one of them cannot be understood.
    """
    faults: list[Fault] = []
    problems: list[Problem] = []
    for spec in specs:
        try:
            faults += _parse(spec, cameras)
        except ValueError as exc:
            expected, remedy = exc.args
            problems.append(Problem(key="--fault", found=repr(spec), expected=expected, remedy=remedy))
    if problems:
        raise ConfigError("command line", problems)
    return faults


def _parse(spec: str, cameras: Sequence[str]) -> list[Fault]:
    """The faults of one specification. Raises ValueError with what is expected and a remedy."""
    form = _FORM.fullmatch(spec)
    if form is None or form["kind"] not in list(FaultKind):
        kinds = ", ".join(FaultKind)
        raise ValueError(
            f"[CAMERA/]KIND[:SECONDS][@AT], where KIND is one of {kinds}", "For example: gate/stall:30@10s."
        )
    if form["camera"] is not None and form["camera"] not in cameras:
        raise ValueError(f"a camera of {', '.join(cameras)}", "A camera has its file's name, without the ending.")
    kind, lasts_s = FaultKind(form["kind"]), None if form["lasts"] is None else float(form["lasts"])
    if kind is FaultKind.DROP:
        if lasts_s is not None:
            raise ValueError("drop without SECONDS: it happens at once", "For example: drop@10s.")
        lasts_s = 0.0
    elif lasts_s == 0:
        raise ValueError("SECONDS above 0", f"For example: {kind}:5@10s.")
    elif kind is FaultKind.REBOOT and lasts_s is None:
        lasts_s = _REBOOT_S
    names = cameras if form["camera"] is None else [form["camera"]]
    return [Fault(camera=name, kind=kind, at_s=float(form["at"] or 0), lasts_s=lasts_s) for name in names]


def changes(faults: Iterable[Fault]) -> list[Change]:
    """When each fault begins and ends, in time; at the same moment, what ends comes first."""
    found: list[Change] = []
    for fault in faults:
        if fault.kind is FaultKind.DROP:
            found.append(Change(at_s=fault.at_s, camera=fault.camera, kind=fault.kind, how="happens"))
            continue
        found.append(Change(at_s=fault.at_s, camera=fault.camera, kind=fault.kind, how="begins"))
        if fault.lasts_s is not None:
            end_s = fault.at_s + fault.lasts_s
            found.append(Change(at_s=end_s, camera=fault.camera, kind=fault.kind, how="ends"))
    return sorted(found, key=lambda change: (change.at_s, change.how != "ends"))
