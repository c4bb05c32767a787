"""Pictures packed into rows of a tensor and taken out again: the same samples, whatever they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.packing import pack_into, packed_shape, unpack
from streamproc.preprocess import to_bgr
from streamproc.types import Picture, PixelLayout, Rotation, UInt8Array
from tests.pictures import make_picture

SIZE = (64, 48)


def row(fill: int = 255) -> UInt8Array:
    return np.full(packed_shape(SIZE), fill, np.uint8)


def noise(size: tuple[int, int], **keys: Any) -> Picture:
    """A picture of ``size`` (width, height) as stored."""
    width, height = size
    generator = np.random.default_rng(5)
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (generator.integers(16, 236, shape, np.uint8) for shape in ((height, width), half, half))
    return make_picture(y, u, v, **keys)


@pytest.mark.parametrize("layout", ["yuv420p", "nv12", "rgb24"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (31, 17), (90, 34), (2, 2)])
def test_what_has_room_comes_out_as_it_went_in(layout: PixelLayout, rotation: Rotation, size: tuple[int, int]) -> None:
    if layout == "rgb24":
        size = (max(2, size[0] // 2 - 1), size[1])
    picture = noise(size, layout=layout, rotation=rotation, matrix="bt709", full_range=True)
    packed = row()
    letterbox = pack_into(picture, packed)
    out = unpack(packed)
    told = ("layout", "rotation", "matrix", "full_range")
    assert [getattr(out, name) for name in told] == [getattr(picture, name) for name in told]
    for plane, original in zip(out.planes, picture.planes, strict=True):
        np.testing.assert_array_equal(plane, original)
        assert np.shares_memory(plane, packed)
    assert (letterbox.source, letterbox.inner, letterbox.pad) == (picture.size, out.size, (0, 0))


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("size", [(128, 96), (1000, 30), (66, 48)])
def test_what_is_too_large_is_scaled(size: tuple[int, int], rotation: Rotation) -> None:
    picture = noise(size, rotation=rotation)
    packed = row()
    letterbox = pack_into(picture, packed)
    out = unpack(packed)
    assert 0.8 * packed[1:].size <= sum(plane.size for plane in out.planes) <= packed[1:].size
    assert out.size[0] / out.size[1] == pytest.approx(picture.size[0] / picture.size[1], rel=0.3)
    corner = np.array([[0, 0, *out.size]], dtype=np.float32)
    np.testing.assert_allclose(letterbox.to_source(corner), [[0, 0, *picture.size]], rtol=1e-6)
    assert abs(float(to_bgr(out).mean()) - float(to_bgr(picture).mean())) < 8


def test_a_row_of_zeros_is_a_black_picture() -> None:
    assert not to_bgr(unpack(row(0))).any()


@given(st.binary(min_size=8, max_size=8))
def test_any_first_line_gives_a_picture_or_an_error(said: bytes) -> None:
    packed = row(7)
    packed[0].reshape(-1)[:8] = np.frombuffer(said, np.uint8)
    try:
        picture = unpack(packed)
    except ValueError:
        return
    assert to_bgr(picture).size


def test_a_first_line_that_says_nonsense_is_told() -> None:
    packed = row()
    expected = (
        r"65535x65535, layout 255, 255 quarter turns, matrix 255: .* 4 turns and 3 matrices, and at most 4608 samples"
    )
    with pytest.raises(ValueError, match=expected):
        unpack(packed)
