"""How a box moves: a Kalman filter of its corners, in seconds and in box sizes.

Continuous white acceleration (Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation",
2001, section 6.2.2), so that one step of 80 ms leaves exactly the uncertainty of two of 40 ms; and all noise is in
proportion to the box, so that one near the camera moves like one far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["BoxFilter"]

# In units of a box's side (the root of its area) and seconds. Only ratios matter; a person in view is about 1.1 m by
# that measure, so walks at 1.3 sides a second.
_DETECTION_SIGMA: Final = 0.06
_SPEED_SIGMA: Final = 1.0
_RESIZE_SPEED_SIGMA: Final = 0.3
_ACCELERATION: Final = 0.2  # side / s^1.5, the root of the spectral density
_RESIZE_ACCELERATION: Final = 0.1

# The same for the two combinations of opposite corners that do not influence each other, (x1 + x2) / √2 of a box that
# moves and (x2 - x1) / √2 of one that grows: variance of the speed, and density of the acceleration.
_MOVE: Final = (2 * _SPEED_SIGMA**2, 2 * _ACCELERATION**2)
_RESIZE: Final = (_RESIZE_SPEED_SIGMA**2 / 2, _RESIZE_ACCELERATION**2 / 2)

_LEAST_SIDE_PX: Final = 1.0


class _Mode:
    """The covariance of one combination of opposite corners and its speed; the same along x and y."""

    __slots__ = ("both", "density", "position", "speed")

    def __init__(self, position: float, speed: float, density: float) -> None:
        self.position = position
        self.both = 0.0
        self.speed = speed
        self.density = density

    def predict(self, step_s: float, area: float) -> None:
        noise = area * self.density * step_s
        self.position += step_s * (2 * self.both + step_s * self.speed) + noise * step_s * step_s / 3
        self.both += step_s * self.speed + noise * step_s / 2
        self.speed += noise

    def update(self, noise: float) -> tuple[float, float]:
        """Take in an observation of this variance; how far position and speed follow it."""
        innovation = self.position + noise
        gain, speed_gain = self.position / innovation, self.both / innovation
        self.speed -= speed_gain * self.both
        self.both -= gain * self.both
        self.position *= noise / innovation
        return gain, speed_gain

    def copy(self) -> _Mode:
        mode = _Mode(self.position, self.speed, self.density)
        mode.both = self.both
        return mode


class BoxFilter:
    """One box: where its corners are and how fast they move, as far as noisy observations tell.

    A state of 8 with a covariance of 8 by 8, in general. Here x and y do not influence each other and are equally
    uncertain, and neither do moving and growing influence each other, so that two covariances of 2 by 2 say it all.
    In plain numbers that takes 2 µs a step and 4 an observation, where matrices took 15 and 45.

    Args:
        box: the first observation, x1, y1, x2, y2.
        doubt: by what factors the first variances, of position and of speed, exceed those of an observation as any
            other and of a usual speed.

    Attributes:
        corners: x1, y1, x2, y2 in pixels.
        speeds: theirs, in pixels a second.
    """

    def __init__(self, box: Sequence[float], doubt: tuple[float, float] = (1.0, 1.0)) -> None:
        self.corners = list(box)
        self.speeds = [0.0] * 4
        self.observe_size(box)
        position, speed = self.noise * doubt[0], self._area * doubt[1]
        self._move, self._resize = (
            _Mode(position, speed * variance, density) for variance, density in (_MOVE, _RESIZE)
        )

    @property
    def noise(self) -> float:
        """The variance of each corner in a detection as large as the last one, in square pixels."""
        return self._area * _DETECTION_SIGMA**2

    def observe_size(self, box: Sequence[float]) -> None:
        """Noise, from now on, is in proportion to this box."""
        x1, y1, x2, y2 = box
        self._area = max((x2 - x1) * (y2 - y1), 1.0)

    def predict(self, step_s: float) -> None:
        """Move on by ``step_s`` seconds; a box that would shrink to nothing stays one pixel wide and high."""
        x1, y1, x2, y2 = self.corners
        vx1, vy1, vx2, vy2 = self.speeds
        x1, x2 = _apart(x1 + step_s * vx1, x2 + step_s * vx2)
        y1, y2 = _apart(y1 + step_s * vy1, y2 + step_s * vy2)
        self.corners = [x1, y1, x2, y2]
        self._move.predict(step_s, self._area)
        self._resize.predict(step_s, self._area)

    def correct(self, box: Sequence[float]) -> None:
        """Take in an observed box."""
        move, move_speed = self._move.update(self.noise)
        resize, resize_speed = self._resize.update(self.noise)
        # How far a corner follows what was seen of itself, and of the one opposite.
        own, opposite = (move + resize) / 2, (move - resize) / 2
        own_speed, opposite_speed = (move_speed + resize_speed) / 2, (move_speed - resize_speed) / 2
        corners, speeds = self.corners, self.speeds
        dx1, dy1, dx2, dy2 = (seen - corner for seen, corner in zip(box, corners, strict=True))
        steps = ((dx1, dx2), (dy1, dy2), (dx2, dx1), (dy2, dy1))
        self.corners = [c + own * d + opposite * e for c, (d, e) in zip(corners, steps, strict=True)]
        self.speeds = [v + own_speed * d + opposite_speed * e for v, (d, e) in zip(speeds, steps, strict=True)]

    def copy(self) -> BoxFilter:
        """What it knows now; the filter goes on by itself."""
        other = BoxFilter.__new__(type(self))
        other.corners, other.speeds, other._area = self.corners, self.speeds, self._area  # replaced, never changed
        other._move, other._resize = self._move.copy(), self._resize.copy()
        return other


def _apart(low: float, high: float) -> tuple[float, float]:
    """Two opposite sides, a pixel or more from each other."""
    if high - low >= _LEAST_SIDE_PX:
        return low, high
    middle = (low + high) / 2
    return middle - _LEAST_SIDE_PX / 2, middle + _LEAST_SIDE_PX / 2
