"""Training pictures: frames of many seeds and camera poses, letterboxed as the pipeline does, and their crops."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.layout import PLACES
from samples.world import World

__all__ = ["INPUT_HEIGHT", "INPUT_WIDTH", "Picture", "crop", "letterbox", "load", "render", "save"]

Pixels = NDArray[np.uint8]
Floats32 = NDArray[np.float32]

INPUT_WIDTH, INPUT_HEIGHT = 640, 384
_PAD = 12  # grey rows above and below a 1280x720 frame at half its size
_GREY = 114
_FRAMES_A_WORLD = 8
_STEP = 24  # a second between the frames of one world, so that they differ


@dataclass(frozen=True, slots=True)
class Picture:
    """A letterboxed frame (384, 640, 3) uint8 BGR with rows (N, 6) float32: class, xyxy in its pixels, visibility."""

    pixels: Pixels
    objects: Floats32


def letterbox(frame: Pixels, interpolation: int = cv2.INTER_LINEAR) -> Pixels:
    """A 1280x720 frame at half its size with 12 grey rows above and below."""
    half = cv2.resize(frame, (INPUT_WIDTH, INPUT_HEIGHT - 2 * _PAD), interpolation=interpolation)
    return cv2.copyMakeBorder(half, _PAD, _PAD, 0, 0, cv2.BORDER_CONSTANT, value=(_GREY,) * 3).astype(np.uint8)


def render(seeds: Sequence[int], processes: int) -> list[Picture]:
    """Eight frames of one place a seed, at a camera pose of that seed, each through lossy compression."""
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        return [picture for pictures in pool.map(_world, seeds, chunksize=2) for picture in pictures]


def _world(seed: int) -> list[Picture]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    world = World(sorted(PLACES)[seed % len(PLACES)], seed, _FRAMES_A_WORLD * _STEP, vary=bool(rng.uniform() < 0.85))
    pictures: list[Picture] = []
    for index in range(_FRAMES_A_WORLD):
        frame, truth = world.render(index * _STEP + int(rng.integers(_STEP)))
        quality = int(rng.integers(45, 96))
        frame = _compressed(frame, quality)
        interpolation = (cv2.INTER_LINEAR, cv2.INTER_AREA)[rng.integers(2)]
        rows = [(one.class_id, *(side / 2 for side in one.box), one.visibility) for one in truth]
        objects = np.array(rows, np.float32).reshape(-1, 6)
        objects[:, [2, 4]] += _PAD
        pictures.append(Picture(letterbox(frame, interpolation), objects))
    return pictures


def save(pictures: Sequence[Picture], path: Path) -> None:
    """Keeps rendered pictures in an uncompressed .npz file, about 0.7 MB each."""
    counts = np.array([len(one.objects) for one in pictures])
    objects = np.concatenate([one.objects for one in pictures])
    np.savez(path, pixels=np.stack([one.pixels for one in pictures]), objects=objects, counts=counts)


def load(path: Path) -> list[Picture]:
    """Reads what `save` wrote."""
    with np.load(path) as stored:
        pixels, objects, ends = stored["pixels"], stored["objects"], np.cumsum(stored["counts"])
    return [Picture(one, rows) for one, rows in zip(pixels, np.split(objects, ends[:-1]), strict=True)]


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    _, packed = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded a line above
    return decoded.astype(np.uint8)


def crop(picture: Picture, size: tuple[int, int], zoom: tuple[float, float], rng: np.random.Generator) -> Picture:
    """A random part of a picture, (height, width) as asked, scaled by `zoom`, maybe mirrored, its colours changed.

    Visibility falls with the share of a box that the part leaves out.
    """
    height, width = size
    scale = float(np.exp(rng.uniform(*np.log(zoom))))
    flip = -1.0 if rng.uniform() < 0.5 else 1.0
    x, y = _aim(picture, size, scale, rng)
    matrix = np.array(((flip * scale, 0, width / 2 - flip * scale * x), (0, scale, height / 2 - scale * y)))
    pixels = cv2.warpAffine(picture.pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(_GREY,) * 3)
    objects = picture.objects.copy()
    objects[:, 1:5:2] = objects[:, 1:5:2] * flip * scale + matrix[0, 2]
    objects[:, 2:5:2] = objects[:, 2:5:2] * scale + matrix[1, 2]
    if flip < 0:
        objects[:, [1, 3]] = objects[:, [3, 1]]
    area = np.maximum((objects[:, 3:5] - objects[:, 1:3]).prod(1), 1e-6)
    objects[:, 1:5] = np.clip(objects[:, 1:5], 0, (width, height, width, height))
    sides = objects[:, 3:5] - objects[:, 1:3]
    objects[:, 5] *= sides.prod(1) / area
    pixels = _colors(pixels.astype(np.uint8), rng)
    edges = np.array(((0, _PAD), (INPUT_WIDTH, INPUT_HEIGHT - _PAD))) * (flip * scale, scale) + matrix[:, 2]
    (left, right), (top, bottom) = (np.clip(np.round(np.sort(axis)), 0, (width, height)[n]).astype(int)
                                    for n, axis in enumerate(edges.T))  # fmt: skip
    for outside in (pixels[:top], pixels[bottom:], pixels[:, :left], pixels[:, right:]):
        outside[:] = _GREY  # the pipeline's padding has one grey, whatever the light
    return Picture(pixels, objects[sides.min(1) > 1])


def _aim(picture: Picture, size: tuple[int, int], scale: float, rng: np.random.Generator) -> tuple[float, float]:
    """Centre of a crop in the picture's pixels, near one of its objects where there is one, inside the picture."""
    whole = np.array((INPUT_WIDTH, INPUT_HEIGHT), np.float64)
    half = np.minimum(np.array(size[::-1]) / scale, whole) / 2
    centre = rng.uniform(0, whole)
    if len(picture.objects) and rng.uniform() < 0.85:
        box = picture.objects[rng.integers(len(picture.objects)), 1:5]
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-half, half) * 0.7
    x, y = np.clip(centre, half, whole - half)
    return float(x), float(y)


def _colors(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    if rng.uniform() < 0.15:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + rng.integers(-8, 9)) % 180
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).astype(np.uint8)
    ramp = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.75, 1.35)
    gains = rng.uniform(0.75, 1.2) * rng.uniform(0.94, 1.06, 3)
    table = np.clip((ramp * gains + rng.uniform(-0.04, 0.04)) * 255, 0, 255).astype(np.uint8)
    pixels = cv2.LUT(pixels, table[:, None, :]).astype(np.uint8)
    kind = rng.uniform()
    if kind < 0.2:
        return cv2.GaussianBlur(pixels, (3, 3), float(rng.uniform(0.4, 0.9))).astype(np.uint8)
    if kind < 0.4:
        noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(1, 6))
        return np.clip(pixels + noise, 0, 255).astype(np.uint8)
    if kind < 0.6:
        return _compressed(pixels, int(rng.integers(40, 90)))
    return pixels
