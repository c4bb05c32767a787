from __future__ import annotations

import struct
from random import Random

import pytest

from streamproc.rtsp.packetizer import Packetizer, goodbye, sender_report


def unpack(packets: tuple[tuple[int, bytes], ...]) -> list[bytes]:
    """The NAL units in H.264 payloads, slow and obvious (RFC 6184 sections 5.6 to 5.8)."""
    units: list[bytes] = []
    for _, payload in packets:
        kind = payload[0] & 0x1F
        if kind == 24:  # STAP-A
            rest = payload[1:]
            while rest:
                length = int.from_bytes(rest[:2], "big")
                units.append(rest[2 : 2 + length])
                rest = rest[2 + length :]
        elif kind == 28:  # FU-A
            if payload[1] & 0x80:
                units.append(bytes([payload[0] & 0xE0 | payload[1] & 0x1F]))
            units[-1] += payload[2:]
        else:
            units.append(payload)
    return units


@pytest.mark.parametrize("sizes", [(10,), (20, 5, 3000), (1199,), (1200,), (1201,), (5, 100_000), (1187, 1188, 1189)])
def test_what_is_cut_can_be_put_together(sizes: tuple[int, ...]) -> None:
    random = Random(3)
    units = [bytes([0x65]) + bytes(random.randrange(1, 256) for _ in range(size)) for size in sizes]
    packets = Packetizer("h264").cut(b"".join(b"\0\0\0\1" + unit for unit in units))
    assert unpack(packets) == units
    assert [marked >> 7 for marked, _ in packets] == [0] * (len(packets) - 1) + [1]
    assert {marked & 0x7F for marked, _ in packets} == {96}
    assert max(len(payload) for _, payload in packets) <= 1188


def test_one_after_the_other_without_mixing() -> None:
    packetizer = Packetizer("h264")
    for index in range(50):
        unit = bytes([0x65, index + 1])
        assert unpack(packetizer.cut(b"\0\0\0\1" + unit)) == [unit]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\0\0\1", b"\0" * 50])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_what_is_no_picture_gives_no_packet(data: bytes, codec: str) -> None:
    assert Packetizer(codec).cut(data) == ()  # type: ignore[arg-type]


def test_a_sender_report() -> None:
    report = sender_report(ssrc=7, utc_ns=1_500_000_000, timestamp=(1 << 32) + 5, packets=(1 << 32) + 1, octets=2)
    head, kind, words, *fields = struct.unpack(">BBH6I", report[:28])
    assert (head, kind, words) == (0x80, 200, 6)
    assert fields == [7, 2_208_988_801, 1 << 31, 5, 1, 2]
    check_compound(report)


def test_a_goodbye() -> None:
    assert check_compound(goodbye(9)) == [201, 202, 203]


def check_compound(packet: bytes) -> list[int]:
    """Kinds of the RTCP packets in a row, whose lengths must fit exactly (RFC 3550 section 6.1)."""
    kinds = []
    while packet:
        _, kind, words = struct.unpack(">BBH", packet[:4])
        assert len(packet) >= 4 * (words + 1)
        kinds.append(kind)
        packet = packet[4 * (words + 1) :]
    return kinds
