"""A steady load: what is counted, what is not, and what ends it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from streamproc.bench.load import Latency, put_under_load
from streamproc.errors import EngineAwayError, EngineError

SECONDS = 0.02


async def nothing() -> None:
    await asyncio.sleep(0)


def test_percentiles_are_numpys() -> None:
    latencies_s = np.random.default_rng(1).gamma(2.0, 0.01, 500)
    found = Latency.of(latencies_s)
    expected = np.percentile(latencies_s, [50, 90, 95, 99]) * 1e3
    assert [found.p50, found.p90, found.p95, found.p99] == pytest.approx(expected.tolist())
    assert found.mean == pytest.approx(latencies_s.mean() * 1e3)


def test_one_latency_is_every_percentile() -> None:
    found = Latency.of(np.array([0.25]))
    assert {found.mean, found.p50, found.p90, found.p95, found.p99} == {250.0}


@pytest.mark.parametrize("workers", [1, 3])
async def test_as_many_requests_as_workers_are_under_way(workers: int) -> None:
    under_way, most = 0, 0

    async def request() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    load = await put_under_load(request, workers=workers, seconds=SECONDS, read=nothing)
    assert most == workers
    assert under_way == 0
    assert load.requests > 0
    assert load.wall_s >= SECONDS
    assert load.cpu_s > 0


async def test_the_warm_up_does_not_count() -> None:
    done = 0

    async def request() -> None:
        nonlocal done
        await asyncio.sleep(0)
        done += 1

    async def read() -> int:
        return done

    load = await put_under_load(request, workers=2, seconds=SECONDS, read=read)
    assert load.before >= 2 * 2
    assert load.requests < done - load.before + 2


async def test_lost_requests_are_counted_and_borne() -> None:
    requests = 0

    async def request() -> None:
        nonlocal requests
        requests += 1
        await asyncio.sleep(0)
        if requests % 50 == 0:
            raise EngineAwayError("turned away")

    load = await put_under_load(request, workers=4, seconds=0.2, read=nothing)
    assert load.failed > 0
    assert load.requests > 0


async def test_a_server_that_turns_everything_away_ends_it() -> None:
    async def request() -> None:
        raise EngineAwayError("nobody is at home")

    with pytest.raises(EngineError, match="nothing could be measured: nobody is at home"):
        await put_under_load(request, workers=8, seconds=SECONDS, read=nothing)


async def test_a_failed_inference_is_raised_as_it_is() -> None:
    async def request() -> None:
        await asyncio.sleep(0)
        raise EngineError("it is broken")

    with pytest.raises(EngineError, match="it is broken"):
        await put_under_load(request, workers=3, seconds=SECONDS, read=nothing)


async def test_a_bug_is_no_error_of_ours() -> None:
    async def request() -> None:
        raise KeyError("a bug")

    with pytest.raises(ExceptionGroup):
        await put_under_load(request, workers=1, seconds=SECONDS, read=nothing)
