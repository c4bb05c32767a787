"""Who moves where: routes, signals and a small car-following simulation, stepped once a frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from samples.actors import Look, Pose, dress
from samples.camera import Floats

__all__ = ["FPS", "Actor", "Flow", "Route", "simulate"]

FPS = 24

_STEP_S = 1 / FPS
_WARM_UP_S = 40.0
_LENGTH_M = {"person": 0.5, "car": 4.8, "bicycle": 1.8}
_GAP_M = {"person": 0.7, "car": 1.8, "bicycle": 1.4}
_BRAKING = {"person": 2.0, "car": 3.5, "bicycle": 2.5}

Signal = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Route:
    """A path on the ground (N, 2) in metres and the places along it where a signal may hold traffic back."""

    points: Floats
    stops: tuple[tuple[float, Signal], ...] = ()
    _along: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        points = self.points
        for _ in range(3):  # Chaikin's corner cutting keeps the ends and rounds the turns
            cut = np.stack((0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]), 1)
            points = np.concatenate((points[:1], cut.reshape(-1, 2), points[-1:]))
        steps = np.hypot(*np.diff(points, axis=0).T)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "_along", np.concatenate(([0.0], np.cumsum(steps))))

    @property
    def length(self) -> float:
        return float(self._along[-1])

    def at(self, along: float) -> tuple[float, float]:
        x = np.interp(along, self._along, self.points[:, 0])
        y = np.interp(along, self._along, self.points[:, 1])
        return float(x), float(y)

    def pose(self, along: float, speed: float, full_speed: float) -> Pose:
        """Place and heading after `along` metres; the heading spans a short stretch, so that it turns gently."""
        x, y = self.at(along)
        behind, ahead = self.at(max(along - 0.6, 0.0)), self.at(min(along + 0.6, self.length))
        heading = float(np.arctan2(ahead[1] - behind[1], ahead[0] - behind[0]))
        return Pose(x, y, heading, along, min(1.0, speed / max(full_speed, 0.1)))


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic of one kind on one route: speed in m/s, mean seconds between departures."""

    label: str
    route: Route
    speed: float
    every_s: float


@dataclass(slots=True)
class Actor:
    """One individual; `moments` holds its pose per frame of the video, None while it is not on its route."""

    label: str
    look: Look
    moments: list[Pose | None] = field(default_factory=list)
    rider: Look | None = None


@dataclass(slots=True)
class _Runner:
    actor: Actor
    flow: Flow
    full_speed: float
    along: float = 0.0
    speed: float = 0.0


def simulate(flows: Sequence[Flow], frames: int, rng: np.random.Generator) -> list[Actor]:
    """Runs the flows through a warm-up and then `frames` frames; every actor's poses cover exactly those frames."""
    departures = [_departures(flow, frames, rng) for flow in flows]
    running: list[_Runner] = []
    actors: list[Actor] = []
    first = -round(_WARM_UP_S * FPS)
    for frame in range(first, frames):
        time_s = frame * _STEP_S
        for flow, times in zip(flows, departures, strict=True):
            if times and times[0] <= time_s and not _entry_blocked(flow, running):
                times.pop(0)
                running.append(_depart(flow, rng))
        _advance(running, time_s)
        for runner in running:
            if frame < 0:
                continue
            if not runner.actor.moments:
                runner.actor.moments = [None] * frame
                actors.append(runner.actor)
            runner.actor.moments.append(runner.flow.route.pose(runner.along, runner.speed, runner.full_speed))
        running = [runner for runner in running if runner.along < runner.flow.route.length]
    for actor in actors:
        actor.moments += [None] * (frames - len(actor.moments))
    return actors


def _departures(flow: Flow, frames: int, rng: np.random.Generator) -> list[float]:
    times: list[float] = []
    time_s = -_WARM_UP_S + rng.uniform(0, flow.every_s)
    while time_s < frames * _STEP_S:
        times.append(time_s)
        time_s += flow.every_s * rng.uniform(0.5, 1.5)
    return times


def _entry_blocked(flow: Flow, running: Sequence[_Runner]) -> bool:
    room = _LENGTH_M[flow.label] + _GAP_M[flow.label] + 1
    return any(runner.flow is flow and runner.along < room for runner in running)


def _depart(flow: Flow, rng: np.random.Generator) -> _Runner:
    # One speed a flow for people: who never overtakes on one line never walks through another.
    full_speed = flow.speed * (1.0 if flow.label == "person" else rng.uniform(0.9, 1.1))
    actor = Actor(flow.label, dress(flow.label, rng))
    if flow.label == "bicycle":
        actor.rider = dress("person", rng)
    return _Runner(actor, flow, full_speed, 0.0, full_speed)


def _advance(running: Sequence[_Runner], time_s: float) -> None:
    walkers = [
        (runner.flow.route.at(runner.along), runner.flow.route.at(runner.along + 1.3 * runner.speed))
        for runner in running
        if runner.flow.label == "person"
    ]
    for runner in running:
        label = runner.flow.label
        room = _room(runner, running, time_s)
        if label != "person":
            room = min(room, _room_before_people(runner, walkers))
        # The speed from which constant braking stops within the room left: v^2 = 2 a d.
        allowed = min(runner.full_speed, float(np.sqrt(2 * _BRAKING[label] * max(room, 0.0))))
        gain = float(np.clip(allowed - runner.speed, -2 * _BRAKING[label] * _STEP_S, 1.8 * _STEP_S))
        runner.speed = max(0.0, runner.speed + gain) if room > 0.05 else 0.0
    for runner in running:
        runner.along += runner.speed * _STEP_S


def _room(runner: _Runner, running: Sequence[_Runner], time_s: float) -> float:
    """Free metres up to the one ahead on the same route, or to a signal that says stop."""
    label = runner.flow.label
    reach = _LENGTH_M[label] + _GAP_M[label]
    room = min(
        (other.along - runner.along - reach
         for other in running if other.flow.route is runner.flow.route and other.along > runner.along),
        default=1e3,
    )  # fmt: skip
    nose = runner.along + _LENGTH_M[label] / 2
    for place, free in runner.flow.route.stops:
        distance = place - nose
        too_late = distance < runner.speed**2 / (2 * _BRAKING[label]) - 0.3
        if distance > -0.3 and not too_late and not free(time_s):
            room = min(room, distance)
    return room


def _room_before_people(runner: _Runner, walkers: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> float:
    pose = runner.flow.route.pose(runner.along, runner.speed, runner.full_speed)
    cos, sin = np.cos(pose.heading), np.sin(pose.heading)
    nose = _LENGTH_M[runner.flow.label] / 2
    corridor = 1.7 if runner.flow.label == "car" else 0.8
    room = 1e3
    for now, soon in walkers:
        for x, y in (now, soon):
            ahead = (x - pose.x) * cos + (y - pose.y) * sin - nose
            across = -(x - pose.x) * sin + (y - pose.y) * cos
            if 0 < ahead < 14 and abs(across) < corridor:
                room = min(room, ahead - 1.2)
    return room
