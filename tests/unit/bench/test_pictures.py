"""The picture that clients start from: one and the same in both forms."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from streamproc.bench.pictures import DecodedPicture, drawn_picture, read_picture
from streamproc.errors import ConfigError


def smooth(height: int, width: int) -> np.ndarray:
    """Colours that change slowly, which 4:2:0 keeps."""
    down, across = np.mgrid[0:height, 0:width]
    return np.dstack([50 + down, 60 + across, 200 - down]).astype(np.uint8)


def test_both_forms_show_the_same(tmp_path: Path) -> None:
    bgr = smooth(64, 96)
    path = tmp_path / "smooth.png"
    cv2.imwrite(str(path), bgr)
    picture = read_picture(path)
    assert picture.name == "smooth.png"
    assert picture.yuv.size == (96, 64)
    assert picture.bgr.shape == (64, 96, 3)
    assert np.abs(picture.bgr.astype(int) - bgr).max() <= 4


def test_odd_sides_lose_their_last_line() -> None:
    assert DecodedPicture.of("odd", smooth(33, 65)).yuv.size == (64, 32)


def test_the_drawn_picture_is_always_the_same() -> None:
    one, other = drawn_picture(), drawn_picture()
    assert one.yuv.size == (1920, 1080)
    assert np.array_equal(one.bgr, other.bgr)


@pytest.mark.parametrize("content", [None, b"no picture"], ids=["absent", "text"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "picture.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"--picture: found .*picture.jpg; expected a picture file"):
        read_picture(path)
