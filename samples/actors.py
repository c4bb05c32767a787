"""The bodies of the street: people, cars, bicycles, trees and posts as lists of parts in world metres."""

from dataclasses import dataclass

import numpy as np

from samples.camera import Floats
from samples.paint import Blob, Color, Face, Part, Wire

__all__ = ["LABELS", "Look", "Pose", "bicycle", "bollard", "box", "car", "dress", "lamps", "person", "post", "tree"]

LABELS = ("person", "car", "bicycle")

_SKIN: tuple[Color, ...] = ((0.55, 0.68, 0.87), (0.40, 0.53, 0.74), (0.26, 0.36, 0.55), (0.17, 0.23, 0.36))
_CLOTH: tuple[Color, ...] = (
    (0.16, 0.15, 0.15), (0.75, 0.75, 0.78), (0.55, 0.25, 0.13), (0.15, 0.16, 0.62), (0.20, 0.45, 0.18),
    (0.12, 0.55, 0.78), (0.42, 0.38, 0.36), (0.62, 0.45, 0.30), (0.35, 0.20, 0.45), (0.25, 0.32, 0.42),
)  # fmt: skip
_PAINT: tuple[Color, ...] = (
    (0.82, 0.82, 0.82), (0.10, 0.10, 0.11), (0.45, 0.44, 0.43), (0.13, 0.12, 0.55), (0.50, 0.26, 0.10),
    (0.24, 0.33, 0.20), (0.62, 0.66, 0.68), (0.15, 0.42, 0.66), (0.30, 0.22, 0.16),
)  # fmt: skip
_GLASS: Color = (0.20, 0.17, 0.14)
_RUBBER: Color = (0.07, 0.07, 0.07)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where an actor stands: metres, heading in radians from the x axis, and the metres it has gone (gait, pedals)."""

    x: float
    y: float
    heading: float
    travelled: float = 0.0
    moving: float = 1.0

    def world(self, local: Floats) -> Floats:
        """Points (N, 3) ahead, left, up of the actor in world axes."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        x = self.x + local[:, 0] * cos - local[:, 1] * sin
        y = self.y + local[:, 0] * sin + local[:, 1] * cos
        return np.column_stack((x, y, local[:, 2]))


@dataclass(frozen=True, slots=True)
class Look:
    """What makes one individual: overall scale, five colours, and the kind of its body (bag, hair, car shape)."""

    scale: float
    colors: tuple[Color, ...]
    kind: int


def dress(label: str, rng: np.random.Generator) -> Look:
    """A look for a new individual of a class."""
    palette = _PAINT if label != "person" else _CLOTH
    tint = rng.uniform(0.75, 1.2)
    main, second, third = (
        tuple(float(min(1.0, channel * tint)) for channel in palette[index])
        for index in rng.choice(len(palette), 3, replace=False)
    )
    skin = _SKIN[rng.integers(len(_SKIN))]
    hair: Color = ((0.08, 0.09, 0.12), (0.16, 0.25, 0.36), (0.45, 0.60, 0.70), (0.55, 0.55, 0.55))[rng.integers(4)]
    scale = {"person": rng.uniform(0.92, 1.1), "car": rng.uniform(0.94, 1.06), "bicycle": rng.uniform(0.95, 1.05)}
    return Look(float(scale[label]), (main, second, third, skin, hair), int(rng.integers(5)))  # type: ignore[arg-type]


def _limb(pose: Pose, color: Color, *joints: tuple[float, float, float, float], layer: int = 0) -> Blob:
    local = np.array(joints)
    return Blob(np.column_stack((pose.world(local[:, :3]), local[:, 3])), color, layer)


def _knee(hip: tuple[float, float], foot: tuple[float, float], bone: float) -> tuple[float, float]:
    """The joint ahead of the line from hip to foot in their plane, for two bones of one length."""
    ahead, up = foot[0] - hip[0], foot[1] - hip[1]
    reach = max(np.hypot(ahead, up), 1e-6)
    bend = np.sqrt(max(bone**2 - (reach / 2) ** 2, 0.0))
    return (hip[0] + foot[0]) / 2 - bend * up / reach, (hip[1] + foot[1]) / 2 + bend * ahead / reach


def person(pose: Pose, look: Look, riding: bool = False) -> list[Part]:
    """A person of about 1.7 m who walks, stands, or rides the bicycle of the same pose."""
    size = 1.72 * look.scale
    phase = pose.travelled * 2 * np.pi / (1.1 if riding else 0.82 * size)
    lean, seat = (0.28, 0.97) if riding else (0.03, 0.52 * size)
    top, trousers, shoes, skin, hair = look.colors
    parts: list[Part] = []
    shoulder = (lean * 1.15, seat + 0.30 * size)
    for side, beat in ((-1, phase), (1, phase + np.pi)):
        hip = (-0.08 if riding else 0.0, seat)
        if riding:
            foot = (0.02 + 0.16 * np.cos(-beat), 0.32 + 0.16 * np.sin(-beat))
        else:
            stride = 0.26 * size * pose.moving
            foot = (stride * np.cos(beat), 0.07 + 0.10 * pose.moving * max(0.0, -np.sin(beat)))
        knee = _knee(hip, foot, 0.268 * size)
        across = 0.085 * side
        parts.append(_limb(pose, trousers, (*_at(hip, across), 0.085), (*_at(knee, across), 0.06)))
        parts.append(_limb(pose, trousers, (*_at(knee, across), 0.06), (*_at(foot, across), 0.042)))
        toe = (foot[0] + 0.15, foot[1] - 0.03)
        parts.append(_limb(pose, shoes, (*_at(foot, across), 0.05), (*_at(toe, across), 0.035)))
        parts += _arm(pose, look, shoulder, side, None if riding else -np.cos(beat) * pose.moving)
    chest = (lean, seat + 0.27 * size)
    waist = (-0.04 if riding else 0.0, seat + 0.02)
    parts.append(
        _limb(pose, top, (*_at(waist, -0.07), 0.105), (*_at(waist, 0.07), 0.105),
              (*_at(chest, -0.09), 0.115), (*_at(chest, 0.09), 0.115))
    )  # fmt: skip
    head = (lean * 1.35, seat + 0.41 * size)
    parts.append(_limb(pose, skin, (*_at((lean * 1.2, seat + 0.33 * size), 0), 0.055), (*_at(head, 0), 0.06)))
    parts.append(_limb(pose, skin, (*_at((head[0] + 0.02, head[1]), 0), 0.098)))
    parts.append(_limb(pose, hair, (*_at((head[0] - 0.035, head[1] + 0.03), 0), 0.1)))
    if look.kind == 0:
        parts.append(
            _limb(pose, shoes, (*_at((lean - 0.2, seat + 0.10), 0), 0.13), (*_at((lean - 0.2, chest[1]), 0), 0.12))
        )
    elif look.kind == 1 and not riding:
        parts.append(_limb(pose, trousers, (0.0, 0.30, seat - 0.1, 0.11), (0.0, 0.27, seat + 0.02, 0.07)))
    elif look.kind == 2:
        parts.append(_limb(pose, top, (*_at((head[0] - 0.02, head[1] + 0.05), 0), 0.102)))
    return parts


def _at(joint: tuple[float, float], across: float) -> tuple[float, float, float]:
    return float(joint[0]), across, float(joint[1])


def _arm(pose: Pose, look: Look, shoulder: tuple[float, float], side: int, swing: float | None) -> list[Part]:
    across = 0.20 * side
    if swing is None:  # hands on the handlebar
        elbow, hand = (shoulder[0] + 0.12, shoulder[1] - 0.24), (0.47, 1.05)
    else:
        elbow = (shoulder[0] + 0.13 * swing, shoulder[1] - 0.29)
        hand = (elbow[0] + 0.09 + 0.10 * swing, elbow[1] - 0.23)
    return [
        _limb(pose, look.colors[0], (*_at(shoulder, across), 0.065), (*_at(elbow, across * 1.15), 0.05)),
        _limb(pose, look.colors[0], (*_at(elbow, across * 1.15), 0.05), (*_at(hand, across * 1.1), 0.035)),
        _limb(pose, look.colors[3], (*_at(hand, across * 1.1), 0.045)),
    ]


def bicycle(pose: Pose, look: Look) -> list[Part]:
    """A bicycle of 1.7 m; it stands upright with or without a rider."""
    main, second = look.colors[:2]
    angles = np.linspace(0, 2 * np.pi, 21)
    parts: list[Part] = []
    for hub in (-0.52, 0.52):
        rim = np.column_stack((hub + 0.335 * np.cos(angles), np.zeros(21), 0.345 + 0.335 * np.sin(angles)))
        parts.append(Wire(pose.world(rim), 0.025, _RUBBER))
        for turn in range(4):
            angle = pose.travelled / 0.345 + turn * np.pi / 4
            step = 0.32 * np.array((np.cos(angle), 0, -np.sin(angle)))
            parts.append(Wire(pose.world(np.array((hub, 0, 0.345)) + np.stack((-step, step))), 0.004, (0.5, 0.5, 0.5)))
    crank, saddle, head, fork = (0.0, 0.3), (-0.17, 0.9), (0.38, 0.85), (0.52, 0.345)
    for start, end, color in (
        (crank, saddle, main), (crank, head, main), ((-0.13, 0.78), (0.37, 0.8), main), (head, fork, second),
        ((-0.52, 0.345), crank, main), ((-0.52, 0.345), (-0.13, 0.78), main), (head, (0.33, 1.03), second),
    ):  # fmt: skip
        parts.append(Wire(pose.world(np.array((_at(start, 0), _at(end, 0)))), 0.022, color, 1))
    parts.append(_limb(pose, _RUBBER, (-0.3, 0, 0.93, 0.055), (-0.1, 0, 0.94, 0.03), layer=1))
    bar = np.array(((0.43, -0.27, 1.03), (0.36, -0.1, 1.04), (0.36, 0.1, 1.04), (0.43, 0.27, 1.03)))
    parts.append(Wire(pose.world(bar), 0.018, _RUBBER, 1))
    if look.kind < 2:
        parts.append(_limb(pose, second, (0.62, -0.1, 0.82, 0.11), (0.62, 0.1, 0.82, 0.11), layer=1))
    return parts


_SHAPES = (
    # length, width, bonnet height, roof height, and the cabin's four corners as shares of the length from the rear
    (4.5, 1.80, 0.92, 1.45, 0.10, 0.22, 0.58, 0.76),  # saloon
    (3.9, 1.74, 0.95, 1.50, 0.02, 0.08, 0.58, 0.76),  # hatchback
    (4.6, 1.88, 1.05, 1.75, 0.02, 0.07, 0.62, 0.76),  # off-roader
    (5.2, 1.98, 1.15, 2.25, 0.01, 0.02, 0.78, 0.93),  # van
    (4.7, 1.80, 0.92, 1.48, 0.01, 0.06, 0.60, 0.77),  # estate
)


def car(pose: Pose, look: Look, lit: bool = False) -> list[Part]:
    """A car of one of five shapes; `lit` turns its lamps on."""
    length, width, waist, roof, *cabin = _SHAPES[look.kind]
    length, half = length * look.scale, width * look.scale / 2
    rear, front = -length / 2, length / 2
    paint = look.colors[0]
    dark: Color = (paint[0] * 0.25, paint[1] * 0.25, paint[2] * 0.25)
    profile = [
        (rear + 0.06, 0.28), (front - 0.06, 0.28), (front, 0.45), (front - 0.04, waist - 0.2),
        (front - 0.25, waist - 0.08), (rear + cabin[3] * length, waist), (rear, waist), (rear, 0.45),
    ]  # fmt: skip
    parts = _prism(pose, profile, half, half, paint, 0)
    corners = [(rear + share * length, height) for share, height in zip(cabin, (waist, roof, roof, waist), strict=True)]
    parts += _prism(
        pose, [corners[0], corners[3], corners[2], corners[1]], half - 0.04, half - 0.04, paint, 2, half - 0.17
    )
    parts += _windows(pose, corners, half, look.kind == 3)
    for axle in (rear + 0.19 * length, front - 0.19 * length):
        parts += _wheel(pose, axle, half, dark)
    for side in (-1, 1):
        across = side * (half - 0.28)
        lamp: Color = (0.80, 0.95, 1.0) if lit else (0.75, 0.75, 0.72)
        parts.append(_patch(pose, front + 0.01, across, waist - 0.33, 0.2, 0.08, 1, lamp, lit))
        brake: Color = (0.15, 0.12, 1.0) if lit else (0.08, 0.08, 0.5)
        parts.append(_patch(pose, rear - 0.01, across * 1.05, waist - 0.2, 0.16, 0.1, -1, brake, lit))
    parts.append(_patch(pose, front + 0.01, 0, 0.5, half * 0.6, 0.09, 1, _RUBBER, False))
    parts.append(_patch(pose, rear - 0.01, 0, 0.55, 0.26, 0.06, -1, (0.75, 0.8, 0.8), False))
    return parts


def lamps(pose: Pose, look: Look, viewer: tuple[float, float]) -> list[tuple[Floats, Color]]:
    """World points and colours of those lamps of a lit car that shine towards a viewer's place (x, y), for halos."""
    length, width, waist = _SHAPES[look.kind][:3]
    half, side = length * look.scale / 2, width * look.scale / 2 - 0.28
    ahead = (viewer[0] - pose.x) * np.cos(pose.heading) + (viewer[1] - pose.y) * np.sin(pose.heading)
    if ahead > half:
        front = pose.world(np.array(((half + 0.01, side, waist - 0.33), (half + 0.01, -side, waist - 0.33))))
        return [(point, (0.55, 0.7, 0.75)) for point in front]
    rear = pose.world(np.array(((-half - 0.01, side, waist - 0.2), (-half - 0.01, -side, waist - 0.2))))
    return [(point, (0.05, 0.05, 0.4)) for point in rear] if ahead < -half else []


def _prism(
    pose: Pose, profile: list[tuple[float, float]], right: float, left: float, color: Color, layer: int, top: float = -1
) -> list[Part]:
    """A convex side profile (ahead, up), counter-clockwise seen from the right, drawn out between two sides."""
    highest = max(up for _, up in profile)

    def corner(index: int, side: int) -> tuple[float, float, float]:
        ahead, up = profile[index % len(profile)]
        across = top if top > 0 and up == highest else (left if side > 0 else right)
        return ahead, side * across, up

    faces = [[corner(i, -1) for i in range(len(profile))], [corner(-i, 1) for i in range(len(profile))]]
    faces += [[corner(i, -1), corner(i, 1), corner(i + 1, 1), corner(i + 1, -1)] for i in range(len(profile))]
    return [Face(pose.world(np.array(face)), color, layer) for face in faces]


def _windows(pose: Pose, corners: list[tuple[float, float]], half: float, blind: bool) -> list[Part]:
    low_rear, high_rear, high_front, low_front = (np.array(corner) for corner in corners)
    panes: list[Part] = []
    spans = ((0.66, 0.94),) if blind else ((0.06, 0.48), (0.53, 0.94))
    for side in (-1, 1):
        for start, end in spans:
            pane = []
            for along, up in ((start, 0.12), (end, 0.12), (end, 0.88), (start, 0.88)):
                bottom, roof = low_rear + along * (low_front - low_rear), high_rear + along * (high_front - high_rear)
                ahead, height = bottom + up * (roof - bottom)
                pane.append((ahead, side * (half - 0.035 - 0.13 * up), height))
            panes.append(Face(pose.world(np.array(pane if side < 0 else pane[::-1])), _GLASS, 3))
    for foot, head, side in ((low_front, high_front, 1), (low_rear, high_rear, -1)):
        if blind and side < 0:
            continue
        glass = []
        for across, up in ((-0.9, 0.1), (0.9, 0.1), (0.9, 0.88), (-0.9, 0.88)):
            ahead, height = foot + up * (head - foot)
            glass.append((ahead + 0.01 * side, across * (half - 0.04 - 0.13 * up), height))
        panes.append(Face(pose.world(np.array(glass if side > 0 else glass[::-1])), _GLASS, 3))
    return panes


def _wheel(pose: Pose, axle: float, half: float, arch: Color) -> list[Part]:
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    parts: list[Part] = []
    for side in (-1, 1):
        for layer, radius, color in ((1, 0.39, arch), (1, 0.33, _RUBBER), (2, 0.2, (0.5, 0.5, 0.5))):
            disc = np.column_stack((axle + radius * np.cos(angles), np.full(14, side * (half + 0.005 * radius)),
                                    0.33 + radius * np.sin(angles)))  # fmt: skip
            parts.append(Face(pose.world(disc if side < 0 else disc[::-1]), color, layer))
    return parts


def _patch(
    pose: Pose, ahead: float, across: float, up: float, wide: float, high: float, side: int, color: Color, glow: bool
) -> Face:
    ring = ((-wide, -high), (wide, -high), (wide, high), (-wide, high))[:: 1 if side > 0 else -1]
    points = np.array([(ahead, across + step, up + rise) for step, rise in ring])
    return Face(pose.world(points), color, 1, glow)


def box(low: tuple[float, float, float], high: tuple[float, float, float], color: Color) -> list[Part]:
    """An upright block between two corners: a bench, a bin, a planter, a hedge."""
    middle = Pose((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0.0)
    wide, deep = (high[0] - low[0]) / 2, (high[1] - low[1]) / 2
    return _prism(middle, [(-wide, low[2]), (wide, low[2]), (wide, high[2]), (-wide, high[2])], deep, deep, color, 0)


def post(x: float, y: float, height: float, radius: float, color: Color) -> list[Part]:
    """An upright post with a round head."""
    return [Blob(np.array(((x, y, radius, radius), (x, y, height, radius * 0.7))), color)]


def bollard(x: float, y: float) -> list[Part]:
    """A knee-high post with a white ring."""
    ring: list[Part] = [Blob(np.array(((x, y, 0.7, 0.075), (x, y, 0.8, 0.075))), (0.85, 0.85, 0.85), 1)]
    return post(x, y, 0.9, 0.07, (0.2, 0.2, 0.22)) + ring


def tree(x: float, y: float, height: float, rng: np.random.Generator) -> list[Part]:
    """A tree whose crown is a cloud of leaf clumps."""
    parts = post(x, y, height * 0.6, 0.16, (0.16, 0.24, 0.32))
    hue = rng.uniform(0.8, 1.25)
    for _ in range(34):
        angle, reach, rise = rng.uniform(0, 2 * np.pi), height * 0.26 * np.sqrt(rng.uniform()), rng.uniform(0.42, 0.98)
        tone = rng.uniform(0.7, 1.2) * hue
        clump = (x + reach * np.cos(angle), y + reach * np.sin(angle), height * rise, height * rng.uniform(0.05, 0.1))
        parts.append(Blob(np.array((clump,)), (0.13 * tone, 0.36 * tone, 0.22 * tone), 1))
    return parts
