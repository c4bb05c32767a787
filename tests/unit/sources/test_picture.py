from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from streamproc.sources.picture import PictureMaker, rotation_of
from streamproc.types import Picture, UInt8Array
from tests.media import number_in, write_solid, write_video

BT601_KR_KB, BT709_KR_KB = (0.299, 0.114), (0.2126, 0.0722)


def pictures_of(path: Path) -> list[Picture]:
    maker = PictureMaker()
    with av.open(str(path)) as container:
        return [maker.make(frame) for frame in container.decode(video=0)]


def mean_colour(picture: Picture) -> tuple[int, int, int]:
    """The mean Y, U, V of a picture of one colour."""
    y, *chroma = picture.planes
    u, v = (chroma[0][..., 0], chroma[0][..., 1]) if picture.layout == "nv12" else chroma
    return round(float(y.mean())), round(float(u.mean())), round(float(v.mean()))


def test_planes_are_read_only_views_that_outlive_frame_and_container(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=6, size=(162, 122))
    pictures = pictures_of(path)
    assert [number_in(picture) for picture in pictures] == [0, 1, 2, 3, 4, 5]
    with av.open(str(path)) as container:
        oracle = [frame.to_ndarray() for frame in container.decode(video=0)]
    for picture, expected in zip(pictures, oracle, strict=True):
        assert [plane.shape for plane in picture.planes] == [(122, 162), (61, 81), (61, 81)]
        assert not any(plane.flags.writeable or plane.flags.owndata for plane in picture.planes)
        assert np.array_equal(np.concatenate([plane.ravel() for plane in picture.planes]), expected.ravel())


def test_a_picture_shares_the_decoders_memory() -> None:
    frame = VideoFrame(64, 48, "yuv420p")
    assert [plane.ctypes.data for plane in PictureMaker().make(frame).planes] == [p.buffer_ptr for p in frame.planes]


@pytest.mark.parametrize("size", [(161, 121), (34, 17), (3, 5)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "yuv444p", "rgb24"])
def test_odd_sizes(size: tuple[int, int], pix_fmt: str) -> None:
    picture = PictureMaker().make(VideoFrame(*size, pix_fmt))
    assert picture.stored_size == size


def test_nv12_stays_nv12(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames=3, codec="rawvideo", pix_fmt="nv12")
    picture = pictures_of(path)[2]
    assert picture.layout == "nv12"
    assert number_in(picture) == 2
    assert mean_colour(picture)[1:] == (110, 140)


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx264", ".mp4", "yuv420p"),
        ("libx264", ".mp4", "yuv420p10le"),
        ("libx264", ".mp4", "yuv422p"),
        ("libx264", ".mp4", "yuv444p"),
        ("libx265", ".mp4", "yuv420p10le"),
        ("ffv1", ".mkv", "yuv422p10le"),
    ],
)
@pytest.mark.parametrize(("colorspace", "matrix"), [(1, "bt709"), (6, "bt601"), (9, "bt2020"), (2, "bt601")])
@pytest.mark.parametrize("full_range", [False, True])
def test_yuv_keeps_its_values_matrix_and_range(
    tmp_path: Path, codec: str, suffix: str, pix_fmt: str, colorspace: int, matrix: str, full_range: bool
) -> None:
    path = write_solid(
        tmp_path / f"v{suffix}",
        (80, 90, 200),
        codec=codec,
        pix_fmt=pix_fmt,
        colorspace=colorspace,
        full_range=full_range,
    )
    picture = pictures_of(path)[1]
    assert (picture.matrix, picture.full_range) == (matrix, full_range)
    assert mean_colour(picture) == pytest.approx((80, 90, 200), abs=2)


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_motion_jpeg_is_full_range(tmp_path: Path, pix_fmt: str) -> None:
    path = write_solid(tmp_path / "v.avi", (30, 90, 200), codec="mjpeg", pix_fmt=pix_fmt, full_range=True)
    picture = pictures_of(path)[1]
    assert (picture.layout, picture.matrix, picture.full_range) == ("yuv420p", "bt601", True)
    assert mean_colour(picture) == pytest.approx((30, 90, 200), abs=3)


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr24", "bgra", "gbrp"])
def test_rgb_becomes_limited_bt601(pix_fmt: str) -> None:
    red, green, blue = 200, 60, 20
    rgb = np.empty((48, 64, 3), dtype=np.uint8)
    rgb[:] = (red, green, blue)
    picture = PictureMaker().make(VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt))
    kr, kb = BT601_KR_KB
    y = kr * red + (1 - kr - kb) * green + kb * blue  # ITU-R BT.601, 2.5.1
    u, v = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    expected = (16 + y * 219 / 255, 128 + u * 224 / 255, 128 + v * 224 / 255)
    assert (picture.matrix, picture.full_range) == ("bt601", False)
    assert mean_colour(picture) == pytest.approx(expected, abs=2)


def test_palette_pictures(tmp_path: Path) -> None:
    frame = VideoFrame(64, 48, "pal8")
    frame.planes[0].update(bytes([7]) * frame.planes[0].buffer_size)
    palette = np.zeros((256, 4), dtype=np.uint8)
    palette[7] = (255, 255, 255, 255)
    frame.planes[1].update(palette.tobytes())
    assert mean_colour(PictureMaker().make(frame)) == pytest.approx((235, 128, 128), abs=2)


@pytest.mark.parametrize(("color_range", "full_range"), [(0, True), (1, False), (2, True)])
def test_grey_keeps_its_values(color_range: int, full_range: bool) -> None:
    frame = VideoFrame.from_ndarray(np.full((48, 64), 100, dtype=np.uint8), "gray")
    frame.color_range = color_range
    picture = PictureMaker().make(frame)
    assert picture.full_range is full_range
    assert mean_colour(picture) == (100, 128, 128)


def test_one_maker_serves_formats_and_sizes_in_turn() -> None:
    maker = PictureMaker()
    for size, pix_fmt in [((64, 48), "rgb24"), ((32, 32), "yuv422p"), ((64, 48), "rgb24"), ((64, 48), "yuv420p")]:
        assert maker.make(VideoFrame(*size, pix_fmt)).stored_size == size


def shown_by_ffmpeg(path: Path, size: tuple[int, int]) -> UInt8Array:
    """The luma of the first picture as ffmpeg turns it for display."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, dtype=np.uint8).reshape(size[1], size[0])


@pytest.mark.parametrize("rotate_ccw", [0, 90, 180, 270])
def test_rotation_shows_the_picture_as_ffmpeg_does(tmp_path: Path, rotate_ccw: int) -> None:
    path = write_video(tmp_path / "v.mp4", frames=2, rotate_ccw=rotate_ccw)
    picture = pictures_of(path)[0]
    upright = np.rot90(picture.planes[0], -picture.rotation // 90)
    shown = shown_by_ffmpeg(path, picture.size)
    # ffmpeg scales limited luma to full-range grey; the shape of the picture is what is compared.
    assert np.corrcoef(upright.ravel(), shown.ravel())[0, 1] > 0.999


def test_rotation_is_the_nearest_quarter() -> None:
    assert [rotation_of(deg) for deg in (0, 90, -90, 180, -180, 44, -89, 91)] == [0, 270, 90, 180, 180, 0, 90, 270]
