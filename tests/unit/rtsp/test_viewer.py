from __future__ import annotations

import asyncio
import struct

from streamproc.rtsp.packetizer import Picture
from streamproc.rtsp.viewer import Sent, UdpCarrier, Viewer


class FakeCarrier:
    """Keeps what it is given; the test says how much waits."""

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.headers: list[tuple[int, int, int, int]] = []
        self.reports: list[bytes] = []

    def send_rtp(self, packets: list[tuple[bytes, bytes]]) -> None:
        self.headers += [struct.unpack(">xBHII", header) for header, _ in packets]

    def send_rtcp(self, packet: bytes) -> None:
        self.reports.append(packet)

    def close(self) -> None:
        self.queued_bytes = 0


def picture(index: int, *, keyframe: bool = False) -> Picture:
    return Picture(
        codec="h264",
        keyframe=keyframe,
        packets=((96, b"a"), (224, b"b")),
        payload_bytes=2,
        timestamp=index * 3750 - 3750,
        captured_utc_ns=index,
    )


async def test_a_slow_viewer_misses_pictures_but_no_number() -> None:
    carrier, sent = FakeCarrier(), Sent()
    viewer = Viewer(carrier, sent, lambda: None)
    viewer.send(picture(0))
    assert not carrier.headers
    viewer.send(picture(1, keyframe=True))
    viewer.send(picture(2))
    carrier.queued_bytes = 3 << 20
    viewer.send(picture(3, keyframe=True))
    carrier.queued_bytes = 1 << 20
    viewer.send(picture(4, keyframe=True))
    carrier.queued_bytes = 0
    viewer.send(picture(5))
    viewer.send(picture(6, keyframe=True))
    assert sent == Sent(pictures=3, packets=6, skipped=4)
    numbers = [header[1] for header in carrier.headers]
    assert numbers == [(numbers[0] + index) & 0xFFFF for index in range(6)]
    assert [header[2] for header in carrier.headers[::2]] == [0, 3750, 18750]
    assert {header[3] for header in carrier.headers} == {viewer.ssrc}
    assert len(carrier.reports) == 1
    assert viewer.sequence == (numbers[-1] + 1) & 0xFFFF


async def test_who_takes_nothing_in_is_stuck_until_it_is_sent_something() -> None:
    carrier = FakeCarrier()
    viewer = Viewer(carrier, Sent(), lambda: None)
    assert viewer.stuck_s() == 0
    carrier.queued_bytes = 3 << 20
    viewer.send(picture(0, keyframe=True))
    await asyncio.sleep(0)
    assert viewer.stuck_s() > 0
    carrier.queued_bytes = 0
    viewer.send(picture(1, keyframe=True))
    assert viewer.stuck_s() == 0


async def test_datagrams_go_out_in_bursts_and_in_order() -> None:
    sent: list[bytes] = []
    carrier = UdpCarrier(sent.append, lambda _: None)
    datagrams = [(bytes([index]), b"x") for index in range(100)]
    carrier.send_rtp(datagrams)
    assert len(sent) == 16
    assert carrier.queued_bytes == 2 * 84
    carrier.send_rtp([(b"\xff", b"y")])
    async with asyncio.timeout(10):
        while carrier.queued_bytes:  # noqa: ASYNC110 - the carrier's own timer empties it
            await asyncio.sleep(0.001)
    assert sent == [header + payload for header, payload in datagrams] + [b"\xffy"]
    sent.clear()
    carrier.send_rtp(10 * datagrams)
    assert len(sent) == 1000 // 32, "more at once where more waits, so that no stream is held up"
    carrier.close()
    assert carrier.queued_bytes == 0
