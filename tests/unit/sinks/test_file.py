from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamproc.channel import Channel, Overflow
from streamproc.errors import FatalError
from streamproc.sinks.base import Delivery
from streamproc.sinks.file import FileSink
from tests.deliveries import Deliveries


async def write(sink: FileSink, deliveries: list[Delivery]) -> None:
    """Run the sink over these deliveries, to its end."""
    inbox: Channel[Delivery] = Channel(len(deliveries) + 1, Overflow.BLOCK)
    for delivery in deliveries:
        inbox.offer(delivery)
    inbox.close()
    await sink.start()
    await sink.run(inbox)


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_every_frame_is_a_line_and_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "out.jsonl"
    for _ in range(2):
        gate = Deliveries("gate", max_age_ms=None)
        sink = FileSink(str(path), site="depot", cameras=["gate"])
        await write(sink, [gate.make() for _ in range(300)])
        assert (gate.ledger.tally().published, gate.unanswered, sink.counts.taken) == (300, 0, 300)
    assert numbers(path) == [*range(300)] * 2
    line = json.loads(path.read_text().splitlines()[0])
    assert (line["schema"], line["site"], line["camera"]) == ("streamproc.detections/1", "depot", "gate")
    assert len(line["detections"]) == 10


async def test_a_file_for_every_camera(tmp_path: Path) -> None:
    gate, yard = Deliveries("gate", max_age_ms=None), Deliveries("yard", max_age_ms=None)
    sink = FileSink(str(tmp_path / "{camera}" / "out.jsonl"), site="depot", cameras=["gate", "yard"])
    await write(sink, [each.make() for _ in range(200) for each in (gate, yard)])
    for each in (gate, yard):
        camera = each.ledger.camera
        path = tmp_path / camera / "out.jsonl"
        assert numbers(path) == list(range(200))
        assert {json.loads(line)["camera"] for line in path.read_text().splitlines()} == {camera}


async def test_no_frames_leave_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    await write(FileSink(str(path), site="depot", cameras=["gate"]), [])
    assert path.read_bytes() == b""


async def test_what_is_too_old_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    gate = Deliveries("gate", max_age_ms=60_000)
    sink = FileSink(str(path), site="depot", cameras=["gate"])
    await write(sink, [gate.make(), gate.make(age_ms=70_000), gate.make()])
    assert numbers(path) == [0, 2]
    assert (sink.counts.taken, sink.counts.lost) == (2, Counter(late=1))
    assert gate.ledger.tally().dropped == {"late": 1}


@pytest.mark.parametrize("limit", [5_000, 20_000, 40_000])
async def test_a_line_that_does_not_fit_leaves_no_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    path = tmp_path / "out.jsonl"
    gate = Deliveries("gate", max_age_ms=None)
    sink = FileSink(str(path), site="depot", cameras=["gate"])
    inbox: Channel[Delivery] = Channel(1000, Overflow.BLOCK)
    caplog.set_level(logging.WARNING)
    await sink.start()
    with files_limited_to(limit):
        async with asyncio.TaskGroup() as group:
            group.create_task(sink.run(inbox))
            for _ in range(200):
                await inbox.send(gate.make())
            async with asyncio.timeout(20):
                while gate.unanswered:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            kept = numbers(path)
            assert kept == list(range(len(kept)))
            assert 0 < len(kept) == sink.counts.taken == 200 - sink.counts.lost["sink"]
            assert path.read_bytes().endswith(b"\n")
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await inbox.send(gate.make())
            inbox.close()
    assert numbers(path) == [*kept, 200], "it tries again, and goes on when there is room"
    assert f"cannot write {path}: File too large" in caplog.text
    assert len(caplog.records) == 1


async def test_a_full_disk_loses_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    gate = Deliveries("gate", max_age_ms=None)
    sink = FileSink("/dev/full", site="depot", cameras=["gate"])
    await write(sink, [gate.make() for _ in range(500)])
    assert gate.ledger.tally().dropped == {"sink": 500}
    assert sink.counts.lost == Counter(sink=500)
    assert "cannot write /dev/full: No space left on device. Free space on that disk" in caplog.text
    assert len(caplog.records) == 1


async def test_a_file_that_cannot_be_opened_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(FatalError, match=rf"cannot open {tmp_path}: Is a directory\. Name a file"):
        await FileSink(str(tmp_path), site="depot", cameras=["gate"]).start()
    beneath = tmp_path / "plain" / "out.jsonl"
    with pytest.raises(FatalError, match=rf"cannot open {beneath}: .*change file\.path"):
        await FileSink(str(beneath), site="depot", cameras=["gate"]).start()
    with pytest.raises(FatalError, match=r"cannot open /proc/out\.jsonl"):
        await FileSink("/proc/out.jsonl", site="depot", cameras=["gate"]).start()


async def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """A pipe that nobody reads stands for the disk: the loop goes on, and cancelling answers everything."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        gate = Deliveries("gate", max_age_ms=None)
        sink = FileSink(str(pipe), site="depot", cameras=["gate"])
        inbox: Channel[Delivery] = Channel(1000, Overflow.BLOCK)
        await sink.start()
        task = asyncio.create_task(sink.run(inbox))
        for _ in range(1000):
            await inbox.send(gate.make())
        await asyncio.sleep(0)
        assert gate.unanswered > 0
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert gate.unanswered == 0
    finally:
        os.close(reader)
    for thread in threading.enumerate():
        if thread.name.startswith("file sink"):
            thread.join(10)
