"""Streams pushed to media servers: GStreamer's, which takes them, and bare ones that misbehave in every way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from streamproc.errors import SinkError
from streamproc.rtsp import Feed, Pusher, PushStats, RtspServer, probe_server
from streamproc.rtsp.publisher import Patience
from streamproc.types import AccessUnit
from tests.brokers import free_port, make_certificates
from tests.integration.rtsp.client import connected
from tests.integration.rtsp.feeding import SAMPLES, units_of_encoder, units_of_file
from tests.integration.rtsp.media_server import MediaServer, hang, media_server, reply, say
from tests.recorders import record

HEVC = units_of_encoder()
H264 = units_of_file(SAMPLES / "gate.mp4")
QUICK = Patience(answer_s=0.3, stuck_s=0.2, idle_s=0.1, still_s=30.0)
SECRET = "s3cr3t/p@ss"
LOGIN = "me:s3cr3t%2Fp%40ss"


def feed_of(camera: str) -> tuple[Feed, list[bool]]:
    """A feed on this loop, and what it is told about being watched."""
    watched: list[bool] = []
    feed = Feed(camera, watched.append, linger_s=0.0)
    feed.attach(asyncio.get_running_loop())
    return feed, watched


@asynccontextmanager
async def filming(*feeds: Feed, units: tuple[AccessUnit, ...] = HEVC, padding: bytes = b"") -> AsyncIterator[None]:
    """Pictures for the feeds, faster than real time, while the context is open."""

    async def film() -> None:
        for index in range(1_000_000):
            unit = units[index % len(units)]
            for feed in feeds:
                feed.publish(replace(unit, data=unit.data + padding, pts_s=index / 24, captured_utc_ns=index))
            await asyncio.sleep(0.004)

    task = asyncio.create_task(film())
    try:
        yield
    finally:
        await ended(task)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for its end; what it raised before comes out."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def pushing(url: str, *feeds: Feed, patience: Patience = QUICK) -> AsyncIterator[Callable[[], PushStats]]:
    """Feeds that are pushed while the context is open; the first one's counts."""
    pushes = {feed.path: (feed, url.replace("{camera}", feed.path)) for feed in feeds}
    pusher = Pusher(pushes, patience=patience, random=lambda: 0.0)
    task = asyncio.create_task(pusher.run())
    try:
        yield lambda: pusher.stats()[feeds[0].path]
    finally:
        await ended(task)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells when the other side's bytes have come
            await asyncio.sleep(0.005)


def pictures_in(path: Path) -> int:
    """How many pictures a recording holds that can be decoded."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize(
    ("units", "codec", "options", "login"),
    [
        (H264, "h264", (), ""),
        (HEVC, "h265", ("--login", "me", SECRET), LOGIN + "@"),
        (HEVC, "h265", ("--login", "me", SECRET, "--digest"), LOGIN + "@"),
    ],
    ids=["h264", "basic", "digest"],
)
async def test_a_media_server_gets_pictures(
    tmp_path: Path, units: tuple[AccessUnit, ...], codec: str, options: tuple[str, ...], login: str
) -> None:
    gate, watched = feed_of("gate")
    with record(tmp_path, "gate", options=("--codec", codec, *options)) as (port, _):
        async with filming(gate, units=units):
            async with pushing(f"rtsp://{login}127.0.0.1:{port}/gate", gate) as stats:
                await until(lambda: stats().sent >= 100)
                assert stats().state == "pushing"
                await until(lambda: (tmp_path / f"gate.{codec}").stat().st_size > 0)
            await until(lambda: watched == [True, False])
    assert (stats().began, stats().failures, stats().skipped) == (1, {}, 0)
    assert pictures_in(tmp_path / f"gate.{codec}") > 50


async def test_a_media_server_that_dies_and_comes_back_disturbs_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (gate, _), (yard, _) = feed_of("gate"), feed_of("yard")
    server = RtspServer("127.0.0.1", 0, {"yard": yard})
    await server.start()
    port = free_port()
    async with filming(gate, yard), connected(server.port) as viewer:
        with record(tmp_path, "gate", port=port, options=("--codec", "h265")) as (_, pid):
            async with pushing(f"rtsp://127.0.0.1:{port}/{{camera}}", gate) as stats:
                await until(lambda: stats().sent >= 30)
                await viewer.play("yard")
                seen = yard.stats().sent
                os.kill(pid, signal.SIGKILL)
                await until(lambda: stats().failures.get("refused", 0) >= 3)
                await until(lambda: gate.stats().viewers == 0 and not gate.watched)
                await until(lambda: yard.stats().sent >= seen + 100)
                with record(tmp_path, "gate", port=port, options=("--codec", "h265")):
                    sent = stats().sent
                    await until(lambda: stats().sent >= sent + 30)
        assert stats().began == 2
        assert yard.stats().skipped == 0
    await server.close()
    said = [line.getMessage() for line in caplog.records if line.name == "streamproc.rtsp.push"]
    assert said[0] == f"camera gate: pushed to rtsp://127.0.0.1:{port}/gate"
    assert re.fullmatch(
        rf"camera gate: push to rtsp://127\.0\.0\.1:{port}/gate failed, next attempt in .* s: .*", said[1]
    )
    assert sum("connection refused: nothing listens there. Start the server" in line for line in said) == 1


async def test_from_options_to_teardown() -> None:
    gate, _ = feed_of("gate")
    async with media_server(RECORD=say(raw=b"RTSP/1.0 100 Continue\r\n\r\nRTSP/1.0 200 OK\r\n\r\n")) as media:
        async with filming(gate), pushing(media.url.replace("rtsp://", f"rtsp://{LOGIN}@"), gate) as stats:
            await until(lambda: stats().sent >= 30 and media.methods().count("OPTIONS") >= 3)
        await until(lambda: "TEARDOWN" in media.methods())
    assert [method for method in media.methods() if method != "OPTIONS"] == ["ANNOUNCE", "SETUP", "RECORD", "TEARDOWN"]
    announced = next(asked for asked in media.asked if asked.method == "ANNOUNCE")
    assert announced.uri == media.url.replace("{camera}", "gate")
    assert b"a=rtpmap:96 H265/90000" in announced.body
    setup = next(asked for asked in media.asked if asked.method == "SETUP")
    assert setup.uri == f"{announced.uri}/trackID=0"
    assert setup.headers["transport"] == "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"
    assert all(asked.headers["session"] == "4711" for asked in media.asked[media.asked.index(setup) + 1 :])
    assert not any("authorization" in asked.headers for asked in media.asked)
    assert {channel for channel, _ in media.packets} == {0, 1}
    assert media.packets[-1][1][-7] == 203, "the last packet says goodbye"


async def test_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server, certificates.server_key)
    gate, _ = feed_of("gate")
    async with media_server(tls=context) as media, filming(gate):
        async with pushing(media.url, gate) as stats:
            await until(lambda: stats().failures == {"tls": 1})
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        async with pushing(media.url, gate, patience=Patience(idle_s=0.1)) as stats:
            await until(lambda: stats().sent >= 30)
    assert media.packets


async def slam(_: object, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def half_close(_: object, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()


MUCH = b"RTSP/1.0 200 OK\r\nX: " + b"a" * (1 << 20)


@pytest.mark.parametrize(
    ("deeds", "reason", "said"),
    [
        ({"OPTIONS": hang}, "timeout", "did not answer OPTIONS within 0.3 s"),
        ({"ANNOUNCE": hang}, "timeout", "did not answer ANNOUNCE within"),
        ({"RECORD": hang}, "timeout", "did not answer RECORD within"),
        ({"OPTIONS": say(raw=b"HTTP/1.1 400 Bad Request\r\n\r\n")}, "garbage", "no RTSP answer"),
        ({"SETUP": say(raw=MUCH)}, "garbage", "more than 8192 bytes of headers"),
        ({"RECORD": say(raw=MUCH)}, "garbage", "more than 8192 bytes of headers"),
        ({"ANNOUNCE": say("Content-Length: 9999999")}, "garbage", "a body of more than 65536 bytes"),
        ({"OPTIONS": slam}, "closed", "connection was lost"),
        ({"RECORD": half_close}, "closed", "the server closed the connection"),
        ({"ANNOUNCE": say(status="404 Not Found")}, "not_found", "it does not know the path"),
        ({"ANNOUNCE": say(status="400 Bad Request")}, "rejected", "answered ANNOUNCE with 400. Does somebody else"),
        ({"ANNOUNCE": say(status="501 Not Implemented")}, "rejected", "it takes no streams"),
        ({"SETUP": say("Session: 1", "Transport: RTP/AVP;unicast;server_port=1-2")}, "rejected", "over TCP"),
        ({"SETUP": say("Session: 1", "Transport: RTP/AVP/TCP;interleaved=0-256")}, "rejected", "over TCP"),
        ({"SETUP": say("Transport: RTP/AVP/TCP;interleaved=0-1")}, "rejected", "over TCP"),
        ({"ANNOUNCE": say(status="403 Forbidden")}, "auth", "this user may not publish there"),
        ({"ANNOUNCE": say('WWW-Authenticate: Digest realm="a", nonce="b"', status="401 No")}, "auth", "wrong user"),
        ({"ANNOUNCE": say("WWW-Authenticate: Bearer", status="401 No")}, "auth", "other than Digest and Basic"),
    ],
)  # fmt: skip
async def test_a_server_that_misbehaves(
    deeds: dict[str, Callable[..., object]], reason: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate, watched = feed_of("gate")
    async with media_server(**deeds) as media, filming(gate):  # type: ignore[arg-type]
        async with pushing(media.url.replace("rtsp://", f"rtsp://{LOGIN}@"), gate) as stats:
            await until(lambda: stats().failures.get(reason, 0) >= (1 if reason == "auth" else 2))
        assert stats().failures.keys() == {reason}
        await until(lambda: watched[-1:] != [True])
    first = caplog.messages[0]
    assert said in first
    assert re.match(
        r"camera gate: push to rtsp://127\.0\.0\.1:\d+/live/gate failed, next attempt in \d+\.\d s: ", first
    )
    assert ("next attempt in 60.0 s" in first) == (reason == "auth")
    assert "s3cr3t" not in caplog.text


async def test_a_server_that_takes_and_never_reads() -> None:
    gate, _ = feed_of("gate")

    async def record_and_hang(asked: object, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked))  # type: ignore[arg-type]
        await asyncio.get_running_loop().create_future()

    patience = replace(QUICK, idle_s=30.0)
    big = b"\xaa" * 200_000
    async with (
        media_server(RECORD=record_and_hang) as media,
        filming(gate, padding=big),
        pushing(media.url, gate, patience=patience) as stats,
    ):
        await until(lambda: stats().failures.get("stuck"))
    assert stats().skipped > 0


async def test_a_server_that_hangs_while_it_is_pushed_to() -> None:
    gate, _ = feed_of("gate")
    media: MediaServer

    async def hang_later(asked: object, writer: asyncio.StreamWriter) -> None:
        await (hang if "RECORD" in media.methods() else say())(asked, writer)  # type: ignore[arg-type]

    async with media_server(OPTIONS=hang_later) as media, filming(gate), pushing(media.url, gate) as stats:
        await until(lambda: stats().failures.get("timeout"))
        assert stats().began >= 1


async def test_nothing_is_encoded_for_a_server_that_is_away_or_does_not_answer() -> None:
    gate, watched = feed_of("gate")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with pushing(f"rtsp://127.0.0.1:{port}/gate", gate) as stats:
            await until(lambda: stats().failures.get("timeout"))
    async with pushing(f"rtsp://127.0.0.1:{port}/gate", gate) as stats:
        await until(lambda: stats().failures.get("refused", 0) >= 3)
    async with pushing("rtsp://no.such.host.invalid/gate", gate, patience=Patience()) as stats:
        await until(lambda: stats().failures.get("dns"))
    assert watched == []


async def test_a_camera_without_pictures_is_waited_for_and_taken_away_when_it_stops() -> None:
    gate, _ = feed_of("gate")
    patience = replace(QUICK, still_s=0.3)
    async with media_server() as media, pushing(media.url, gate, patience=patience) as stats:
        await until(lambda: media.methods().count("OPTIONS") >= 4)
        assert stats().state == "waiting"
        async with filming(gate):
            await until(lambda: stats().sent >= 30)
        await until(lambda: stats().failures.get("no_picture"))
        await until(lambda: stats().state == "waiting" and media.connections == 2)
        async with filming(gate):
            await until(lambda: stats().began == 2)
    assert stats().failures == {"no_picture": 1}


async def test_another_codec_begins_anew_and_another_resolution_does_not() -> None:
    gate, _ = feed_of("gate")
    async with media_server() as media, pushing(media.url, gate) as stats:
        async with filming(gate):
            await until(lambda: stats().sent >= 30)
        other = units_of_file(SAMPLES / "plaza.mp4")
        async with filming(gate, units=other):
            await until(lambda: stats().failures == {"codec": 1} and stats().state == "pushing")
            sent = stats().sent
        async with filming(gate, units=smaller()):
            await until(lambda: stats().sent >= sent + 60)
    announced = [asked.body for asked in media.asked if asked.method == "ANNOUNCE"]
    assert [b"H265/90000" in body for body in announced] == [True, False]
    assert stats().failures == {"codec": 1}


def smaller() -> tuple[AccessUnit, ...]:
    """H.264 of another size than the samples have."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 64, 48, "yuv420p", Fraction(24)
    encoder.options = {"tune": "zerolatency", "g": "12"}
    packets = [packet for _ in range(24) for packet in encoder.encode(av.VideoFrame(64, 48, "yuv420p"))]
    return tuple(
        AccessUnit(data=bytes(packet), codec="h264", pts_s=0.0, keyframe=packet.is_keyframe, captured_utc_ns=0)
        for packet in packets
    )


async def test_a_server_is_probed_without_publishing_anything() -> None:
    async with media_server(OPTIONS=say("Public: OPTIONS, ANNOUNCE, SETUP, RECORD")) as media:
        url = media.url.replace("rtsp://", f"rtsp://{LOGIN}@").replace("{camera}", "gate")
        told = await probe_server(url)
    assert told.startswith(f"{media.url.replace('{camera}', 'gate')} answers; user name and password are tried")
    assert media.methods() == ["OPTIONS"]
    with pytest.raises(SinkError, match=r"^rtsp://127\.0\.0\.1:\d+/live/gate: connection refused"):
        await probe_server(url)
    async with media_server(OPTIONS=say("Public: DESCRIBE, PLAY")) as media:
        with pytest.raises(SinkError, match="it takes no streams"):
            await probe_server(media.url.replace("{camera}", "gate"))
