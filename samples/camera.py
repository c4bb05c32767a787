"""The pinhole camera of a rendered street."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEIGHT", "NEAR_M", "WIDTH", "Camera", "Floats"]

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 1280, 720
NEAR_M = 0.8
"""Nothing closer than this is drawn, in metres along the optical axis."""


# The near plane and four sides well outside every lens's view: normals (right, down, ahead) and offsets.
_PYRAMID = (
    (np.array((0.0, 0.0, 1.0)), NEAR_M),
    *((np.array((x, y, 1.6)), 0.0) for x, y in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))),
)


def _cut(polygon: Floats, height: Floats) -> Floats:
    """The part of a polygon (N, 3) whose corners lie at or above 0 (Sutherland and Hodgman 1974)."""
    if not (height < 0).any():
        return polygon
    kept: list[Floats] = []
    for index in range(len(polygon)):
        after = (index + 1) % len(polygon)
        if height[index] >= 0:
            kept.append(polygon[index])
        if (height[index] >= 0) != (height[after] >= 0):
            share = height[index] / (height[index] - height[after])
            kept.append(polygon[index] + share * (polygon[after] - polygon[index]))
    return np.array(kept).reshape(-1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Position in metres (x right, y ahead, z up), yaw and downward pitch in degrees, focal length in pixels."""

    position: tuple[float, float, float]
    yaw_deg: float
    pitch_deg: float
    focal_px: float
    _axes: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        yaw, pitch = np.radians((self.yaw_deg, self.pitch_deg))
        ahead = np.array((np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), -np.sin(pitch)))
        right = np.array((np.cos(yaw), -np.sin(yaw), 0.0))
        object.__setattr__(self, "_axes", np.stack((right, np.cross(ahead, right), ahead)))

    def local(self, points: Floats) -> Floats:
        """World points (N, 3) in camera axes: right, down, ahead."""
        local: Floats = (points - np.array(self.position)) @ self._axes.T
        return local

    def pixels(self, local: Floats) -> Floats:
        """Camera-axes points (N, 3), all ahead of the camera, as pixels (N, 2)."""
        return local[:, :2] * (self.focal_px / local[:, 2:]) + (WIDTH / 2, HEIGHT / 2)

    def polygon(self, points: Floats) -> Floats:
        """Pixels (M, 2) of a flat world polygon (N, 3) cut to a pyramid around the view; M is 0 when all is outside."""
        local = self.local(points)
        for plane, offset in _PYRAMID:
            local = _cut(local, local @ plane - offset)
        return self.pixels(local)

    def ground(self, xs: Floats, ys: Floats) -> tuple[Floats, Floats, Floats]:
        """Where the rays through pixels meet the ground: x, y and distance in metres, infinite above the horizon."""
        rays = np.stack(((xs - WIDTH / 2) / self.focal_px, (ys - HEIGHT / 2) / self.focal_px, np.ones_like(xs)), -1)
        world = rays @ self._axes
        with np.errstate(divide="ignore"):
            reach = np.where(world[..., 2] < -1e-6, -self.position[2] / world[..., 2], np.inf)
        far = np.minimum(reach, 1e5)
        return self.position[0] + far * world[..., 0], self.position[1] + far * world[..., 1], reach

    def sideways(self, direction: Floats) -> Floats:
        """A world direction (3,) as the unit step (2,) it makes in the picture, for shading."""
        step: Floats = (self._axes @ direction)[:2]
        return step / max(float(np.linalg.norm(step)), 1e-6)
