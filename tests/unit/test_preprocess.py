"""Pixels against swscale's and against the formulas, in every layout, matrix, range, turn and size."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.preprocess import _scale, letterbox_into, to_bgr
from streamproc.types import ColorMatrix, Letterbox, Picture, PixelLayout, Rotation, UInt8Array
from tests.pictures import make_picture

layouts = pytest.mark.parametrize("layout", get_args(PixelLayout))
matrices = pytest.mark.parametrize("matrix", get_args(ColorMatrix))
ranges = pytest.mark.parametrize("full_range", [False, True])
rotations = pytest.mark.parametrize("rotation", get_args(Rotation))

CLOSE = 0.6  # levels of 255, on average
SWSCALE = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": 9}


def scene(width: int, height: int, *, full_range: bool) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """Smooth, colourful planes with an edge in the luma: what a camera might see."""
    low, high = (0, 255) if full_range else (16, 235)
    y, x = np.mgrid[0:height, 0:width]
    luma = (low + high) / 2 + (high - low) / 2.6 * np.sin(x / 37) * np.cos(y / 23)
    luma[height // 3 : height // 2, width // 3 : width // 2] = high - 8
    v, u = np.mgrid[0 : (height + 1) // 2, 0 : (width + 1) // 2]
    return (
        np.clip(luma, low, high).astype(np.uint8),
        (128 + 45 * np.sin(u / 31)).astype(np.uint8),
        (128 + 45 * np.cos(v / 29)).astype(np.uint8),
    )


def by_swscale(picture: Picture) -> UInt8Array:
    """The picture as stored, full size, in RGB, converted by FFmpeg."""
    width, height = picture.stored_size
    y, u, v = picture.planes
    frame = VideoFrame(width, height, "yuv420p")
    for plane, values in zip(frame.planes, (y, u, v), strict=True):
        padded = np.zeros((plane.height, plane.line_size), dtype=np.uint8)
        padded[:, : values.shape[1]] = values
        plane.update(padded.tobytes())
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=SWSCALE[picture.matrix],
        dst_colorspace=SWSCALE[picture.matrix],
        src_color_range=2 if picture.full_range else 1,
        dst_color_range=2,
        interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
    )
    return converted.to_ndarray().astype(np.uint8, copy=False)


def upright(rgb: UInt8Array, rotation: Rotation) -> UInt8Array:
    return np.ascontiguousarray(np.rot90(rgb, -rotation // 90))


def by_formula(y: float, u: float, v: float, matrix: ColorMatrix, full_range: bool) -> list[int]:
    """One pixel by the textbook: ITU-R BT.601, BT.709 and BT.2020, without any matrix algebra."""
    red_weight, blue_weight = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[matrix]
    luma = y / 255 if full_range else (y - 16) / 219
    blue_difference, red_difference = ((value - 128) / (255 if full_range else 224) for value in (u, v))
    red = luma + 2 * (1 - red_weight) * red_difference
    blue = luma + 2 * (1 - blue_weight) * blue_difference
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return [round(min(max(channel, 0), 1) * 255) for channel in (red, green, blue)]


@layouts
@matrices
@ranges
@pytest.mark.parametrize(
    "yuv", [(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110), (0, 0, 0), (255, 255, 255)]
)
def test_single_colours_follow_the_standards(
    layout: PixelLayout, matrix: ColorMatrix, full_range: bool, yuv: tuple[int, int, int]
) -> None:
    planes = (np.full((8, 8), yuv[0], np.uint8), *(np.full((4, 4), value, np.uint8) for value in yuv[1:]))
    picture = make_picture(*planes, layout=layout, matrix=matrix, full_range=full_range)
    row = np.zeros((32, 32, 3), dtype=np.uint8)
    letterbox_into(picture, row)
    expected = by_formula(*yuv, matrix, full_range)
    np.testing.assert_allclose(row.reshape(-1, 3), [expected] * 1024, atol=1)
    np.testing.assert_allclose(to_bgr(picture).reshape(-1, 3), [expected[::-1]] * 64, atol=1)


@layouts
@matrices
@ranges
@rotations
def test_agrees_with_swscale(layout: PixelLayout, matrix: ColorMatrix, full_range: bool, rotation: Rotation) -> None:
    y, u, v = scene(640, 360, full_range=full_range)
    plain = make_picture(y, u, v, matrix=matrix, full_range=full_range)
    picture = make_picture(y, u, v, layout=layout, rotation=rotation, matrix=matrix, full_range=full_range)
    reference = upright(by_swscale(plain), rotation)

    bgr = to_bgr(picture)
    assert bgr.shape == reference.shape
    assert np.abs(bgr[..., ::-1].astype(int) - reference).mean() < CLOSE

    row = np.zeros((320, 320, 3), dtype=np.uint8)
    letterbox = letterbox_into(picture, row)
    expected = np.full((320, 320, 3), 114, dtype=np.uint8)
    (width, height), (left, top) = letterbox.inner, letterbox.pad
    expected[top : top + height, left : left + width] = cv2.resize(reference, letterbox.inner)
    assert np.abs(row.astype(int) - expected).mean() < CLOSE


@settings(max_examples=150, deadline=None)
@given(
    width=st.one_of(st.integers(1, 40), st.integers(1, 2000)),
    height=st.one_of(st.integers(1, 40), st.integers(1, 300)),
    target=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    layout=st.sampled_from(get_args(PixelLayout)),
    rotation=st.sampled_from(get_args(Rotation)),
    gap=st.integers(0, 65),
)
def test_any_size_fills_its_row_and_nothing_else(
    width: int, height: int, target: tuple[int, int], layout: PixelLayout, rotation: Rotation, gap: int
) -> None:
    half = ((height + 1) // 2, (width + 1) // 2)
    planes = [
        np.full((rows, columns + gap), value, dtype=np.uint8)[:, :columns]
        for (rows, columns), value in (((height, width), 81), (half, 90), (half, 240))
    ]
    for plane in planes:
        plane.setflags(write=False)
    picture = make_picture(planes[0], planes[1], planes[2], layout=layout, rotation=rotation)
    slot = np.full((3, 32 * target[1], 32 * target[0], 3), 7, dtype=np.uint8)
    letterbox = letterbox_into(picture, slot[1])
    assert letterbox == Letterbox.fit(picture.size, (32 * target[0], 32 * target[1]))
    (inner_width, inner_height), (left, top) = letterbox.inner, letterbox.pad
    expected = np.full_like(slot[1], 114)
    expected[top : top + inner_height, left : left + inner_width] = by_formula(81, 90, 240, "bt601", False)
    np.testing.assert_allclose(slot[1], expected, atol=1)
    assert (slot[0] == 7).all()
    assert (slot[2] == 7).all()
    assert to_bgr(picture).shape == (*picture.size[::-1], 3)


@rotations
def test_the_corner_that_is_up_stays_up(rotation: Rotation) -> None:
    y: UInt8Array = np.full((8, 16), 235, dtype=np.uint8)
    y[:4, :8] = 16  # dark at the stored picture's top left
    grey: UInt8Array = np.full((4, 8), 128, dtype=np.uint8)
    picture = make_picture(y, grey, grey, rotation=rotation)
    width, height = picture.size
    row = np.zeros((height * 4, width * 4, 3), dtype=np.uint8)
    letterbox_into(picture, row)
    for image in (row, to_bgr(picture)):
        corners = {0: image[0, 0], 90: image[0, -1], 180: image[-1, -1], 270: image[-1, 0]}
        assert {turn: int(pixel[0]) for turn, pixel in corners.items()} == {
            turn: 0 if turn == rotation else 255 for turn in corners
        }


@ranges
def test_the_oracle_tells_matrices_and_ranges_apart(full_range: bool) -> None:
    y, u, v = scene(640, 360, full_range=full_range)
    reference = by_swscale(make_picture(y, u, v, matrix="bt709", full_range=full_range)).astype(int)
    for matrix, other_range in (("bt601", full_range), ("bt2020", full_range), ("bt709", not full_range)):
        wrong = make_picture(y, u, v, matrix=matrix, full_range=other_range)  # type: ignore[arg-type]  # literals
        assert np.abs(to_bgr(wrong)[..., ::-1] - reference).mean() > CLOSE + 0.5, (matrix, other_range)


def test_bgr_belongs_to_the_caller() -> None:
    y, u, v = scene(64, 48, full_range=False)
    picture = make_picture(y, u, v)
    first = to_bgr(picture)
    first[:] = 0
    assert to_bgr(picture).any()
    assert y.any()


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("samples", [(), (2,)])
def test_whole_steps_are_bilinear_to_the_bit(step: int, samples: tuple[int, ...]) -> None:
    noise = np.random.default_rng(5)
    plane: UInt8Array = noise.integers(0, 256, (step * 12, step * 20 + 7, *samples), np.uint8)[:, : step * 20]
    scaled = np.zeros((12, 20, *samples), np.uint8)
    _scale(plane, scaled)
    np.testing.assert_array_equal(scaled, cv2.resize(plane, (20, 12), interpolation=cv2.INTER_LINEAR))
