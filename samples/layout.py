"""Four places (gate, yard, crossing, plaza): ground, buildings, things that stand there, and the traffic through them.

World axes: x right, y away from the default camera, z up, in metres. A seed changes widths, colours, furniture
and traffic of a place, never its kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from samples.actors import Look, Pose, bollard, box, dress, post, tree
from samples.camera import Camera, Floats
from samples.paint import Color, Part
from samples.traffic import Flow, Route, Signal

__all__ = ["CAMERAS", "PLACES", "Building", "Ground", "Parked", "Place"]

Rng = np.random.Generator

_FAR = 90.0
_PERIOD_S = 20.0
_ASPHALT: Color = (0.33, 0.33, 0.33)
_PAVING: Color = (0.56, 0.58, 0.60)
_GRASS: Color = (0.20, 0.40, 0.30)
_KERB: Color = (0.68, 0.69, 0.70)
_WHITE: Color = (0.86, 0.86, 0.86)

CAMERAS = {
    "gate": Camera(position=(0.0, -1.0, 4.6), yaw_deg=27.0, pitch_deg=11.0, focal_px=1000.0),
    "yard": Camera(position=(3.0, -3.5, 6.2), yaw_deg=-17.0, pitch_deg=17.0, focal_px=960.0),
    "crossing": Camera(position=(-11.0, -6.5, 7.0), yaw_deg=27.0, pitch_deg=15.0, focal_px=1020.0),
    "plaza": Camera(position=(0.0, -3.0, 5.2), yaw_deg=-6.0, pitch_deg=13.0, focal_px=930.0),
}
"""The four cameras of the samples."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A coloured polygon (N, 2) on the ground; later ones cover earlier ones."""

    points: Floats
    color: Color


@dataclass(frozen=True, slots=True)
class Building:
    """An upright block with windows: two corners, its height and its colour."""

    low: tuple[float, float]
    high: tuple[float, float]
    height: float
    color: Color


@dataclass(frozen=True, slots=True)
class Parked:
    """A car or a bicycle that stays where it is."""

    label: str
    look: Look
    pose: Pose


@dataclass(slots=True)
class Place:
    """All that a camera can see of a place, and who moves through it."""

    ground: list[Ground] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    props: list[list[Part]] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)

    def strip(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        self.ground.append(Ground(np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1))), color))

    def walk(self, rng: Rng, points: list[tuple[float, float]], every_s: float, *stops: tuple[float, Signal]) -> None:
        self._flow("person", rng.uniform(1.05, 1.6), points, every_s, stops)

    def drive(self, rng: Rng, points: list[tuple[float, float]], every_s: float, *stops: tuple[float, Signal]) -> None:
        self._flow("car", rng.uniform(6.5, 9.0), points, every_s, stops)

    def ride(self, rng: Rng, points: list[tuple[float, float]], every_s: float, *stops: tuple[float, Signal]) -> None:
        self._flow("bicycle", rng.uniform(3.3, 4.6), points, every_s, stops)

    def crawl(self, points: list[tuple[float, float]], every_s: float) -> None:
        self._flow("car", 3.2, points, every_s, ())

    def park(self, rng: Rng, label: str, x: float, y: float, heading: float) -> None:
        turned = heading + (np.pi if rng.uniform() < 0.4 else 0.0) + rng.normal(0, 0.03)
        self.parked.append(Parked(label, dress(label, rng), Pose(x, y, float(turned), rng.uniform(0, 1), 0.0)))

    def _flow(
        self, label: str, speed: float, points: list[tuple[float, float]], every_s: float,
        stops: tuple[tuple[float, Signal], ...],
    ) -> None:  # fmt: skip
        self.flows.append(Flow(label, Route(np.array(points, dtype=np.float64), stops), float(speed), every_s))


def _green(start_s: float, end_s: float) -> Signal:
    return lambda time_s: start_s <= time_s % _PERIOD_S < end_s


def _stripes(place: Place, x0: float, y0: float, x1: float, y1: float, along_x: bool) -> None:
    """A zebra crossing over the block from (x0, y0) to (x1, y1), its stripes laid out along one axis."""
    start, end = (x0, x1) if along_x else (y0, y1)
    for left in np.arange(start + 0.3, end - 0.4, 1.0):
        if along_x:
            place.strip(left, y0, left + 0.5, y1, _WHITE)
        else:
            place.strip(x0, left, x1, left + 0.5, _WHITE)


def _dashes(place: Place, y: float, gap: tuple[float, float]) -> None:
    for x in np.arange(-_FAR, _FAR, 5.0):
        if not gap[0] - 3 < x < gap[1] + 1:
            place.strip(x, y - 0.06, x + 2.4, y + 0.06, _WHITE)


def _houses(place: Place, rng: Rng, y: float, span: tuple[float, float]) -> None:
    """A closed row of houses along the x axis whose fronts stand at y."""
    x = span[0]
    while x < span[1]:
        wide = rng.uniform(9, 18)
        tone, warm = rng.uniform(0.45, 0.85), rng.uniform(-0.1, 0.1)
        color = (tone - warm, tone * 0.97, tone + warm)
        front = y + rng.uniform(0, 0.6)
        place.buildings.append(Building((x, front), (x + wide, y + 12), rng.uniform(7, 15), color))
        x += wide + (rng.uniform(1, 5) if rng.uniform() < 0.3 else 0.0)


def _gate(rng: Rng) -> Place:
    """A street with a zebra crossing, a parking strip on the far side and bollards on the near one."""
    place = Place()
    near, road = rng.uniform(7.0, 8.0), rng.uniform(6.6, 7.4)
    far, zebra = near + road, rng.uniform(9.0, 13.0)
    place.strip(-_FAR, -30, _FAR, near - 3.2, _GRASS if rng.uniform() < 0.5 else _PAVING)
    place.strip(-_FAR, near - 3.2, _FAR, near, _PAVING)
    place.strip(-_FAR, near - 0.2, _FAR, near, _KERB)
    place.strip(-_FAR, near, _FAR, far + 2.3, _ASPHALT)
    place.strip(-_FAR, far, _FAR, far + 0.1, _WHITE)
    place.strip(-_FAR, far + 2.3, _FAR, far + 6.0, _PAVING)
    place.strip(-_FAR, far + 2.3, _FAR, far + 2.5, _KERB)
    _dashes(place, near + road / 2, (zebra, zebra + 4))
    _stripes(place, zebra, near, zebra + 4, far, along_x=False)
    _houses(place, rng, far + 6.2, (-40, 75))
    cars_go, people_go = _green(9.0, 18.0), _green(0.0, 3.0)
    place.drive(rng, [(-60, near + road * 0.29), (85, near + road * 0.29)], 4.5, (60 + zebra - 1, cars_go))
    place.drive(rng, [(85, near + road * 0.71), (-60, near + road * 0.71)], 5.0, (85 - zebra - 5, cars_go))
    place.walk(rng, [(-20, near - 2.4), (60, near - 2.4)], 12)
    place.walk(rng, [(60, near - 1.3), (-20, near - 1.3)], 13)
    place.walk(rng, [(-10, far + 3.6), (70, far + 3.6)], 16)
    place.walk(rng, [(70, far + 4.9), (-10, far + 4.9)], 17)
    over = [(zebra + 1, near - 1.6), (zebra + 1, near - 0.4), (zebra + 1, far + 3), (zebra + 1.8, far + 4.2)]
    place.walk(rng, [(zebra - 16, near - 1.9), (zebra, near - 1.9), *over, (55, far + 4.2)], 13, (17.8, people_go))
    back = [(zebra + 3, far + 6), (zebra + 3, near - 0.6), (zebra + 2.4, near - 1.8), (-15, near - 1.8)]
    place.walk(rng, back, 14, (3.0, people_go))
    place.ride(rng, [(-40, near + 0.5), (70, near + 0.5)], 7, (40 + zebra - 1, cars_go))
    place.ride(rng, [(70, far - 0.5), (-40, far - 0.5)], 15, (70 - zebra - 5, cars_go))
    for slot in np.arange(-8, 50, 6.2):
        if not zebra - 4 < slot < zebra + 8 and rng.uniform() < 0.4:
            place.park(rng, "car", slot, far + 1.2, 0.0)
    place.park(rng, "bicycle", zebra - rng.uniform(4, 6), near - 0.55, 0.0)
    place.props += [bollard(x, near - 0.45) for x in np.arange(zebra - 1.2, zebra + 6, 1.7)]
    place.props.append(post(zebra + 4.6, near - 0.5, 6.5, 0.09, (0.3, 0.32, 0.3)))
    place.props.append(tree(zebra + rng.uniform(8, 11), near - 3.9, rng.uniform(5, 7), rng))
    place.props.append(tree(zebra - rng.uniform(5, 8), far + 3.0, rng.uniform(5, 7), rng))
    return place


def _yard(rng: Rng) -> Place:
    """A car park with two rows, a lane between them, and people on the way to and from a hall."""
    place = Place()
    near, far = rng.uniform(6.5, 7.5), rng.uniform(20.0, 21.5)
    place.strip(-_FAR, -30, _FAR, 60, (0.40, 0.40, 0.41))
    place.strip(-_FAR, far + 5.3, _FAR, far + 9, _PAVING)
    place.strip(-_FAR, far + 5.3, _FAR, far + 5.5, _KERB)
    pitch = 2.9
    for x in np.arange(-26, 20, pitch):
        place.strip(x - 0.05, far, x + 0.05, far + 5, _WHITE)
        place.strip(x - 0.05, near, x + 0.05, near + 4.6, _WHITE)
        if rng.uniform() < 0.25:
            place.park(rng, "car", x + pitch / 2, far + 2.5, np.pi / 2)
    for x in rng.choice(np.arange(-14, 8, pitch), 2, replace=False):
        place.park(rng, "car", x + pitch / 2, near + 2.3, np.pi / 2)
    _houses(place, rng, far + 9, (-55, 40))
    lane = (near + 4.6 + far) / 2
    place.crawl([(-48, lane - 1.8), (40, lane - 1.8)], 11)
    place.crawl([(40, lane + 1.8), (-48, lane + 1.8)], 13)
    for offset, every_s in ((6.3, 10.0), (7.6, 12.0)):
        place.walk(rng, [(-45, far + offset), (30, far + offset)], every_s)
    slots = rng.permutation(np.arange(-16, 8, 3.2))[:4]
    for x, every_s in zip(slots, (11, 12, 13, 14), strict=True):
        ends = [
            (x - 9, near - 1.6),
            (x, near + 0.4),
            (x + rng.uniform(-2, 2), far - 0.5),
            (x + 5, far + 5),
            (x + 9, far + 8.5),
        ]
        place.walk(rng, ends if rng.uniform() < 0.5 else ends[::-1], every_s)
    place.walk(rng, [(-28, near - 1.0), (24, near - 1.4)], 10)
    place.ride(rng, [(-42, lane - 3.6), (-8, lane), (34, lane + 3.4)], 10)
    place.ride(rng, [(34, lane + 0.2), (-42, lane + 0.2)], 13)
    for x in (rng.uniform(-15, -12), rng.uniform(5, 7)):
        place.park(rng, "bicycle", x, far + 6.0 + rng.uniform(0, 0.6), rng.uniform(-0.3, 0.3))
    place.props += [post(x, lane, 7.5, 0.1, (0.35, 0.35, 0.33)) for x in (rng.uniform(-9, -5), rng.uniform(12, 16))]
    place.props.append(box((-24, far + 5.6, 0), (-18, far + 6.2, 0.9), (0.16, 0.32, 0.2)))
    place.props.append(tree(rng.uniform(8, 11), far + 6.0, 6.5, rng))
    return place


def _crossing(rng: Rng) -> Place:
    """Two streets that cross under signals, with zebra crossings on two arms."""
    place = Place()
    half, y = rng.uniform(3.4, 3.8), rng.uniform(11.5, 13.0)
    place.strip(-_FAR, -40, _FAR, 100, _PAVING)
    place.strip(-_FAR, y - half - 0.15, _FAR, y + half + 0.15, _KERB)
    place.strip(-half - 0.15, -40, half + 0.15, 100, _KERB)
    place.strip(-_FAR, y - half, _FAR, y + half, _ASPHALT)
    place.strip(-half, -40, half, 100, _ASPHALT)
    _dashes(place, y, (-half - 5, half + 5))
    for start in (*np.arange(-40, y - half - 7, 5.0), *np.arange(y + half + 6, 100, 5.0)):
        place.strip(-0.06, start, 0.06, start + 2.4, _WHITE)
    _stripes(place, -half - 4.2, y - half, -half - 1, y + half, along_x=False)
    _stripes(place, -half, y + half + 1, half, y + half + 4.2, along_x=True)
    for x0, x1, y0, y1 in (
        (-60, -9, y + 13, y + 26),
        (half + 6, 60, y + half + 6.5, y + 22),
        (half + 8, 60, -28, y - 12),
    ):
        tone = rng.uniform(0.5, 0.8)
        place.buildings.append(Building((x0, y0), (x1, y1), rng.uniform(9, 16), (tone * 0.9, tone * 0.95, tone)))
    across, ahead = _green(0.0, 7.5), _green(10.0, 17.5)
    place.drive(rng, [(-60, y - half / 2), (60, y - half / 2)], 6.5, (60 - half - 4.9, across))
    place.drive(rng, [(60, y + half / 2), (-60, y + half / 2)], 7.5, (60 - half - 1.5, across))
    place.drive(rng, [(half / 2, -45), (half / 2, 90)], 9, (45 + y - half - 1.5, ahead))
    place.drive(rng, [(-half / 2, 90), (-half / 2, -45)], 8, (90 - y - half - 4.9, ahead))
    over_x, over_y = _green(10.0, 13.0), _green(0.0, 3.0)
    left, top = -half - 2.6, y + half + 2.6
    place.walk(rng, [(left - 0.8, y - 26), (left - 0.8, y + 40)], 13, (26 - half - 0.7, over_x))
    place.walk(rng, [(left + 0.8, y + 40), (left + 0.8, y - 26)], 16, (40 - half - 0.7, over_x))
    place.walk(rng, [(-30, top - 0.8), (35, top - 0.8)], 14, (30 - half - 0.7, over_y))
    place.walk(rng, [(35, top + 0.8), (-30, top + 0.8)], 18, (35 - half - 0.7, over_y))
    place.walk(rng, [(35, y - half - 2), (left + 5.6 + half, y - half - 2)], 24)
    place.walk(rng, [(-34, y - half - 2.5), (left - 2, y - half - 2.5), (left - 2, y - 20)], 19)
    place.ride(rng, [(-45, y - half + 0.5), (45, y - half + 0.5)], 12, (45 - half - 4.9, across))
    place.ride(rng, [(-half + 0.5, 60), (-half + 0.5, -40)], 14, (60 - y - half - 4.9, ahead))
    for x, dy in ((-half - 0.6, -half - 0.6), (half + 0.7, half + 0.7), (-half - 0.6, half + 0.7)):
        place.props.append(post(x, y + dy, 4.2, 0.09, (0.25, 0.25, 0.25)))
        place.props.append(box((x - 0.18, y + dy - 0.15, 3.3), (x + 0.18, y + dy + 0.15, 4.3), (0.12, 0.13, 0.12)))
    place.props.append(tree(half + rng.uniform(3, 4), y + half + 9, 6.5, rng))
    place.props.append(tree(-half - rng.uniform(7, 9), y + half + 6, 5.5, rng))
    place.park(rng, "bicycle", -half - 6.5, y + half + 1.4, 0.2)
    return place


def _plaza(rng: Rng) -> Place:
    """A paved square with planters and trees, paths that cross on it, and a street behind."""
    place = Place()
    back = rng.uniform(24, 27)
    warm: Color = (0.50, 0.56, 0.62)
    place.strip(-_FAR, -30, _FAR, back, warm)
    for x in np.arange(-60, 60, 4.0):
        place.strip(x, -30, x + 0.12, back, (0.42, 0.46, 0.50))
    for line in np.arange(-2, back, 4.0):
        place.strip(-60, line, 60, line + 0.12, (0.42, 0.46, 0.50))
    place.strip(-_FAR, back, _FAR, back + 0.2, _KERB)
    place.strip(-_FAR, back + 0.2, _FAR, back + 7.2, _ASPHALT)
    place.strip(-_FAR, back + 7.2, _FAR, back + 11, _PAVING)
    _dashes(place, back + 3.7, (200, 200))
    _houses(place, rng, back + 11, (-60, 60))
    place.drive(rng, [(-65, back + 1.9), (65, back + 1.9)], 7)
    place.drive(rng, [(65, back + 5.4), (-65, back + 5.4)], 8)
    for side in (-1, 1):
        for reach, every_s in ((rng.uniform(4, 7), 12.0), (rng.uniform(9, 13), 14.0), (rng.uniform(15, 20), 13.0)):
            start, end = (side * 22, reach), (-side * 22, reach + rng.uniform(-2.5, 4))
            place.walk(rng, [start, (rng.uniform(-5, 5), reach + rng.uniform(-1, 1.5)), end], every_s)
        place.walk(
            rng, [(side * rng.uniform(6, 10), back - 0.8), (side * rng.uniform(0, 3), 12), (-side * 12, 3.5)], 13
        )
    place.ride(rng, [(-26, rng.uniform(7, 9)), (0, rng.uniform(10, 13)), (26, rng.uniform(14, 17))], 10)
    place.ride(rng, [(26, rng.uniform(19, 21)), (-26, rng.uniform(18, 21))], 12)
    for x in (rng.uniform(-10, -7), rng.uniform(7, 10)):
        y = rng.uniform(12, 16)
        place.props.append(box((x - 1.6, y - 0.8, 0), (x + 1.6, y + 0.8, 0.55), (0.45, 0.47, 0.5)))
        place.props.append(tree(x, y, rng.uniform(4.5, 6), rng))
    for x in (rng.uniform(-4, -2), rng.uniform(2, 5)):
        place.park(rng, "bicycle", x, back - rng.uniform(1.6, 2.4), rng.uniform(-0.5, 0.5))
    place.park(rng, "bicycle", rng.uniform(-7, -5), rng.uniform(9, 11), rng.uniform(-0.6, 0.6))
    place.props.append(post(rng.uniform(-1.5, 2), rng.uniform(8.5, 11), 5.5, 0.09, (0.25, 0.27, 0.25)))
    place.props.append(box((4.5, 17, 0), (6.3, 17.5, 0.45), (0.2, 0.34, 0.48)))
    return place


PLACES: dict[str, Callable[[Rng], Place]] = {"gate": _gate, "yard": _yard, "crossing": _crossing, "plaza": _plaza}
"""Builders of the four places by the name of the camera that watches them."""
