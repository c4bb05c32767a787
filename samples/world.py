"""A self-made world: streets that move, seen by a camera, with the exact truth of every frame.

The same camera, seed and length give the same pixels and the same truth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from samples import actors
from samples.actors import LABELS, Look, Pose
from samples.backdrop import backdrop, lights
from samples.camera import HEIGHT, WIDTH, Camera, Floats
from samples.layout import CAMERAS, PLACES
from samples.paint import Canvas, Color, Part, Silhouette, shadow
from samples.traffic import FPS, Actor, simulate

__all__ = ["DUSK", "Seen", "World"]

Pixels = NDArray[np.uint8]

DUSK = {"gate": False, "yard": False, "crossing": True, "plaza": False}
"""Which of the four cameras look at dusk, lamps lit."""

_SHADOW_SCALE = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """One object in one frame: xyxy of its whole outline inside the picture, and the share of it that is visible.

    `visibility` counts the pixels left after occlusion and clipping against all pixels of the outline.
    """

    identity: int
    class_id: int
    box: tuple[int, int, int, int]
    visibility: float


@dataclass(frozen=True, slots=True)
class _Body:
    identity: int
    class_id: int
    parts: list[Part]
    near: float
    lamps: list[tuple[Floats, Color]]


class World:
    """One place under one camera for `frames` frames at 24 a second.

    `vary` draws another camera pose, lens and time of day from the seed, for training pictures; otherwise
    the pose is the named camera's own.
    """

    def __init__(self, camera: str, seed: int, frames: int, vary: bool = False) -> None:
        rng = np.random.default_rng((seed, sorted(PLACES).index(camera)))
        self.camera = _varied(CAMERAS[camera], rng) if vary else CAMERAS[camera]
        self.frames = frames
        self._light = lights(rng, bool(rng.uniform() < 0.35) if vary else DUSK[camera])
        place = PLACES[camera](rng)
        headway = float(rng.uniform(0.7, 2.0)) if vary else 2.0
        flows = [replace(flow, every_s=flow.every_s * headway) for flow in place.flows]
        self._actors = simulate(flows, frames, rng)
        self._still = [
            replace(self._stood(one.label, one.look, one.pose), identity=number)
            for number, one in enumerate(place.parked, 1)
        ]
        self._still += [_Body(0, -1, parts, self._reach(parts), []) for parts in place.props]
        self._first_mover = len(place.parked) + 1
        self._ground = backdrop(place, self.camera, self._light, rng)
        self._shade = np.zeros((int(HEIGHT * _SHADOW_SCALE), int(WIDTH * _SHADOW_SCALE)), np.uint8)
        for body in self._still:
            shadow(self._shade, body.parts, self.camera, self._light, _SHADOW_SCALE)
        self._sensor = _Sensor(rng, self._light.dusk)

    def render(self, frame: int) -> tuple[Pixels, list[Seen]]:
        """Picture (720, 1280, 3) uint8 BGR and truth of one frame; frames may be asked for in any order."""
        movers = self._movers(frame)
        picture = self._shaded(movers)
        canvas = Canvas(picture, self.camera, self._light)
        outlines: dict[int, tuple[int, Silhouette]] = {}
        bodies = sorted(self._still + movers, key=lambda body: -body.near)
        for body in bodies:
            outline = canvas.draw(body.parts, body.identity)
            if outline is not None and body.identity:
                outlines[body.identity] = (body.class_id, outline)
        for body in bodies:
            for point, color in body.lamps:
                canvas.glow(point, 0.55, color, body.identity)
        counts = np.bincount(canvas.identities.ravel(), minlength=max(outlines, default=0) + 1)
        truth = [
            Seen(identity, class_id, outline.box, float(counts[identity]) / outline.area)
            for identity, (class_id, outline) in sorted(outlines.items())
        ]
        return self._sensor.expose(picture, frame), truth

    def play(self) -> Iterator[tuple[Pixels, list[Seen]]]:
        """All frames in order."""
        return (self.render(frame) for frame in range(self.frames))

    def _movers(self, frame: int) -> list[_Body]:
        bodies: list[_Body] = []
        identity = self._first_mover
        for actor in self._actors:
            pose = actor.moments[frame]
            if pose is not None:
                bodies += self._moved(actor, pose, identity)
            identity += 2  # a rider has an identity of its own
        return bodies

    def _moved(self, actor: Actor, pose: Pose, identity: int) -> list[_Body]:
        body = replace(self._stood(actor.label, actor.look, pose), identity=identity)
        if actor.rider is None:
            return [body]
        parts = actors.person(pose, actor.rider, riding=True)
        # The rider is drawn over the bicycle it sits on, whichever side is nearer.
        return [body, _Body(identity + 1, 0, parts, body.near - 0.05, [])]

    def _stood(self, label: str, look: Look, pose: Pose) -> _Body:
        halos: list[tuple[Floats, Color]] = []
        if label == "person":
            parts = actors.person(pose, look)
        elif label == "bicycle":
            parts = actors.bicycle(pose, look)
        else:
            lit = self._light.dusk and pose.travelled > 1  # what is parked has not travelled
            parts = actors.car(pose, look, lit)
            if lit:
                halos = actors.lamps(pose, look, self.camera.position[:2])
        return _Body(0, LABELS.index(label), parts, self._reach(parts), halos)

    def _reach(self, parts: Sequence[Part]) -> float:
        """Distance on the ground by which bodies hide one another: halfway between centre and nearest point."""
        points = np.concatenate([part.spheres[:, :3] if hasattr(part, "spheres") else part.points for part in parts])
        gaps = np.hypot(*(points[:, :2] - np.array(self.camera.position[:2])).T)
        return float((gaps.min() + gaps.mean()) / 2)

    def _shaded(self, movers: Sequence[_Body]) -> Pixels:
        mask = self._shade.copy()
        for body in movers:
            shadow(mask, body.parts, self.camera, self._light, _SHADOW_SCALE)
        soft = cv2.GaussianBlur(mask, (5, 5), 0)
        full = cv2.resize(soft, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        keep = cv2.LUT(full, np.round(255 - self._light.shadow * np.arange(256)).astype(np.uint8))
        return cv2.multiply(self._ground, cv2.merge((keep, keep, keep)), scale=1 / 255).astype(np.uint8)


class _Sensor:
    """Exposure that drifts, a slightly soft lens with darker corners, and noise that grows at dusk."""

    def __init__(self, rng: np.random.Generator, dusk: bool) -> None:
        self._phase = rng.uniform(0, 2 * np.pi, 2)
        self._blur = float(rng.uniform(0.45, 0.8))
        level = rng.uniform(2.5, 3.5) if dusk else rng.uniform(1.2, 2.2)
        self._noise = (rng.standard_normal((HEIGHT + 64, WIDTH + 64, 1)) * level + 128).round().astype(np.uint8)
        ys, xs = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
        falloff = np.round(255 * (1 - 0.16 * (xs**2 + ys**2) / 2)).astype(np.uint8)
        self._falloff = cv2.merge((falloff, falloff, falloff))
        self._seed = int(rng.integers(1 << 30))

    def expose(self, picture: Pixels, frame: int) -> Pixels:
        time_s = frame / FPS
        gain = 1 + 0.04 * np.sin(0.7 * time_s + self._phase[0]) + 0.02 * np.sin(2.3 * time_s + self._phase[1])
        soft = cv2.GaussianBlur(picture, (0, 0), self._blur)
        graded = cv2.multiply(soft, self._falloff, scale=float(gain) / 255)
        rng = np.random.default_rng((self._seed, frame))
        top, left = rng.integers(0, 64, 2)
        grain = self._noise[top : top + HEIGHT, left : left + WIDTH]
        if rng.uniform() < 0.5:
            grain = grain[:, ::-1]
        grain3 = cv2.cvtColor(np.ascontiguousarray(grain), cv2.COLOR_GRAY2BGR)
        return cv2.addWeighted(graded, 1.0, grain3, 1.0, -128.0).astype(np.uint8)


def _varied(camera: Camera, rng: np.random.Generator) -> Camera:
    x, y, z = camera.position
    return Camera(
        position=(x + rng.uniform(-6, 6), y + rng.uniform(-4, 2), float(np.clip(z + rng.uniform(-1.4, 2.5), 3.4, 9))),
        yaw_deg=camera.yaw_deg * rng.choice((-1, 1)) + rng.uniform(-14, 14),
        pitch_deg=camera.pitch_deg + rng.uniform(-3, 5),
        focal_px=camera.focal_px * rng.uniform(0.8, 1.25),
    )
