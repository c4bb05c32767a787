"""Draws solids, rounded limbs and wires with light, shadow and haze, and keeps the identity of every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.camera import HEIGHT, NEAR_M, WIDTH, Camera, Floats

__all__ = ["Blob", "Canvas", "Color", "Face", "Light", "Part", "Silhouette", "Wire", "fixed", "shadow"]

Color = tuple[float, float, float]
Pixels = NDArray[np.uint8]

_SHIFT = 4  # fixed-point bits of OpenCV's polygon coordinates
_CIRCLE = np.stack([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 12, endpoint=False)])
_HAZE_M = 260.0


@dataclass(frozen=True, slots=True)
class Face:
    """A flat polygon (N, 3) seen from one side only: counter-clockwise from outside. A glowing one needs no light."""

    points: Floats
    color: Color
    layer: int = 0
    glow: bool = False


@dataclass(frozen=True, slots=True)
class Blob:
    """The convex hull of spheres (N, 4): x, y, z, radius. One is a head, two are a limb, four a trunk."""

    spheres: Floats
    color: Color
    layer: int = 0


@dataclass(frozen=True, slots=True)
class Wire:
    """A polyline (N, 3) of round tube with a radius in metres; at least one pixel wide."""

    points: Floats
    radius: float
    color: Color
    layer: int = 0


Part = Face | Blob | Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Sun direction (3,) pointing to the sun, BGR gains of sun and sky, haze colour, and whether lamps are lit."""

    to_sun: Floats
    sun: Floats
    sky: Floats
    haze: Floats
    shadow: float
    dusk: bool

    def shade(self, color: Color, facing: float, depth_m: float) -> Color:
        """BGR 0..255 of a surface whose cosine to the sun is `facing`, seen through `depth_m` of haze."""
        lit = np.array(color) * (self.sky + self.sun * max(facing, 0.0))
        clear = np.exp(-depth_m / _HAZE_M)
        blue, green, red = np.clip(lit * clear + self.haze * (1 - clear), 0, 1) * 255
        return float(blue), float(green), float(red)


@dataclass(frozen=True, slots=True)
class Silhouette:
    """An object's whole outline: xyxy of its pixels inside the picture, and its pixel count in and out of it."""

    box: tuple[int, int, int, int]
    area: int


@dataclass(frozen=True, slots=True)
class _Stroke:
    order: tuple[int, float]
    points: Floats
    color: Color
    width: int  # 0: filled


def fixed(points: Floats) -> NDArray[np.int32]:
    """Pixel coordinates as OpenCV's fixed-point integers, bounded so that they cannot overflow."""
    return np.round(np.clip(points, -16000, 16000) * (1 << _SHIFT)).astype(np.int32)


def _spheres(blob: Blob) -> Floats:
    return blob.spheres[:, :3]


def shadow(mask: Pixels, parts: Sequence[Part], camera: Camera, light: Light, scale: float) -> None:
    """Adds the sun's shadow of an object on the ground to a mask whose pixels are `scale` of the picture's."""
    flat: list[Floats] = []
    for part in parts:
        points = _spheres(part) if isinstance(part, Blob) else part.points
        radii = part.spheres[:, 3] if isinstance(part, Blob) else np.full(len(points), 0.03)
        foot = points[:, :2] - points[:, 2:] * light.to_sun[:2] / light.to_sun[2]
        if isinstance(part, Face):
            flat.append(foot)
            continue
        rims = (foot[:, None] + radii[:, None, None] * _CIRCLE[None]).reshape(-1, 2)
        _fill_ground(mask, rims, camera, scale)
    if flat:
        _fill_ground(mask, np.concatenate(flat), camera, scale)


def _fill_ground(mask: Pixels, foot: Floats, camera: Camera, scale: float) -> None:
    hull = cv2.convexHull(foot.astype(np.float32))[:, 0].astype(np.float64)
    outline = camera.polygon(np.column_stack((hull, np.zeros(len(hull)))))
    if len(outline) > 2:
        cv2.fillConvexPoly(mask, fixed(outline * scale), 255, cv2.LINE_AA, _SHIFT)


class Canvas:
    """A picture (720, 1280, 3) uint8 BGR and its identity map (720, 1280) int32, painted from far to near."""

    def __init__(self, picture: Pixels, camera: Camera, light: Light) -> None:
        self.picture = picture
        self.identities = np.zeros((HEIGHT, WIDTH), np.int32)
        self._camera = camera
        self._light = light
        self._toward_sun = camera.sideways(light.to_sun)

    def draw(self, parts: Sequence[Part], identity: int) -> Silhouette | None:
        """Paints one object over what is there; None when no pixel of it lies in the picture."""
        strokes = self._strokes(parts)
        if not strokes:
            return None
        everything = np.concatenate([stroke.points for stroke in strokes])
        low = np.floor(np.maximum(everything.min(0) - 8, (-2 * WIDTH, -2 * HEIGHT))).astype(int)
        high = np.ceil(np.minimum(everything.max(0) + 9, (3 * WIDTH, 3 * HEIGHT))).astype(int)
        left, top = np.clip(low, 0, (WIDTH, HEIGHT))
        right, bottom = np.clip(high, 0, (WIDTH, HEIGHT))
        if left >= right or top >= bottom:
            return None
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        for stroke in strokes:
            _paint(self.picture, stroke.points, stroke.color, stroke.width, cv2.LINE_AA)
            _paint(mask, stroke.points - low, 255, stroke.width, cv2.LINE_8)
        inside = mask[top - low[1] : bottom - low[1], left - low[0] : right - low[0]]
        x, y, width, height = cv2.boundingRect(inside)
        if width == 0:
            return None
        self.identities[top:bottom, left:right][inside > 0] = identity
        box = (int(left + x), int(top + y), int(left + x + width), int(top + y + height))
        return Silhouette(box, cv2.countNonZero(mask))

    def glow(self, point: Floats, radius_m: float, color: Color, identity: int) -> None:
        """Adds the halo of a lamp at a world point when the object it belongs to is seen there."""
        local = self._camera.local(point[None])
        if local[0, 2] < NEAR_M:
            return
        x, y = np.round(self._camera.pixels(local)[0]).astype(int)
        if not (0 <= x < WIDTH and 0 <= y < HEIGHT) or self.identities[y, x] != identity:
            return
        size = int(np.clip(radius_m * self._camera.focal_px / local[0, 2], 3, 120))
        left, top, right, bottom = max(x - size, 0), max(y - size, 0), min(x + size, WIDTH), min(y + size, HEIGHT)
        ys, xs = np.mgrid[top:bottom, left:right]
        falloff = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * (size / 2.6) ** 2))
        halo = (falloff[..., None] * np.array(color) * 255).astype(np.uint8)
        region = self.picture[top:bottom, left:right]
        region[:] = cv2.add(region, halo)

    def _strokes(self, parts: Sequence[Part]) -> list[_Stroke]:
        points = np.concatenate([_spheres(part) if isinstance(part, Blob) else part.points for part in parts])
        local = self._camera.local(points)
        if local[:, 2].min() < NEAR_M:
            return []
        pixels = self._camera.pixels(local)
        strokes: list[_Stroke] = []
        start = 0
        for part in parts:
            end = start + (len(part.spheres) if isinstance(part, Blob) else len(part.points))
            flat, depths = pixels[start:end], local[start:end, 2]
            start = end
            if isinstance(part, Face):
                strokes += self._face(part, flat, depths)
            elif isinstance(part, Blob):
                strokes += self._blob(part, flat, depths)
            else:
                strokes.append(self._wire(part, flat, depths))
        return sorted(strokes, key=lambda stroke: stroke.order)

    def _face(self, face: Face, flat: Floats, depths: Floats) -> list[_Stroke]:
        ring = np.roll(flat, -1, 0)
        # Seen from outside the corners run counter-clockwise, which is a negative area as the picture's y points down.
        if float((flat[:, 0] * ring[:, 1] - ring[:, 0] * flat[:, 1]).sum()) >= 0:
            return []
        depth = float(depths.mean())
        if face.glow:
            blue, green, red = (255 * channel for channel in face.color)
            return [_Stroke((face.layer, -depth), flat, (blue, green, red), 0)]
        normal = np.cross(face.points[1] - face.points[0], face.points[2] - face.points[0])
        facing = float(normal @ self._light.to_sun) / max(float(np.linalg.norm(normal)), 1e-9)
        return [_Stroke((face.layer, -depth), flat, self._light.shade(face.color, facing, depth), 0)]

    def _blob(self, blob: Blob, flat: Floats, depths: Floats) -> list[_Stroke]:
        radii = blob.spheres[:, 3] * self._camera.focal_px / depths
        depth = float(depths.mean())
        order = (blob.layer, -depth)
        rims = _hull(flat, radii)
        dark, bright = (self._light.shade(blob.color, facing, depth) for facing in (0.3, 0.85))
        strokes = [_Stroke(order, rims, dark, 0)]
        if radii.max() > 2:
            strokes.append(
                _Stroke(order, _hull(flat + self._toward_sun * radii[:, None] * 0.3, radii * 0.6), bright, 0)
            )
        return strokes

    def _wire(self, wire: Wire, flat: Floats, depths: Floats) -> _Stroke:
        depth = float(depths.mean())
        width = max(1, round(2 * wire.radius * self._camera.focal_px / depth))
        return _Stroke((wire.layer, -depth), flat, self._light.shade(wire.color, 0.6, depth), width)


def _hull(centres: Floats, radii: Floats) -> Floats:
    rims = (centres[:, None] + radii[:, None, None] * _CIRCLE[None]).reshape(-1, 2)
    hull: Floats = cv2.convexHull(rims.astype(np.float32))[:, 0].astype(np.float64)
    return hull


def _paint(target: Pixels, points: Floats, color: Color | int, width: int, line: int) -> None:
    paint = color if isinstance(color, tuple) else (float(color),)
    if width:
        cv2.polylines(target, [fixed(points)], False, paint, width, line, _SHIFT)
    else:
        cv2.fillConvexPoly(target, fixed(points), paint, line, _SHIFT)
