"""The ground truth of a video: how it is written, read, filtered for scoring, and counted over a line."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samples.actors import LABELS
from samples.camera import HEIGHT, WIDTH
from samples.traffic import FPS
from samples.world import Seen

__all__ = ["LINES", "MARGIN_PX", "MIN_HEIGHT_PX", "MIN_VISIBILITY", "SCHEMA", "Line", "Truth", "crossings", "demanded"]

SCHEMA = "streamproc.samples.truth/1"
MIN_VISIBILITY = 0.5
"""An object that shows less of its outline than this is ignored in scoring: neither demanded nor punished."""
MIN_HEIGHT_PX = 16
"""So is one whose box is lower than this."""
MARGIN_PX = 8
"""How far from a counting line a point must be to count as on one of its sides."""


@dataclass(frozen=True, slots=True)
class Line:
    """A counting line from `start` to `end` in pixels."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]

    def side(self, x: float, y: float) -> float:
        """Below 0 on the left of one who looks from start to end on the picture, above 0 on the right."""
        (x0, y0), (x1, y1) = self.start, self.end
        return (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)


LINES = {
    "gate": Line("zebra", (1279, 561), (652, 347)),
    "yard": Line("lot", (500, 675), (805, 257)),
    "crossing": Line("arm", (1125, 470), (710, 315)),
    "plaza": Line("square", (720, 710), (737, 285)),
}
"""The counting line of each of the four cameras."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth of one video: what is seen in every frame, in order."""

    camera: str
    line: Line
    frames: list[list[Seen]]

    def write(self, path: Path) -> None:
        """Writes the JSON form that README.md beside this module describes."""
        head = {
            "schema": SCHEMA, "camera": self.camera, "fps": FPS, "width": WIDTH, "height": HEIGHT,
            "classes": list(LABELS), "ignore_below": {"visibility": MIN_VISIBILITY, "height_px": MIN_HEIGHT_PX},
            "line": {"name": self.line.name, "start": self.line.start, "end": self.line.end},
            "crossings": crossings(self.frames, self.line),
        }  # fmt: skip
        rows = ",\n".join(
            json.dumps([[one.identity, one.class_id, *one.box, round(one.visibility, 3)] for one in frame],
                       separators=(",", ":"))
            for frame in self.frames
        )  # fmt: skip
        path.write_text(json.dumps(head)[:-1] + ', "frames": [\n' + rows + "\n]}\n")

    @classmethod
    def read(cls, path: Path) -> "Truth":
        """Reads what `write` wrote; ValueError names the file and its schema when it is another one."""
        data: dict[str, Any] = json.loads(path.read_text())
        if data.get("schema") != SCHEMA:
            raise ValueError(f"{path}: schema {data.get('schema')!r}, expected {SCHEMA!r}; render the samples again")
        line = data["line"]
        frames = [[Seen(row[0], row[1], tuple(row[2:6]), row[6]) for row in frame] for frame in data["frames"]]
        return cls(data["camera"], Line(line["name"], tuple(line["start"]), tuple(line["end"])), frames)


def demanded(one: Seen) -> bool:
    """Whether scoring demands that this object be found; the others are ignored."""
    return one.visibility >= MIN_VISIBILITY and one.box[3] - one.box[1] >= MIN_HEIGHT_PX


def crossings(frames: Sequence[Sequence[Seen]], line: Line) -> list[tuple[int, int, int]]:
    """Rows (frame, identity, direction): in this frame an object's bottom centre arrived on the line's other side.

    Direction is +1 from the line's left to its right, else -1. A point is on a side once it is farther than
    MARGIN_PX from the line's straight extension: the swing of a walker's legs moves the box to and fro and shall
    not count thrice. The step from the last such point to the present one must cut the line between its ends;
    an object that was missing in the frame before starts afresh.
    """
    found: list[tuple[int, int, int]] = []
    settled: dict[int, tuple[float, float]] = {}
    length = math.dist(line.start, line.end)
    for number, frame in enumerate(frames):
        now = {one.identity: ((one.box[0] + one.box[2]) / 2, float(one.box[3])) for one in frame}
        settled = {identity: point for identity, point in settled.items() if identity in now}
        for identity, point in now.items():
            if abs(line.side(*point)) / length <= MARGIN_PX:
                continue
            direction = _crossed(settled[identity], point, line) if identity in settled else 0
            if direction:
                found.append((number, identity, direction))
            settled[identity] = point
    return found


def _crossed(old: tuple[float, float], new: tuple[float, float], line: Line) -> int:
    was, now = line.side(*old), line.side(*new)
    if (was < 0) == (now < 0):
        return 0
    step = Line("step", old, new)
    if (step.side(*line.start) < 0) == (step.side(*line.end) < 0):
        return 0
    return 1 if was < 0 else -1
