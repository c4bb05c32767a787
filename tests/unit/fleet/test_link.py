"""Values from one end to the other, and what happens when an end is gone."""

from __future__ import annotations

import asyncio
import socket

import pytest

from streamproc.errors import ConfigError, ModelError, Problem, StreamprocError
from streamproc.fleet.link import Link
from streamproc.fleet.orders import Beat, Refused, Unit
from streamproc.ledger import AgeHistogram
from streamproc.report import BatchCounts, WorkerCounts
from streamproc.sinks.base import SinkCounts
from streamproc.types import AccessUnit


async def pair() -> tuple[Link, Link]:
    one, other = socket.socketpair()
    return await Link.over(one), await Link.over(other)


async def test_values_arrive_whole_and_in_order() -> None:
    one, other = await pair()
    unit = AccessUnit(data=bytes(range(256)) * 4000, codec="h264", pts_s=1.5, keyframe=True, captured_utc_ns=7)
    values: list[object] = [Unit(camera="gate", raw=True, unit=unit), "", None, list(range(1000))]
    for value in values:
        one.send(value)
    assert [await other.receive() for _ in values] == values
    await one.close()
    await other.close()


async def test_counts_cross_with_their_histogram() -> None:
    ages = AgeHistogram()
    ages.add(40)
    sink = SinkCounts()
    sink.taken, sink.lost["late"] = 3, 2
    batches = BatchCounts()
    batches.add(4)
    counts = WorkerCounts(
        cameras=("gate",), engine={}, batches=batches, sinks={"mqtt": sink}, carried=1, live_ages=ages, loop_load=0.5
    )
    one, other = await pair()
    one.send(Beat(counts=counts))
    arrived = await other.receive()
    assert isinstance(arrived, Beat)
    assert arrived.counts.live_ages is not None
    arrived.counts.live_ages.add(40)
    assert arrived.counts.live_ages.summary()["p50"] == pytest.approx(40, rel=0.02)
    assert sum(count for _, count in arrived.counts.live_ages.bins()) == 2
    assert (arrived.counts.sinks["mqtt"].taken, arrived.counts.sinks["mqtt"].lost) == (3, {"late": 2})
    assert arrived.counts.batches.mean_size == 4
    await one.close()
    await other.close()


@pytest.mark.parametrize(
    "error",
    [
        ModelError("model x: no"),
        ConfigError("cameras.yaml", [Problem(key="a.b", found="1", expected="2", remedy="Write 2.")]),
    ],
)
async def test_errors_cross_as_they_are(error: StreamprocError) -> None:
    one, other = await pair()
    one.send(Refused(error=error))
    arrived = await other.receive()
    assert isinstance(arrived, Refused)
    assert (type(arrived.error), str(arrived.error)) == (type(error), str(error))
    await one.close()
    await other.close()


async def test_an_end_that_is_gone_is_an_end_of_file() -> None:
    one, other = await pair()
    await other.close()
    with pytest.raises(EOFError):
        await one.receive()
    await asyncio.sleep(0)
    for _ in range(3):
        one.send("nobody listens")
    await one.close()
