from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.rtsp.sdp import Description, parameter_sets, sdp

SPS, PPS = b"\x67\x42\xc0\x1e\xaa", b"\x68\xce\x3c\x80\x01"
LONG, SHORT = b"\0\0\0\1", b"\0\0\1"


@pytest.mark.parametrize(
    "data",
    [
        LONG + SPS + LONG + PPS + LONG + b"\x65slice",
        SHORT + SPS + SHORT + PPS,
        LONG + b"\x09\xf0" + LONG + SPS + LONG + PPS,
        LONG + PPS + SHORT + SPS + SHORT + b"\x65",
        LONG + SPS + LONG + PPS + LONG + b"\x68other",
    ],
)
def test_h264_parameter_sets(data: bytes) -> None:
    assert parameter_sets(data, "h264") == Description(codec="h264", sets=(SPS, PPS))


def test_hevc_parameter_sets() -> None:
    vps, sps, pps = b"\x40\x01v", b"\x42\x01s", b"\x44\x01p"
    data = LONG + b"\x46\x01" + LONG + vps + SHORT + sps + LONG + pps + LONG + b"\x26\x01slice"
    assert parameter_sets(data, "hevc") == Description(codec="hevc", sets=(vps, sps, pps))


@pytest.mark.parametrize("data", [b"", SHORT, LONG + SPS, SPS + PPS, LONG + SPS + SHORT])
def test_without_all_sets_there_is_no_description(data: bytes) -> None:
    assert parameter_sets(data, "h264") is None
    assert parameter_sets(data, "hevc") is None


@given(
    st.lists(st.sampled_from([b"\0", b"\1", SHORT, b"\x67", b"\x68", b"\x40"]) | st.binary(max_size=3)).map(b"".join)
)
def test_any_bytes_have_sets_or_none(data: bytes) -> None:
    for codec, count in (("h264", 2), ("hevc", 3)):
        found = parameter_sets(data, codec)  # type: ignore[arg-type]
        assert found is None or (len(found.sets) == count and all(found.sets))


def test_what_clients_read() -> None:
    text = sdp("gate", Description(codec="h264", sets=(SPS, PPS)))
    assert "a=rtpmap:96 H264/90000\r\n" in text
    assert "profile-level-id=42C01E; sprop-parameter-sets=Z0LAHqo=,aM48gAE=\r\n" in text
    hevc = sdp("gate/raw", Description(codec="hevc", sets=(b"v", b"s", b"p")))
    assert "a=fmtp:96 sprop-vps=dg==; sprop-sps=cw==; sprop-pps=cA==\r\n" in hevc
