"""What a fault drill plans, and how it judges what came of it. No processes here: see ``test_faults.py``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, NamedTuple

__all__ = [
    "FAULTY",
    "FPS",
    "HEALTHY",
    "LOUD",
    "QUIET",
    "SETTLING_S",
    "UDP",
    "Announcement",
    "Fault",
    "Verdict",
    "announcements",
    "judged",
    "lost_without_fault",
    "plan",
    "seconds",
    "specs",
    "told_faults",
]

HEALTHY = ("gate", "plaza")
FAULTY = ("yard", "crossing", "north", "south", "east", "west")
UDP = ("plaza", "east", "west")
FPS = 12
"""Half of what cameras send: one whose next two frames come before the last was taken loses one of them, and a machine
that hiccups for as long as that is nobody's fault."""

QUIET = ("corrupt", "loss", "jump", "resize")
LOUD = {
    "refuse": "refused",
    "drop": "eof",
    "stall": "stalled",
    "hang": "timeout",
    "password": "auth",
    "reboot": "refused",
}
"""Faults that cost the connection, and the reason that is due to them."""

_ALSO = {"stall": "timeout", **dict.fromkeys(("refuse", "hang", "password", "reboot"), "eof")}
_LASTS_S = {"stall": (13.0, 16.0), "drop": (0.0, 0.0), "corrupt": (6.0, 8.0), "loss": (6.0, 8.0)}
_USUALLY_LASTS_S = (4.0, 8.0)
_BACK_WITHIN_S = 5.0
_EDGE_S = 0.5
"""How far the clocks of the processes, and what is told with them, are apart."""
SETTLING_S = 3.0
"""After it connects: libav hands over what came while it found out what that is, and a new viewer is sent what there is
since the last keyframe, two seconds at most, all at once; what is not the newest gives way to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, as planned (seconds after the simulator's start) or as it really was (seconds of the epoch)."""

    camera: str
    kind: str
    begins_s: float
    ends_s: float


def plan(random: Random, *, rounds: int, first_s: float, spread_s: float, round_s: float) -> list[Fault]:
    """Faults at random. In each round every fault happens once: the loud ones each at a camera of its own, and before
    them the quiet ones, likewise."""
    faults: list[Fault] = []
    for began_s in (first_s + number * round_s for number in range(rounds)):
        for kinds, since_s in ((QUIET, 0.0), (tuple(LOUD), spread_s + _USUALLY_LASTS_S[1] + SETTLING_S + 1)):
            for kind, camera in zip(kinds, _dealt(random, kinds), strict=False):
                begins_s = began_s + since_s + random.uniform(0, spread_s)
                ends_s = begins_s + random.uniform(*_LASTS_S.get(kind, _USUALLY_LASTS_S))
                faults.append(Fault(camera=camera, kind=kind, begins_s=begins_s, ends_s=ends_s))
    return sorted(faults, key=lambda fault: fault.begins_s)


def _dealt(random: Random, kinds: Sequence[str]) -> list[str]:
    """A camera for each kind; packets are lost only where they go by UDP."""
    while True:
        cameras = random.sample(FAULTY, len(FAULTY))
        if "loss" not in kinds or cameras[kinds.index("loss")] in UDP:
            return cameras


def specs(faults: Sequence[Fault]) -> list[str]:
    """What to tell the simulator. Those who watch do not notice that others are refused: they are cut off as well."""
    found: list[str] = []
    for fault in faults:
        lasts = "" if fault.kind == "drop" else f":{fault.ends_s - fault.begins_s:.3f}"
        found.append(f"{fault.camera}/{fault.kind}{lasts}@{fault.begins_s:.3f}s")
        if fault.kind in ("refuse", "hang"):
            found.append(f"{fault.camera}/drop@{fault.begins_s + 0.2:.3f}s")
    return found


def told_faults(printed: str, began_s: float) -> list[Fault]:
    """What happened by the simulator's own account; it started at ``began_s``. Faults that did not end are left out,
    and drops that belong to another fault."""
    found: list[Fault] = []
    open_since_s: dict[tuple[str, str], float] = {}
    for after, camera, kind, how in re.findall(
        r"^(\d+\.\d+) (\w+) (\w+) (begins|ends|happens)$", printed, re.MULTILINE
    ):
        at_s = began_s + float(after)
        if how == "begins":
            open_since_s[camera, kind] = at_s
        elif how == "ends":
            found.append(Fault(camera=camera, kind=kind, begins_s=open_since_s.pop((camera, kind)), ends_s=at_s))
        elif all(other != camera for other, _ in open_since_s):
            found.append(Fault(camera=camera, kind=kind, begins_s=at_s, ends_s=at_s))
    return sorted(found, key=lambda fault: fault.begins_s)


def seconds(utc: str) -> float:
    """A message's time in seconds of the epoch."""
    return datetime.fromisoformat(utc).timestamp()


class Announcement(NamedTuple):
    """When a camera will be tried again, by the log."""

    camera: str
    due_s: float
    logged_s: float


def announcements(log: str) -> list[Announcement]:
    """All of them, in order."""
    form = re.compile(r"^(\S+ \S+) WARNING camera (\w+): .* Next attempt in ([\d.]+) s\.", re.MULTILINE)
    found: list[Announcement] = []
    for stamp, camera, delay in form.findall(log):
        logged_s = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp()
        found.append(Announcement(camera, logged_s + float(delay), logged_s))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one fault: reasons of the camera's status, when it was back, and when that was due at the latest.

    ``back_s`` is None where the run ended first, while a later attempt was announced.
    """

    fault: Fault
    reasons: tuple[str, ...]
    back_s: float | None
    due_s: float

    def __str__(self) -> str:
        lasted_s = self.fault.ends_s - self.fault.begins_s
        back = "run over" if self.back_s is None else f"{self.back_s - self.fault.ends_s:6.2f}"
        allowed = self.due_s - self.fault.ends_s
        reasons = ", ".join(self.reasons) or "–"
        return f"{self.fault.camera:9} {self.fault.kind:9} {lasted_s:6.1f}  {reasons:18} {back:>8}  {allowed:6.1f}"

    def assert_right(self) -> None:
        """The reasons are those of the fault, and the camera was back in time."""
        kind = self.fault.kind
        if kind in QUIET:
            assert not self.reasons, f"a reconnect for nothing: {self}"
        else:
            assert LOUD[kind] in self.reasons, f"no {LOUD[kind]}: {self}"
            assert set(self.reasons) <= {LOUD[kind], _ALSO.get(kind)}, f"wrong reasons: {self}"
        if self.back_s is not None:
            assert self.back_s <= self.due_s, f"back too late: {self}"
            assert kind in (*QUIET, "drop") or self.back_s >= self.fault.ends_s - _EDGE_S, f"never was away: {self}"


def judged(
    fault: Fault,
    statuses: Sequence[Mapping[str, Any]],
    frames: Sequence[float],
    due: Sequence[Announcement],
    end_s: float,
) -> Verdict:
    """What came of a fault.

    Args:
        statuses: the camera's, in order.
        frames: when its published frames were captured.
        due: all announcements.
        end_s: of the run.
    """
    since = [(seconds(status["since"]), status) for status in statuses if status["reason"] != "shutdown"]
    begins_s = fault.begins_s - _EDGE_S
    if fault.kind in QUIET:
        back_s = next((at_s for at_s in frames if at_s >= fault.ends_s), None)
    else:
        back_s = next((at_s for at_s, status in since if at_s > begins_s and status["state"] == "online"), None)
    until_s = end_s if back_s is None else back_s
    reasons = dict.fromkeys(
        status["reason"] for at_s, status in since if begins_s < at_s < until_s and status["state"] == "offline"
    )
    announced_s = [one.due_s for one in due if one.camera == fault.camera and begins_s < one.logged_s < until_s]
    due_s = max([fault.ends_s, *announced_s[-1:]]) + _BACK_WITHIN_S
    assert back_s is not None or due_s > end_s, f"{fault.camera} never came back from {fault.kind}"
    return Verdict(fault=fault, reasons=tuple(reasons), back_s=back_s, due_s=due_s)


def lost_without_fault(detections: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], end_s: float) -> list[str]:
    """Where one camera's published frames do not follow one another, by number and by media time, in words; its own
    faults and the beginning left out."""
    times = [(0.0, seconds(detections[0]["captured_at"]) + SETTLING_S)] + [
        (verdict.fault.begins_s - _EDGE_S, (end_s if verdict.back_s is None else verdict.back_s) + SETTLING_S)
        for verdict in verdicts
    ]
    found: list[str] = []
    for one, next_one in itertools.pairwise(detections):
        from_s, to_s = seconds(one["captured_at"]), seconds(next_one["captured_at"])
        excused = any(begins_s <= to_s and from_s <= ends_s for begins_s, ends_s in times)
        lost = next_one["seq"] - one["seq"] - 1
        step_s = next_one["pts_s"] - one["pts_s"]
        if not excused and (lost or step_s > 1.9 / FPS):
            found.append(
                f"{one['camera']}, without a fault: {lost} frames lost after {one['seq']} of {one['captured_at']}, "
                f"a step of {step_s:.3f} s, and {next_one['age_ms']:.0f} ms until the next was published"
            )
    return found
