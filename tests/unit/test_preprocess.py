"""Pixels against swscale's and against the formulas, in every layout, matrix, range, turn and size."""

from __future__ import annotations

import re
from typing import get_args

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.preprocess import crop_into, letterbox_into, to_bgr, warp_into
from streamproc.sampling import scale_plane
from streamproc.types import ColorMatrix, Fit, Letterbox, Picture, PixelLayout, Rotation, UInt8Array
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
@pytest.mark.parametrize("samples", [(), (2,), (3,)])
def test_whole_steps_are_bilinear_to_the_bit(step: int, samples: tuple[int, ...]) -> None:
    noise = np.random.default_rng(5)
    plane: UInt8Array = noise.integers(0, 256, (step * 12, step * 20 + 7, *samples), np.uint8)[:, : step * 20]
    scaled = np.zeros((12, 20, *samples), np.uint8)
    scale_plane(plane, scaled)
    np.testing.assert_array_equal(scaled, cv2.resize(plane, (20, 12), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(
    ("fit", "inner", "pad"),
    [("letterbox", (64, 36), (0, 14)), ("top_left", (64, 36), (0, 0)), ("stretch", (64, 64), (0, 0))],
)
@rotations
def test_every_fit(fit: Fit, inner: tuple[int, int], pad: tuple[int, int], rotation: Rotation) -> None:
    y, u, v = scene(320, 180, full_range=False)
    picture = make_picture(y, u, v, rotation=rotation)
    if rotation in (90, 270):
        inner, pad = inner[::-1], pad[::-1]
    row = np.zeros((64, 64, 3), dtype=np.uint8)
    letterbox = letterbox_into(picture, row, fit=fit)
    assert (letterbox.inner, letterbox.pad) == (inner, pad)
    (width, height), (left, top) = inner, pad
    expected = np.full_like(row, 114)
    expected[top : top + height, left : left + width] = cv2.resize(to_bgr(picture)[..., ::-1], inner)
    assert np.abs(row.astype(int) - expected).mean() < 2 * CLOSE  # at a fifth of the size, the edge counts for more
    corners = np.array([[left, top, left + width, top + height]], dtype=np.float32)
    np.testing.assert_allclose(letterbox.to_source(corners), [[0, 0, *picture.size]], atol=1e-3)


def plain_crop(picture: Picture, region: tuple[int, int, int, int], size: tuple[int, int]) -> UInt8Array:
    """By way of a full-size picture, as everybody does it."""
    left, top, right, bottom = region
    rgb = np.ascontiguousarray(to_bgr(picture)[top:bottom, left:right, ::-1])
    return np.asarray(cv2.resize(rgb, size), dtype=np.uint8)


def colourful(width: int, height: int, *, pace: float = 1) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """Planes that change from sample to sample in every channel, though not at random."""
    y, x = pace * np.mgrid[0:height, 0:width]
    v, u = pace * np.mgrid[0 : (height + 1) // 2, 0 : (width + 1) // 2]
    return (
        (128 + 90 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint8),
        (128 + 60 * np.sin(u / 4 + v / 9)).astype(np.uint8),
        (128 + 60 * np.cos(v / 3 - u / 8)).astype(np.uint8),
    )


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(9, 120), st.integers(9, 90)),
    box=st.tuples(*[st.floats(-30, 150)] * 4),
    target=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    layout=st.sampled_from(get_args(PixelLayout)),
    rotation=st.sampled_from(get_args(Rotation)),
    fit=st.sampled_from(get_args(Fit)),
)
def test_crops_are_those_of_the_full_size_picture(
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    target: tuple[int, int],
    layout: PixelLayout,
    rotation: Rotation,
    fit: Fit,
) -> None:
    picture = make_picture(*colourful(*size, pace=0.25), layout=layout, rotation=rotation)
    row = np.full((target[1], target[0], 3), 7, dtype=np.uint8)
    letterbox = crop_into(picture, box, row, fit=fit)
    region = letterbox.region
    assert region is not None
    left, top, right, bottom = region
    assert 0 <= left < right <= picture.size[0]
    assert 0 <= top < bottom <= picture.size[1]
    assert letterbox == Letterbox.fit(picture.size, target, fit, region=region)
    (width, height), (across, down) = letterbox.inner, letterbox.pad
    expected = np.full_like(row, 114)
    expected[down : down + height, across : across + width] = plain_crop(picture, region, letterbox.inner)
    difference = np.abs(row.astype(int) - expected)
    # Chroma is interpolated once here and twice there, and at a crop's edge only there with what lies beside it.
    assert difference.mean() < 2
    assert difference.max() < 10


@pytest.mark.parametrize("layout", get_args(PixelLayout))
@rotations
@pytest.mark.parametrize("left", [20, 21])
@pytest.mark.parametrize("top", [30, 31])
def test_chroma_stays_beside_its_luma(layout: PixelLayout, rotation: Rotation, left: int, top: int) -> None:
    """Half a sample to the side would cost ten times as much, as the next test shows."""
    picture = make_picture(*colourful(320, 240), layout=layout, rotation=rotation)
    row = np.zeros((64, 96, 3), dtype=np.uint8)
    crop_into(picture, (left, top, left + 96, top + 64), row, fit="stretch")
    expected = plain_crop(picture, (left, top, left + 96, top + 64), (96, 64))
    assert np.abs(row.astype(int) - expected)[2:-2, 2:-2].mean() < 0.5


def test_the_full_size_picture_shows_a_shift_of_a_pixel() -> None:
    y, u, v = colourful(320, 240)
    flat = np.full_like(y, 128)
    picture = make_picture(flat, u, v)
    row = np.zeros((64, 96, 3), dtype=np.uint8)
    crop_into(picture, (21, 31, 117, 95), row, fit="stretch")
    right, wrong = (plain_crop(picture, (x, 31, x + 96, 95), (96, 64)) for x in (21, 22))
    assert 5 * np.abs(row.astype(int) - right).mean() < np.abs(row.astype(int) - wrong).mean()


@pytest.mark.parametrize(
    ("box", "region"),
    [
        ((10.2, 20.9, 30.1, 40.0), (10, 20, 31, 40)),
        ((-50, -50, 1000, 1000), (0, 0, 100, 60)),
        ((-9, -9, -5, -5), (0, 0, 1, 1)),
        ((200, 200, 300, 300), (99, 59, 100, 60)),
        ((50, 30, 40, 20), (50, 30, 51, 31)),
        ((50.0, 30.0, 50.0, 30.0), (50, 30, 51, 31)),
    ],
)
def test_crops_at_and_beyond_the_edge(box: tuple[float, ...], region: tuple[int, ...]) -> None:
    picture = make_picture(*colourful(100, 60))
    assert crop_into(picture, box, np.zeros((32, 32, 3), dtype=np.uint8)).region == region


@pytest.mark.parametrize("fit", get_args(Fit))
def test_from_a_crop_back_to_the_picture(fit: Fit) -> None:
    letterbox = Letterbox.fit((1920, 1080), (640, 480), fit, region=(100, 200, 500, 300))
    (width, height), (left, top) = letterbox.inner, letterbox.pad
    boxes = np.array([[left, top, left + width, top + height], [left - 5, top, left, top + height / 2]], np.float32)
    placed = letterbox.to_source(boxes)
    np.testing.assert_allclose(placed[0], [100, 200, 500, 300], atol=1e-3)
    np.testing.assert_allclose(placed[1], [100 - 5 * 400 / width, 200, 100, 250], atol=1e-3)
    np.testing.assert_allclose(letterbox.points_to_source(boxes[:, :2]), placed[:, :2])


CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1))  # of a square, clockwise from its top left


def plain_warp(picture: Picture, corners: NDArray[np.float32], size: tuple[int, int]) -> UInt8Array:
    """By way of a full-size picture; OpenCV counts from the middle of the first pixel."""
    straight = np.array(CORNERS, np.float32) * np.array(size, np.float32)
    matrix = cv2.getPerspectiveTransform(corners - np.float32(0.5), straight - np.float32(0.5))
    rgb = np.ascontiguousarray(to_bgr(picture)[..., ::-1])
    return np.asarray(cv2.warpPerspective(rgb, matrix, size, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8)


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(40, 120), st.integers(40, 90)),
    nudges=st.tuples(*[st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))] * 4),
    target=st.tuples(st.integers(8, 96), st.integers(8, 64)),
    turn=st.integers(0, 3),
    layout=st.sampled_from(get_args(PixelLayout)),
    rotation=st.sampled_from(get_args(Rotation)),
)
def test_what_is_straightened_is_that_of_the_full_size_picture(
    size: tuple[int, int],
    nudges: tuple[tuple[float, float], ...],
    target: tuple[int, int],
    turn: int,
    layout: PixelLayout,
    rotation: Rotation,
) -> None:
    """Corners up to a fifth of the picture within it or beyond it, and any of them at the top left."""
    picture = make_picture(*colourful(*size, pace=0.25), layout=layout, rotation=rotation)
    shares = np.roll(np.array(CORNERS, np.float32), turn, axis=0) + np.array(nudges, np.float32)
    corners = (shares * np.array(picture.size)).astype(np.float32)
    slot = np.full((3, target[1], target[0], 3), 7, dtype=np.uint8)
    warp_into(picture, corners, slot[1])
    difference = np.abs(slot[1].astype(int) - plain_warp(picture, corners, target))
    # As with crops: chroma is interpolated once here and twice there.
    assert difference.mean() < 2
    assert difference.max() < 12
    assert (slot[[0, 2]] == 7).all()


@layouts
@rotations
@pytest.mark.parametrize("left", [20, 21])
def test_a_rectangle_is_straightened_to_its_crop(layout: PixelLayout, rotation: Rotation, left: int) -> None:
    picture = make_picture(*colourful(320, 240), layout=layout, rotation=rotation)
    cropped, straightened = np.zeros((2, 64, 96, 3), dtype=np.uint8)
    crop_into(picture, (left, 31, left + 96, 95), cropped, fit="stretch")
    corners = np.array([left, 31], np.float32) + np.array(CORNERS, np.float32) * np.array([96, 64], np.float32)
    warp_into(picture, corners, straightened)
    assert np.abs(straightened.astype(int) - cropped).max() <= 2


@pytest.mark.parametrize("grey", [True, False])
@rotations
def test_what_was_converted_before_gives_the_same_pixels(grey: bool, rotation: Rotation) -> None:
    """As on a server, which gets pictures in RGB: scaled whole, cut out, and straightened."""
    y, u, v = colourful(640, 360, pace=0.1)
    if grey:
        u, v = np.full_like(u, 128), np.full_like(v, 128)
    yuv, rgb = (make_picture(y, u, v, layout=layout, rotation=rotation) for layout in ("yuv420p", "rgb24"))
    assert rgb.size == yuv.size
    corners = np.array([[30, 40], [170, 60], [160, 120], [20, 90]], np.float32)
    for write in (
        lambda picture, row: letterbox_into(picture, row),
        lambda picture, row: letterbox_into(picture, row, fit="top_left"),
        lambda picture, row: crop_into(picture, (33.3, 21, 190, 117.5), row),
        lambda picture, row: warp_into(picture, corners, row),
    ):
        rows = np.zeros((2, 96, 160, 3), np.uint8)
        told = [write(picture, row) for picture, row in zip((yuv, rgb), rows, strict=True)]
        assert told[0] == told[1]
        difference = np.abs(rows[0].astype(int) - rows[1])
        # Scaled chroma is rounded to a whole step, and one makes two levels of blue.
        assert difference.max() <= (2 if grey else 3)
        assert difference.mean() < 0.5
    np.testing.assert_array_equal(to_bgr(rgb), to_bgr(yuv))


@pytest.mark.parametrize(
    ("length", "fit", "place"),
    [
        (120, "stretch", (0, 0, 96, 24)),
        (60, "top_left", (0, 0, 72, 24)),
        (60, "letterbox", (12, 0, 84, 24)),
        (120, "top_left", (0, 0, 96, 16)),  # longer than the target: the whole of it, lower
        (120, "letterbox", (0, 4, 96, 20)),
    ],
)
def test_what_is_straightened_may_keep_its_shape(length: int, fit: Fit, place: tuple[int, int, int, int]) -> None:
    """A line of 20 pixels height, which rises steeply."""
    picture = make_picture(*colourful(320, 240))
    right, down = np.array([0.6, -0.8], np.float32), np.array([0.8, 0.6], np.float32)
    ends = np.array(CORNERS, np.float32) * np.array([length, 20], np.float32)
    corners = np.array([100, 180], np.float32) + ends[:, :1] * right + ends[:, 1:] * down
    target, alone = np.zeros((24, 96, 3), np.uint8), np.zeros((place[3] - place[1], place[2] - place[0], 3), np.uint8)
    warp_into(picture, corners, target, fit=fit)
    warp_into(picture, corners, alone)
    inner = target[place[1] : place[3], place[0] : place[2]]
    np.testing.assert_array_equal(inner, alone)
    inner[:] = 114
    assert (target == 114).all()


@pytest.mark.parametrize(
    ("layout", "shapes", "expected"),
    [
        ("yuv420p", [(4, 6), (2, 3)], "((4, 6), (2, 3), (2, 3))"),
        ("nv12", [(5, 7), (2, 3, 2)], "((5, 7), (3, 4, 2))"),
        ("rgb24", [(4, 6)], "((4, 6, 3),)"),
        ("rgb24", [(4, 6, 4)], "((4, 6, 3),)"),
        ("rgb24", [(4, 6, 3), (2, 3)], "((4, 6, 3),)"),
    ],
)
def test_planes_of_another_shape_are_refused(layout: PixelLayout, shapes: list[tuple[int, ...]], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{layout} planes: expected shapes {expected}, got {(*shapes,)}")):
        Picture(planes=tuple(np.zeros(shape, np.uint8) for shape in shapes), layout=layout)
