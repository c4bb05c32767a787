"""The server seen by a bare client: what it answers, when it gives up, and what it leaves behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import logging
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from streamproc.errors import FatalError
from streamproc.rtsp import Credentials, Feed, Limits, RtspServer
from streamproc.types import AccessUnit
from tests.integration.rtsp.client import Client, connected
from tests.integration.rtsp.feeding import SAMPLES, Publisher, publishing, units_of_encoder, units_of_file

UTC_NS = 1_700_000_000_500_000_000
UNITS = units_of_encoder()
LOGIN = Credentials(username="viewer", password="secret")


@asynccontextmanager
async def serving(
    limits: Limits | None = None, credentials: Credentials | None = None, *, linger_s: float = 10.0
) -> AsyncIterator[tuple[RtspServer, Feed, list[bool]]]:
    """A server of one feed that the test publishes to, and what the feed was told about being watched."""
    watched: list[bool] = []
    feed = Feed("gate", watched.append, linger_s=linger_s)
    server = RtspServer("127.0.0.1", 0, {"gate": feed}, limits=limits, credentials=credentials)
    await server.start()
    try:
        yield server, feed, watched
    finally:
        await server.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells when the other side's bytes have come
            await asyncio.sleep(0.001)


def unit(index: int, **changes: object) -> AccessUnit:
    """The picture ``index`` of an endless stream with a keyframe every 24."""
    one = UNITS[index % len(UNITS)]
    changes.setdefault("pts_s", index / 24)
    return replace(one, captured_utc_ns=UTC_NS + index * 10**9 // 24, **changes)  # type: ignore[arg-type]


async def describe(client: Client, feed: Feed) -> None:
    """DESCRIBE, while the feed gets the first keyframe that it has been asked for."""
    asking = asyncio.ensure_future(client.ask("DESCRIBE"))
    await until(lambda: feed.watched)
    feed.publish(unit(0))
    assert (await asking).status == 200


async def test_from_options_to_teardown() -> None:
    async with serving() as (server, feed, watched), connected(server.port) as client:
        assert "DESCRIBE" in (await client.ask("OPTIONS")).headers["public"]
        feed.publish(unit(0))  # nobody has asked: goes nowhere
        assert feed.stats().published == 0
        await describe(client, feed)
        answer = await client.ask("DESCRIBE")
        assert answer.headers["content-base"] == f"rtsp://127.0.0.1:{server.port}/gate/"
        assert b"a=rtpmap:96 H265/90000" in answer.body
        await client.play()
        assert (await client.ask("GET_PARAMETER")).headers["session"].endswith(";timeout=60")
        assert (await client.ask("SET_PARAMETER")).status == 200
        assert (await client.ask("SETUP", Transport="RTP/AVP/TCP")).status == 455
        assert (await client.ask("PAUSE")).status == 200
        assert (await client.ask("PLAY")).status == 200
        assert (await client.ask("TEARDOWN")).status == 200
        assert (await client.ask("PLAY")).status == 454
        assert (await client.ask("RECORD")).status == 501
        assert watched == [True]
    assert watched == [True, False]


async def test_what_a_viewer_gets() -> None:
    async with serving() as (server, feed, _), connected(server.port) as client:
        await describe(client, feed)
        await client.play(transport="RTP/AVP/TCP;unicast;interleaved=4-5")
        for index in range(1, 24):
            feed.publish(unit(index))
        await until(lambda: feed.stats().sent >= 24)
        await client.ask("GET_PARAMETER")
    (channel, report), *others = client.packets
    assert channel == 5
    ssrc, seconds, fraction, reported = struct.unpack(">4x4I", report[:20])
    assert (seconds - 2_208_988_800) * 10**9 + (fraction * 10**9 >> 32) == pytest.approx(UTC_NS, abs=2)
    packets = [struct.unpack(">BBHII", packet[:12]) for channel, packet in others if channel == 4]
    assert {packet[4] for packet in packets} == {ssrc}
    numbers = [packet[2] for packet in packets]
    assert numbers == [(numbers[0] + index) & 0xFFFF for index in range(len(numbers))]
    times = sorted({(packet[3] - reported) & 0xFFFF_FFFF for packet in packets})
    assert times == [index * 3750 for index in range(24)]
    assert sum(packet[1] >> 7 for packet in packets) == 24


async def test_a_new_viewer_gets_the_pictures_since_the_keyframe_at_once() -> None:
    async with serving() as (server, feed, watched), connected(server.port) as first, connected(server.port) as second:
        await describe(first, feed)
        await first.play()
        for index in range(12):
            feed.publish(unit(index))
        await until(lambda: feed.stats().sent >= 12)
        await second.play()
        await until(lambda: feed.stats().sent >= 24)
        await second.ask("GET_PARAMETER")
        stamps = sorted({struct.unpack(">I", packet[4:8])[0] for channel, packet in second.packets if channel == 0})
        assert len(stamps) == 12
        assert (stamps[-1] - stamps[0]) < 11 * 3750 // 60
        assert watched == [True]


async def test_media_time_that_starts_anew_goes_on() -> None:
    async with serving() as (server, feed, _), connected(server.port) as client:
        await describe(client, feed)
        await client.play()
        for index, pts_s in enumerate([500.0, 500 + 1 / 24, 0.0, 1 / 24, 90_000.0], start=1):
            feed.publish(unit(index, pts_s=pts_s, keyframe=True))
        await until(lambda: feed.stats().sent >= 6)
        await client.ask("GET_PARAMETER")
    stamps = [struct.unpack(">I", packet[4:8])[0] for channel, packet in client.packets if channel == 0]
    steps = {(later - earlier) & 0xFFFF_FFFF for earlier, later in pairwise(stamps)}
    assert steps - {0} <= {3749, 3750, 3751}


async def test_udp_goes_to_the_client_from_the_ports_it_was_told() -> None:
    async with serving() as (server, feed, _), connected(server.port) as client:
        await describe(client, feed)
        with udp_pair() as (rtp, rtcp):
            ports = f"{rtp.getsockname()[1]}-{rtcp.getsockname()[1]}"
            answer = await client.ask("SETUP", Transport=f"RTP/AVP;unicast;client_port={ports}")
            terms = dict(part.partition("=")[::2] for part in answer.headers["transport"].split(";"))
            assert terms["client_port"] == ports
            client.session = answer.headers["session"].partition(";")[0]
            await client.ask("PLAY")
            feed.publish(unit(0))
            packets = [await asyncio.to_thread(one.recvfrom, 2048) for one in (rtp, rtcp)]
            assert "-".join(str(address[1]) for _, address in packets) == terms["server_port"]
            await client.ask("TEARDOWN")
            farewell = await asyncio.to_thread(rtcp.recv, 2048)
            assert farewell[-7] == 203


@contextmanager
def udp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
    ):
        for one in (rtp, rtcp):
            one.bind(("127.0.0.1", 0))
            one.settimeout(10)
        yield rtp, rtcp


async def test_a_slow_viewer_is_skipped_to_a_keyframe_and_slows_nobody() -> None:
    big = units_of_file(SAMPLES / "gate.mp4")
    async with serving() as (server, feed, _), connected(server.port) as slow, connected(server.port) as fast:
        asking = asyncio.ensure_future(slow.ask("DESCRIBE"))
        await until(lambda: feed.watched)
        feed.publish(big[0])
        await asking
        await slow.play()
        await fast.play()
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        received = asyncio.ensure_future(count_pictures(fast))
        turns = 0
        while feed.stats().skipped == 0:
            assert turns < 40, "a viewer that does not read is never skipped"
            for index, one in enumerate(big):
                feed.publish(replace(one, pts_s=one.pts_s + turns * 18))
                if index % 30 == 0:
                    await asyncio.sleep(0)
            turns += 1
            await asyncio.sleep(0.02)
        assert not received.done()
        assert feed.stats().overrun == 0
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert (await slow.ask("TEARDOWN")).status == 200
        sequence = [struct.unpack(">H", packet[2:4])[0] for channel, packet in slow.packets if channel == 0]
        assert all((later - earlier) & 0xFFFF == 1 for earlier, later in pairwise(sequence))
        received.cancel()


async def test_a_viewer_who_never_takes_anything_in_is_shown_out() -> None:
    big = units_of_file(SAMPLES / "gate.mp4")
    async with serving(Limits(stuck_s=0.1)) as (server, feed, _), connected(server.port) as client:
        asking = asyncio.ensure_future(client.ask("DESCRIBE"))
        await until(lambda: feed.watched)
        feed.publish(big[0])
        await asking
        await client.play()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        turn = 0
        while server.stats().connections:
            feed.publish(replace(big[turn % len(big)], pts_s=turn / 24))
            turn += 1
            await asyncio.sleep(0)
        assert server.stats().refused == {"stuck": 1}


async def count_pictures(client: Client) -> None:
    while True:
        await client.packet()
        client.packets.clear()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("DESCRIBE", "nowhere", {}, 404),
        ("DESCRIBE", "../gate", {}, 404),
        ("SETUP", "gate/trackID=1", {"Transport": "RTP/AVP/TCP"}, 404),
        ("SETUP", "gate", {}, 461),
        ("SETUP", "gate", {"Transport": "RTP/AVP;multicast"}, 461),
        ("PLAY", "gate", {}, 454),
        ("TEARDOWN", "gate", {"Session": "0123"}, 454),
        ("ANNOUNCE", "gate", {}, 501),
    ],
)
async def test_refusals(method: str, path: str, headers: dict[str, str], status: int) -> None:
    async with serving() as (server, *_), connected(server.port) as client:
        assert (await client.ask(method, path, **headers)).status == status
        assert (await client.ask("OPTIONS")).status == 200


async def test_the_password() -> None:
    async with serving(credentials=LOGIN) as (server, feed, watched), connected(server.port) as client:
        answer = await client.ask("DESCRIBE")
        assert answer.status == 401
        assert (await client.ask("SETUP", Transport="RTP/AVP/TCP")).status == 401
        assert not watched
        right = "Basic " + base64.b64encode(b"viewer:secret").decode()
        asking = asyncio.ensure_future(client.ask("DESCRIBE", Authorization=right))
        await until(lambda: feed.watched)
        feed.publish(unit(0))
        assert (await asking).status == 200
        await client.play()


async def test_a_wrong_password_three_times_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(credentials=LOGIN) as (server, *_), connected(server.port) as client:
        wrong = base64.b64encode(b"viewer:guessed").decode()
        for _ in range(3):
            assert (await client.ask("DESCRIBE", Authorization=f"Basic {wrong}")).status == 401
        assert await client.closed()
        assert server.stats().refused == {"password": 3}
    assert "wrong password" in caplog.text
    assert "guessed" not in caplog.text
    assert wrong not in caplog.text


async def test_a_feed_without_a_picture(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "streamproc")
    async with (
        serving(Limits(describe_s=0.05), linger_s=0.0) as (server, feed, watched),
        connected(server.port) as client,
    ):
        assert (await client.ask("DESCRIBE")).status == 503
        await until(lambda: not feed.watched)
        assert watched == [True, False]
    assert "gate was turned away: it had no keyframe within 0.05 s" in caplog.text


async def test_limits_on_viewers_and_connections() -> None:
    async with serving(Limits(viewers=1, connections=2)) as (server, feed, _):
        async with connected(server.port) as first, connected(server.port) as second, connected(server.port) as third:
            assert (await third.answer()).status == 503
            assert await third.closed()
            await describe(first, feed)
            await first.play()
            assert (await second.ask("SETUP", Transport="RTP/AVP/TCP")).status == 503
            await first.ask("TEARDOWN")
            first.session = ""
            await second.play()
        assert server.stats().refused == {"clients": 1, "viewers": 1}
        await until(lambda: server.stats().connections == 0)


@pytest.mark.parametrize("words", [b"", b"OPTIONS", b"$\0\xff\xff" + b"x" * 1000])
async def test_who_says_nothing_is_shown_out(words: bytes) -> None:
    async with serving(Limits(idle_s=0.05)) as (server, *_), connected(server.port) as client:
        client.writer.write(words)
        assert await client.closed()
        assert server.stats().refused == {"idle": 1}


async def test_who_closes_half_is_closed_whole() -> None:
    async with serving() as (server, *_), connected(server.port) as client:
        client.writer.write_eof()
        assert await client.closed()


async def test_who_says_too_much_or_nonsense_is_shown_out() -> None:
    async with serving() as (server, *_), connected(server.port) as loud, connected(server.port) as odd:
        loud.writer.write(b"x" * 100_000)
        assert (await loud.answer()).status == 413
        assert await loud.closed()
        for _ in range(3):
            odd.writer.write(b"what?\r\n\r\n")
            assert (await odd.answer()).status == 400
        assert await odd.closed()


async def test_a_silent_udp_session_ends_and_a_report_keeps_it() -> None:
    async with serving(Limits(session_s=0.5), linger_s=0.0) as (server, feed, _):
        async with connected(server.port) as quiet, connected(server.port) as lively:
            await describe(quiet, feed)
            with udp_pair() as (rtp, rtcp):
                await quiet.play(transport="RTP/AVP;unicast;client_port=40000-40001")
                answer = await lively.ask(
                    "SETUP", Transport=f"RTP/AVP;unicast;client_port={rtp.getsockname()[1]}-{rtcp.getsockname()[1]}"
                )
                server_rtcp = int(answer.headers["transport"].partition("server_port=")[2].split(";")[0].split("-")[1])
                lively.session = answer.headers["session"].partition(";")[0]
                await lively.ask("PLAY")
                closing = asyncio.ensure_future(quiet.closed())
                while not closing.done():
                    rtcp.sendto(b"\x80\xc9\0\1\0\0\0\0", ("127.0.0.1", server_rtcp))
                    await asyncio.sleep(0.01)
                assert (await lively.ask("GET_PARAMETER")).status == 200
                assert server.stats().viewers == 1
                assert await lively.closed()
        await until(lambda: not feed.watched)


async def test_a_taken_port_names_the_key() -> None:
    async with serving() as (server, *_):
        with pytest.raises(FatalError, match=r"rtsp\.listen.*in use"):
            await RtspServer("127.0.0.1", server.port, {}).start()


async def test_a_feed_that_changes_its_codec_ends_its_viewers() -> None:
    async with serving() as (server, feed, _), connected(server.port) as client:
        await describe(client, feed)
        await client.play()
        feed.publish(units_of_file(SAMPLES / "gate.mp4")[0])
        assert await client.closed()
        assert feed.description is not None
        assert feed.description.codec == "h264"


async def test_what_is_no_picture_is_counted() -> None:
    async with serving() as (server, feed, _), connected(server.port) as client:
        await describe(client, feed)
        for data in (b"", b"garbage", b"\0\0\1"):
            feed.publish(unit(1, data=data))
        assert feed.stats().invalid == 3


async def test_random_bytes_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    random = Random(7)
    words = [b"OPTIONS * RTSP/1.0", b"DESCRIBE rtsp://h/gate RTSP/1.0", b"SETUP rtsp://h/gate RTSP/1.0", b"PLAY *"]
    words += [b"PLAY rtsp://h/gate RTSP/1.0", b"\r\n", b"\r\n\r\n", b"CSeq: 1", b"Transport: RTP/AVP;client_port=9"]
    words += [
        b"Transport: RTP/AVP/TCP",
        b"Content-Length: 9",
        b"Session: ",
        b"Authorization: Digest x",
        b"$\0\0\1",
        b"\xff",
    ]

    async def once() -> None:
        async with connected(server.port) as client:
            for _ in range(random.randrange(1, 5)):
                client.writer.write(b"\r\n".join(random.choices(words, k=random.randrange(12))) + b"\r\n\r\n")
                await asyncio.sleep(0)
            if random.random() < 0.5:
                with contextlib.suppress(OSError):  # the server may have closed it already
                    client.writer.write_eof()
                await client.closed()

    async with serving(Limits(describe_s=0.01, idle_s=0.5)) as (server, feed, _):
        for _ in range(20):
            await asyncio.gather(*(once() for _ in range(20)))
        await until(lambda: server.stats().connections == 0)
        async with connected(server.port) as client:
            await describe(client, feed)
            await client.play()
    assert [record for record in caplog.records if record.name == "asyncio" or record.exc_info] == []


async def test_viewers_killed_at_random_leave_nothing_behind() -> None:
    random = Random(11)
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    gate, yard = Publisher("gate", UNITS, linger_s=0.0), Publisher("yard/raw", units_of_file(SAMPLES / "yard.mp4"))

    async def watch(port: int) -> None:
        path = random.choice(["gate", "yard/raw"])
        async with connected(port) as client:
            await client.ask("DESCRIBE", path)
            await client.play(path, random.choice(["RTP/AVP/TCP", "RTP/AVP;client_port=40000-40001"]))
            for _ in range(random.randrange(10)):
                await client.ask("GET_PARAMETER")

    before = len(os.listdir("/proc/self/fd"))
    with publishing(gate, yard) as feeds:
        server = RtspServer("127.0.0.1", 0, feeds)
        await server.start()
        for _ in range(5):
            await asyncio.gather(*(watch(server.port) for _ in range(16)))
        await until(lambda: server.stats().connections == 0)
        await until(lambda: not any(feed.watched for feed in feeds.values()))
        assert server.stats().viewers == 0
        assert server.stats().refused == {}
        await server.close()
    gc.collect()
    assert len(asyncio.all_tasks()) == tasks
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= before
