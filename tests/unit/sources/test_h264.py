from __future__ import annotations

from pathlib import Path

import av
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

from streamproc.sources.h264 import LostReferenceDetector
from tests.media import write_video

CODINGS = {
    "plain": {},
    "b-frames": {"bf": "3", "b-pyramid": "none"},
    "b-pyramid, 4 references": {"bf": "4", "b-pyramid": "normal", "refs": "4"},
    "open gop": {"bf": "2", "x264-params": "open-gop=1"},
    "interlaced": {"x264-params": "interlaced=1"},
    "intra refresh": {"x264-params": "intra-refresh=1"},
    "long gop": {"g": "1000"},
    "scaling lists": {"x264-params": "cqm=jvt"},
    "baseline": {"profile": "baseline"},
    "nal-hrd and aud": {"x264-params": "nal-hrd=cbr:aud=1:vbv-maxrate=500:vbv-bufsize=500"},
}


def packets_of(path: Path) -> tuple[bytes | None, list[bytes], list[bool]]:
    """The parameter sets, the packets, and whether each is a B-picture (to which, without a pyramid, none refers)."""
    with av.open(str(path)) as container:
        kinds = {frame.pts: frame.pict_type for frame in container.decode(video=0)}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return (
            stream.codec_context.extradata,
            [bytes(memoryview(packet)) for packet in packets],
            [kinds[packet.pts] == PictureType.B for packet in packets],
        )


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
@pytest.mark.parametrize("coding", CODINGS)
def test_a_whole_stream_raises_no_alarm(tmp_path: Path, coding: str, suffix: str) -> None:
    path = write_video(tmp_path / f"v{suffix}", frames=60, options=CODINGS[coding])
    extradata, packets, _ = packets_of(path)
    detector = LostReferenceDetector(extradata)
    assert [index for index, packet in enumerate(packets) if detector.lost_before(packet)] == []


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
@pytest.mark.parametrize("coding", ["plain", "b-frames", "scaling lists"])
def test_every_lost_reference_picture_is_noticed_at_once(tmp_path: Path, coding: str, suffix: str) -> None:
    path = write_video(tmp_path / f"v{suffix}", frames=60, gop=1000, options=CODINGS[coding])
    extradata, packets, unreferenced = packets_of(path)
    for lost in range(1, len(packets) - 1):
        detector = LostReferenceDetector(extradata)
        alarms = [i for i, packet in enumerate(packets) if i != lost and detector.lost_before(packet)]
        assert alarms[:1] == ([] if unreferenced[lost] else [lost + 1]), f"{coding}: lost {lost}"


def test_after_a_resync_any_picture_is_accepted(tmp_path: Path) -> None:
    extradata, packets, _ = packets_of(write_video(tmp_path / "v.mp4", frames=30, gop=1000))
    detector = LostReferenceDetector(extradata)
    assert not detector.lost_before(packets[0])
    detector.resync()
    assert not any(detector.lost_before(packet) for packet in packets[7:])


@given(extradata=st.none() | st.binary(max_size=40), packets=st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_upset_it(extradata: bytes | None, packets: list[bytes]) -> None:
    detector = LostReferenceDetector(extradata)
    for packet in packets:
        detector.lost_before(packet)


@given(st.lists(st.binary(max_size=40).map(lambda tail: b"\0\0\1\x67" + tail + b"\0\0\1\x41" + tail), max_size=5))
def test_no_parameter_set_upsets_it(packets: list[bytes]) -> None:
    detector = LostReferenceDetector(None)
    for packet in packets:
        detector.lost_before(packet)
