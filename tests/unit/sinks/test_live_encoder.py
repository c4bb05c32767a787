from __future__ import annotations

import logging
import re

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from streamproc.errors import SinkError
from streamproc.sinks import live_encoder
from streamproc.sinks.live_encoder import LiveEncoder, default_bitrate_kbps, hardware_codec, open_encoder
from streamproc.types import AccessUnit, UInt8Array


def noise(size: tuple[int, int] = (320, 240), seed: int = 1) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def software(size: tuple[int, int] = (320, 240), bitrate_kbps: int = 1000) -> LiveEncoder:
    return LiveEncoder("libx264", size, bitrate_kbps=bitrate_kbps)


def decoded(units: list[AccessUnit]) -> list[VideoFrame]:
    decoder = VideoCodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit.data))]
    return frames + decoder.decode(None)


def nal_types(unit: AccessUnit) -> list[int]:
    return [match[1][0] & 31 for match in re.finditer(rb"\x00\x00\x01(.)", unit.data, re.DOTALL)]


def test_every_picture_gives_its_own_access_unit_at_once() -> None:
    encoder = software()
    units = []
    for index in range(20):
        [unit] = encoder.encode(noise(seed=index), pts_s=index / 24, captured_utc_ns=1000 + index)
        assert (unit.pts_s, unit.captured_utc_ns, unit.codec) == (index / 24, 1000 + index, "h264")
        assert unit.data.startswith(b"\x00\x00")
        units.append(unit)
    frames = decoded(units)
    assert len(frames) == 20
    assert all(frame.pict_type != av.video.frame.PictureType.B for frame in frames)


@pytest.mark.parametrize("fps", [1, 24, 120])
def test_a_keyframe_with_its_parameter_sets_comes_first_and_every_two_seconds(fps: int) -> None:
    encoder = software((64, 64))
    units = [
        unit
        for index in range(5 * fps)
        for unit in encoder.encode(np.full((64, 64, 3), 90, np.uint8), pts_s=100 + index / fps, captured_utc_ns=0)
    ]
    assert [unit.pts_s for unit in units if unit.keyframe] == pytest.approx([100, 102, 104], abs=0.01)
    for unit in units:
        types = nal_types(unit)
        assert (7 in types, 8 in types, 5 in types) == (unit.keyframe,) * 3


def test_a_keyframe_comes_when_asked_for_and_decoding_can_begin_there() -> None:
    encoder = software()
    units = [
        unit
        for index in range(8)
        for unit in encoder.encode(noise(seed=index), pts_s=index / 24, captured_utc_ns=0, keyframe=index == 5)
    ]
    assert [unit.keyframe for unit in units] == [index in (0, 5) for index in range(8)]
    assert len(decoded(units[5:])) == 3


def test_times_that_stand_still_are_borne_and_passed_on() -> None:
    encoder = software()
    given = [0.0, 0.5, 0.5, 0.5, 0.500001, 1.0]
    units = [unit for time in given for unit in encoder.encode(noise(), pts_s=time, captured_utc_ns=0)]
    assert [unit.pts_s for unit in units] == given


@pytest.mark.parametrize(("size", "matrix"), [((322, 242), 5), ((1282, 720), 1)])
def test_colours_are_shown_as_they_were_drawn(size: tuple[int, int], matrix: int) -> None:
    colors = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255), (0, 0, 0), (52, 211, 153), (251, 146, 60)]
    bgr = np.zeros((size[1], size[0], 3), np.uint8)
    stripe = size[0] // len(colors)
    for index, color in enumerate(colors):
        bgr[:, index * stripe : (index + 1) * stripe] = color[::-1]
    [frame] = decoded(software(size).encode(bgr, pts_s=0, captured_utc_ns=0))
    assert (frame.colorspace, frame.color_range, frame.format.name) == (matrix, 1, "yuv420p")
    shown = frame.to_ndarray(format="rgb24")
    for index, color in enumerate(colors):
        middle = shown[size[1] // 2, index * stripe + stripe // 2].astype(int)
        assert np.abs(middle - color).max() <= 8


def test_the_bit_rate_is_a_ceiling_even_for_noise() -> None:
    encoder = software(bitrate_kbps=500)
    units = [
        unit for index in range(250) for unit in encoder.encode(noise(seed=index), pts_s=index / 25, captured_utc_ns=0)
    ]
    assert sum(len(unit.data) for unit in units) * 8 / 10 < 1.2 * 500_000


def test_a_still_scene_takes_a_fraction_of_the_bit_rate() -> None:
    encoder = software((640, 360))
    picture = noise((640, 360)) // 8 + 90
    units = [u for index in range(100) for u in encoder.encode(picture, pts_s=index / 25, captured_utc_ns=0)]
    assert sum(len(unit.data) for unit in units[1:]) * 8 / 4 < 0.6 * 1_000_000


@pytest.mark.parametrize("size", [(20_000, 16), (16, 20_000)])
def test_a_size_that_cannot_be_encoded_is_an_error_that_names_it(size: tuple[int, int]) -> None:
    with pytest.raises(SinkError, match=f"libx264 does not open for {size[0]}x{size[1]} at 700 kbit/s"):
        software(size, bitrate_kbps=700)


def test_a_hardware_encoder_that_does_not_open_is_replaced_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live_encoder, "hardware_codec", lambda: "h264_v4l2m2m")
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder((20, 20), bitrate_kbps=100, fps=10)  # smaller than any hardware takes
    assert encoder.codec == "libx264"
    [message] = caplog.messages
    assert message.startswith("h264_v4l2m2m does not open for 20x20")
    assert "libx264 takes its place" in message


def test_hardware_is_found_out_once_and_only_used_where_it_works(caplog: pytest.LogCaptureFixture) -> None:
    hardware_codec.cache_clear()
    with caplog.at_level(logging.INFO, logger="streamproc"):
        found = hardware_codec()
        assert hardware_codec() == found
    [message] = [message for message in caplog.messages if message.startswith("live video is encoded by")]
    assert (found or "libx264") in message
    assert live_encoder._works("libx264")
    assert found is None or live_encoder._works(found)


def test_larger_pictures_get_more_bits_but_fewer_a_pixel() -> None:
    sizes = [(2, 2), (640, 360), (1280, 720), (1920, 1080), (3840, 2160)]
    rates = [default_bitrate_kbps(size) for size in sizes]
    assert rates == sorted(rates)
    per_pixel = [rate / (width * height) for rate, (width, height) in zip(rates, sizes, strict=True)]
    assert per_pixel == sorted(per_pixel, reverse=True)


@pytest.mark.parametrize("fps", [0.0001, 0.5, 12, 29.97, 240])
def test_every_rate_that_can_be_configured_opens(fps: float) -> None:
    encoder = open_encoder((64, 64), bitrate_kbps=100, fps=fps)
    [unit] = encoder.encode(np.full((64, 64, 3), 90, np.uint8), pts_s=0, captured_utc_ns=0)
    assert unit.keyframe
