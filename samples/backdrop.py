"""What does not move: sky, textured ground, houses with windows, painted once for a camera."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.camera import HEIGHT, WIDTH, Camera, Floats
from samples.layout import Building, Ground, Place
from samples.paint import Color, Light, fixed

__all__ = ["backdrop", "lights"]

Pixels = NDArray[np.uint8]

_TILE = 512


def lights(rng: np.random.Generator, dusk: bool) -> Light:
    """Weather: day with sun or thin cloud, or dusk with a low sky and lit lamps."""
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(28, 62))
    to_sun = np.array((np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)))
    if dusk:
        sky = np.array((0.52, 0.42, 0.38)) * rng.uniform(0.8, 1.2)
        return Light(to_sun=to_sun, sun=sky * 0.35, sky=sky, haze=sky * 0.9, shadow=0.12, dusk=True)
    strength = rng.uniform(0.15, 0.55)
    sun = np.array((0.85, 0.95, 1.05)) * strength
    sky = np.array((0.72, 0.67, 0.64)) * (1.15 - 0.5 * strength)
    haze = np.array((0.88, 0.82, 0.78)) * rng.uniform(0.85, 1.0)
    return Light(to_sun=to_sun, sun=sun, sky=sky, haze=haze, shadow=0.25 + 0.6 * strength, dusk=False)


def backdrop(place: Place, camera: Camera, light: Light, rng: np.random.Generator) -> Pixels:
    """The empty place (720, 1280, 3) uint8 BGR, without shadows."""
    picture = _sky(light)
    _ground(picture, place.ground, camera, light, rng)
    for building in sorted(place.buildings, key=lambda one: -_distance(one, camera)):
        _house(picture, building, camera, light, rng)
    return picture


def _distance(building: Building, camera: Camera) -> float:
    nearest = np.clip(camera.position[:2], building.low, building.high)
    return float(np.hypot(*(nearest - np.array(camera.position[:2]))))


def _sky(light: Light) -> Pixels:
    high = np.array((0.50, 0.32, 0.24)) if light.dusk else np.array((0.92, 0.75, 0.60))
    share = np.linspace(0, 1, HEIGHT)[:, None, None] ** 0.7
    column = high * (1 - share) + light.haze * share
    return (np.clip(np.repeat(column, WIDTH, 1), 0, 1) * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, octaves: Sequence[int]) -> NDArray[np.float32]:
    """A seamless tile of smooth noise, mean 0 and standard deviation 1: blurred white noise of several sizes."""
    total = np.zeros((_TILE, _TILE), np.float32)
    for size in octaves:
        white = rng.standard_normal((_TILE, _TILE)).astype(np.float32)
        wrapped = cv2.copyMakeBorder(white, 64, 64, 64, 64, cv2.BORDER_WRAP)
        smooth = cv2.GaussianBlur(wrapped, (0, 0), size).astype(np.float32)[64:-64, 64:-64] if size else white
        total += smooth / max(float(smooth.std()), 1e-6)
    return total / max(float(total.std()), 1e-6)


def _ground(picture: Pixels, patches: Sequence[Ground], camera: Camera, light: Light, rng: np.random.Generator) -> None:
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    world_x, world_y, reach = camera.ground(xs, ys)
    below = np.isfinite(reach) & (reach < 1000)
    facing = float(light.to_sun[2])
    flat = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    flat[:] = np.array(light.shade((0.36, 0.44, 0.42), facing, 0.0))  # fields, as far as the horizon
    for patch in patches:
        outline = camera.polygon(np.column_stack((patch.points, np.zeros(len(patch.points)))))
        if len(outline) > 2:
            cv2.fillConvexPoly(flat, fixed(outline), light.shade(patch.color, facing, 0.0), cv2.LINE_AA, 4)
    texture = np.zeros((HEIGHT, WIDTH), np.float32)
    for octaves, per_m, depth in (((0, 1), 60.0, 0.05), ((3, 8), 28.0, 0.045), ((12, 16), 9.0, 0.05)):
        tile = _noise(rng, octaves)
        maps = [((axis * per_m) % _TILE).astype(np.float32) for axis in (world_x, world_y)]
        layer = np.float32(cv2.remap(tile, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))
        # Grain finer than a pixel averages out: fade it with the size that a pixel covers on the ground.
        texture += depth * layer / (1 + (np.minimum(reach, 1e4) * per_m / camera.focal_px / 2) ** 2).astype(np.float32)
    clear = np.exp(-np.minimum(reach, 1e4) / 260.0)[..., None]
    shaded = flat * (1 + texture[..., None]) * clear + light.haze * 255 * (1 - clear)
    picture[below] = np.clip(shaded[below], 0, 255).astype(np.uint8)


def _house(picture: Pixels, house: Building, camera: Camera, light: Light, rng: np.random.Generator) -> None:
    (x0, y0), (x1, y1) = house.low, house.high
    walls = [((x0, y0), (x1, y0), (0.0, -1.0)), ((x1, y0), (x1, y1), (1.0, 0.0)), ((x0, y1), (x0, y0), (-1.0, 0.0))]
    tone = rng.uniform(0.55, 1.1)
    ground_floor = (house.color[0] * tone * rng.uniform(0.8, 1.0), house.color[1] * tone, house.color[2] * tone)
    for start, end, normal in walls:
        if (camera.position[0] - start[0]) * normal[0] + (camera.position[1] - start[1]) * normal[1] <= 0:
            continue
        facing = float(np.array((*normal, 0.0)) @ light.to_sun)
        corners = _Wall(start, end, camera)
        depth = corners.depth
        _quad(picture, corners, (0, 1), (0, house.height), light.shade(house.color, facing, depth))
        _quad(picture, corners, (0, 1), (0, 3.2), light.shade(ground_floor, facing, depth))
        _quad(picture, corners, (0, 1), (house.height - 0.4, house.height), light.shade((0.3, 0.3, 0.3), facing, depth))
        _windows(picture, corners, house, light, facing, rng)


class _Wall:
    """A wall's plane: a share of its width and a height in metres become a world point."""

    def __init__(self, start: tuple[float, float], end: tuple[float, float], camera: Camera) -> None:
        self.start, self.end, self.camera = np.array(start), np.array(end), camera
        self.width = float(np.hypot(*(self.end - self.start)))
        self.depth = float(np.hypot(*((self.start + self.end) / 2 - np.array(camera.position[:2]))))

    def quad(self, along: tuple[float, float], up: tuple[float, float]) -> Floats:
        ring = ((along[0], up[0]), (along[1], up[0]), (along[1], up[1]), (along[0], up[1]))
        return np.array([(*(self.start + share * (self.end - self.start)), height) for share, height in ring])


def _quad(picture: Pixels, wall: _Wall, along: tuple[float, float], up: tuple[float, float], color: Color) -> None:
    outline = wall.camera.polygon(wall.quad(along, up))
    if len(outline) > 2:
        cv2.fillConvexPoly(picture, fixed(outline), color, cv2.LINE_AA, 4)


def _windows(
    picture: Pixels, wall: _Wall, house: Building, light: Light, facing: float, rng: np.random.Generator
) -> None:
    columns = max(1, int(wall.width / rng.uniform(2.2, 3.4)))
    wide = rng.uniform(0.35, 0.6)
    frame = light.shade((0.8, 0.8, 0.8), facing, wall.depth)
    for floor in range(int((house.height - 0.8) / 3.0)):
        base = 0.5 if floor == 0 else floor * 3.0 + 0.9
        top = base + (2.2 if floor == 0 else 1.5)
        for column in range(columns):
            middle = (column + 0.5) / columns
            lit = light.dusk and rng.uniform() < 0.35
            tone = rng.uniform(0.7, 1.3)
            glass: Color = (0.36 * tone, 0.31 * tone, 0.26 * tone)
            color = (90.0 * tone, 170.0 * tone, 205.0 * tone) if lit else light.shade(glass, 0.3, wall.depth)
            reach = wide / columns
            _quad(picture, wall, (middle - reach * 0.56, middle + reach * 0.56), (base - 0.1, top + 0.1), frame)
            _quad(picture, wall, (middle - reach * 0.5, middle + reach * 0.5), (base, top), color)
