"""Cameras on the network: a real RTSP server, and what is no camera at all."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from streamproc.backoff import RetryDelays
from streamproc.errors import SourceError
from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader
from streamproc.sources.opening import Transport
from streamproc.sources.supervisor import CameraSource
from streamproc.telemetry import StatusBoard
from streamproc.types import CameraState, Frame
from tests.brokers import make_certificates
from tests.cameras import behind_tls, serve, start_server
from tests.integration.sources.reading import assert_closed
from tests.media import number_in, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("rtsp") / "clip.mp4", frames=40)


def read(
    url: str,
    transport: Transport = "tcp",
    *,
    frames: int = 1000,
    timeout_s: float = 20,
    login: Mapping[str, str] | None = None,
) -> Reading:
    return Reading(url, transport, frames, timeout_s, login or {})


class Reading:
    """One connection, read to its end or up to so many frames."""

    def __init__(self, url: str, transport: Transport, frames: int, timeout_s: float, login: Mapping[str, str]) -> None:
        self.frames: list[Frame] = []
        self.error: SourceError | None = None
        self.ledger = CameraLedger("cam")
        self._stop = threading.Event()
        self._wanted = frames
        reader = AvReader(
            "cam",
            emit=self._keep,
            ledger=self.ledger,
            on_online=lambda: None,
            stop=self._stop,
            open_timeout_s=timeout_s,
            read_timeout_s=timeout_s,
        )
        try:
            reader.read_stream(url, transport, **login)
        except SourceError as error:
            self.error = error

    def _keep(self, frame: Frame) -> None:
        self.frames.append(frame)
        if len(self.frames) == self._wanted:
            self._stop.set()


@pytest.mark.parametrize("transport", ["auto", "tcp", "udp"])
def test_a_camera_plays_over_every_transport(clip: Path, transport: Transport) -> None:
    with serve(clip) as port:
        reading = read(f"rtsp://127.0.0.1:{port}/cam", transport, frames=30)
    assert reading.error is None
    assert [number_in(frame.picture) for frame in reading.frames] == list(range(30))
    assert [frame.pts_s for frame in reading.frames] == pytest.approx([n / 25 for n in range(30)], abs=0.002)
    assert all(frame.live for frame in reading.frames)
    arrivals = [frame.captured_ns for frame in reading.frames]
    assert arrivals == sorted(arrivals)
    reading.ledger.close()
    assert_closed(reading.ledger.tally())


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("codec", ["h265", "jpeg"])
def test_a_camera_may_send_other_codecs(tmp_path: Path, codec: str, transport: Transport) -> None:
    if codec == "h265":
        path = write_video(tmp_path / "v.mkv", frames=40, codec="libx265")
    else:  # RFC 2435 leaves the standard's own Huffman tables out of the stream
        path = write_video(
            tmp_path / "v.avi", frames=40, codec="mjpeg", pix_fmt="yuvj420p", options={"huffman": "default"}
        )
    with serve(path, options=["--codec", codec]) as port:
        reading = read(f"rtsp://127.0.0.1:{port}/cam", transport, frames=20)
    assert reading.error is None
    assert [number_in(frame.picture) for frame in reading.frames] == list(range(20))


def test_a_camera_that_insists_on_udp_is_obliged(clip: Path) -> None:
    with serve(clip, options=["--udp-only"]) as port:
        reading = read(f"rtsp://127.0.0.1:{port}/cam", "auto", frames=20)
    assert reading.error is None
    assert [number_in(frame.picture) for frame in reading.frames] == list(range(20))


def test_what_jams_between_camera_and_reader_is_age_once_the_camera_reports(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", frames=400)
    stop, ages_ms = threading.Event(), list[float]()
    jam_over: threading.Timer | None = None
    with start_server(path) as (server, port):

        def emit(frame: Frame) -> None:
            nonlocal jam_over
            if reader.clock == "rtcp" and jam_over is None:
                server.send_signal(signal.SIGSTOP)
                jam_over = threading.Timer(0.5, server.send_signal, [signal.SIGCONT])
                jam_over.start()
                ages_ms.clear()
            ages_ms.append(frame.age_ms(time.monotonic_ns()))
            if jam_over is not None and len(ages_ms) == 10:
                stop.set()

        ledger = CameraLedger("cam")
        reader = AvReader("cam", emit=emit, ledger=ledger, on_online=lambda: None, stop=stop)
        reader.read_stream(f"rtsp://127.0.0.1:{port}/cam", "tcp")
        assert jam_over is not None
        jam_over.join()
    assert 300 < max(ages_ms) < 2500


@pytest.mark.parametrize("transport", ["auto", "tcp"])
async def test_a_camera_behind_tls(clip: Path, tmp_path: Path, transport: Transport) -> None:
    with serve(clip, "admin", "s3cret") as port:
        async with behind_tls(port, make_certificates(tmp_path)) as safe_port:
            reading = await asyncio.to_thread(
                read, f"rtsps://admin:s3cret@127.0.0.1:{safe_port}/cam", transport, frames=20
            )
    assert reading.error is None
    assert [number_in(frame.picture) for frame in reading.frames] == list(range(20))


def test_the_end_of_a_stream_is_an_error_with_closed_books(clip: Path) -> None:
    with serve(clip) as port:
        reading = read(f"rtsp://127.0.0.1:{port}/cam")
    assert reading.error is not None
    assert reading.error.reason == "eof"
    assert len(reading.frames) == 40
    assert_closed(reading.ledger.tally())


def test_a_password_is_asked_for_and_never_shown(clip: Path) -> None:
    with serve(clip, "admin", "s3cret") as port:
        good = read(f"rtsp://admin:s3cret@127.0.0.1:{port}/cam", frames=5)
        bad = read(f"rtsp://admin:wr0ng@127.0.0.1:{port}/cam")
        none = read(f"rtsp://127.0.0.1:{port}/cam")
        apart = read(
            f"rtsp://other:login@127.0.0.1:{port}/cam", frames=5, login={"username": "admin", "password": "s3cret"}
        )
    assert len(good.frames) == len(apart.frames) == 5
    for reading in (bad, none):
        assert reading.error is not None
        assert reading.error.reason == "auth"
        assert "wr0ng" not in str(reading.error)


async def test_a_login_apart_may_hold_any_character_and_is_shown_nowhere(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    username, password = "ad@min", "p@s:s/w#r?d %40é"
    asked: list[CameraSource] = []

    def give_up() -> float:
        asked[0].request_stop()
        return 0.0

    with serve(clip, username, password) as port:
        url = f"rtsp://127.0.0.1:{port}/cam"
        good = read(url, frames=5, login={"username": username, "password": password})
        asked.append(
            CameraSource(
                "cam",
                url=url,
                username=username,
                password="wr@ng:s3cret",
                emit=lambda frame: None,
                ledger=CameraLedger("cam"),
                status=StatusBoard(["cam"]),
                retry=RetryDelays(random=give_up),
            )
        )
        async with asyncio.timeout(30):
            await asked[0].run()
    assert len(good.frames) == 5
    assert "user name" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_wrong_path(clip: Path) -> None:
    with serve(clip) as port:
        reading = read(f"rtsp://127.0.0.1:{port}/other")
    assert reading.error is not None
    assert reading.error.reason == "not_found"


def test_no_such_host_and_nobody_listening() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = read(f"rtsp://127.0.0.1:{closed.getsockname()[1]}/cam")
    unknown = read("rtsp://no-such-host.invalid/cam")
    assert refused.error is not None
    assert unknown.error is not None
    assert (refused.error.reason, unknown.error.reason) == ("refused", "dns")


def test_a_peer_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reading = read(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam", timeout_s=0.3)
    assert reading.error is not None
    assert reading.error.reason == "timeout"


async def test_a_camera_that_stops_sending_has_stalled_and_stopping_does_not_wait_for_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CameraSource, "STOP_GRACE_S", 0.05)
    frozen, stalled = threading.Event(), asyncio.Event()
    ledger, board = CameraLedger("cam"), StatusBoard(["cam"])

    with start_server(clip) as (server, port):

        def emit(frame: Frame) -> None:
            if frame.seq == 20:
                server.send_signal(signal.SIGSTOP)
                frozen.set()

        def give_up() -> float:
            stalled.set()
            return 0.0

        source = CameraSource(
            "cam",
            url=f"rtsp://127.0.0.1:{port}/cam",
            transport="tcp",
            emit=emit,
            ledger=ledger,
            status=board,
            retry=RetryDelays(random=give_up),
            read_timeout_s=1.0,
        )
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run())
            await asyncio.to_thread(frozen.wait)
            await stalled.wait()
            source.request_stop()
    assert not run.result().ended
    assert ledger.reconnects == {"stalled": 1}


async def test_a_lost_camera_is_reconnected_and_its_time_goes_on(clip: Path) -> None:
    frames: list[Frame] = []
    enough = threading.Event()

    def emit(frame: Frame) -> None:
        frames.append(frame)
        if frame.seq == 60:
            enough.set()

    ledger, board = CameraLedger("cam"), StatusBoard(["cam"])
    with serve(clip) as port:
        source = CameraSource(
            "cam",
            url=f"rtsp://127.0.0.1:{port}/cam",
            emit=emit,
            ledger=ledger,
            status=board,
            retry=RetryDelays(random=lambda: 0.0),
        )
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run())
            await asyncio.to_thread(enough.wait)
            assert board.statuses()["cam"].state is CameraState.ONLINE
            source.request_stop()
    assert not run.result().ended
    assert ledger.reconnects == {"eof": 1}
    assert [number_in(frame.picture) for frame in frames[:61]] == [*range(40), *range(21)]
    times = [frame.pts_s for frame in frames]
    assert all(0 < later - earlier < 0.1 for earlier, later in itertools.pairwise(times))


async def test_an_absent_camera_is_tried_again_until_the_run_stops(caplog: pytest.LogCaptureFixture) -> None:
    attempts = 0
    source: CameraSource

    def at_once() -> float:
        nonlocal attempts
        attempts += 1
        if attempts == 4:
            source.request_stop()
        return 0.0

    ledger, board = CameraLedger("cam"), StatusBoard(["cam"])
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"rtsp://admin:s3cret@127.0.0.1:{closed.getsockname()[1]}/cam"
        source = CameraSource(
            "cam", url=url, emit=lambda frame: None, ledger=ledger, status=board, retry=RetryDelays(random=at_once)
        )
        with caplog.at_level(logging.WARNING):
            async with asyncio.timeout(30):
                outcome = await source.run()
    assert (outcome.ended, outcome.error) == (False, None)
    assert ledger.reconnects == {"refused": 4}
    assert "Next attempt" in caplog.text
    assert "s3cret" not in caplog.text


async def test_capture_times_never_go_back_with_b_pictures(tmp_path: Path) -> None:
    """Their packets come in decoding order; an age that jumps by frames would cost every third picture."""
    path = write_video(tmp_path / "b.mp4", frames=60, options={"bf": "2"})
    frames: list[Frame] = []
    enough = threading.Event()

    def emit(frame: Frame) -> None:
        frames.append(frame)
        if frame.seq == 40:
            enough.set()

    ledger, board = CameraLedger("cam"), StatusBoard(["cam"])
    with serve(path) as port:
        source = CameraSource("cam", url=f"rtsp://127.0.0.1:{port}/cam", emit=emit, ledger=ledger, status=board)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(source.run())
            await asyncio.to_thread(enough.wait)
            source.request_stop()
    captured = [frame.captured_ns for frame in frames]
    assert captured == sorted(captured)
