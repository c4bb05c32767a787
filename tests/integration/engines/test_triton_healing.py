"""What a server goes through, the engine gets over: killed, restarted, reloaded, paused, made to forget."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.utils

from streamproc.engines.triton import TritonEngine
from streamproc.engines.triton import server as server_module
from streamproc.errors import EngineAwayError, EngineError
from tests.integration.engines.scripted import (
    HOLD,
    Load,
    add_scripted,
    client,
    lease_all,
    means_of,
    open_engine,
    our_regions,
    paint,
)
from tests.triton import RunningServer, running_server

TRANSPORTS = ["system", "none"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of its own for a test that mistreats it."""
    repository = add_scripted(tmp_path / "models", instances=2, gate=tmp_path / "gate")
    with running_server(repository) as running:
        yield running


def open_gate(tmp_path: Path) -> None:
    (tmp_path / "gate").touch()


async def infer_one(engine: TritonEngine, number: int, *, patient: bool = False) -> None:
    """One batch, and its answer is right."""
    async with engine.lease() as slot:
        paint(slot.images[0], number)
        expected = means_of(slot.images[:1])
        outputs = await engine.infer(slot, 1, patient=patient)
        np.testing.assert_allclose(outputs["means"], expected, atol=1e-3)


async def outlive(engine: TritonEngine, server: RunningServer, rounds: int, *, patient: bool) -> Load:
    """Kill the server under load and start it again, over and over."""
    async with Load(engine, patient=patient) as load:
        for number in range(rounds):
            await load.more_answers()
            await asyncio.to_thread(server.kill)
            if not patient:
                await load.more_losses()
            await asyncio.to_thread(server.start)
            ready_s = time.monotonic()
            await load.more_answers(1)
            print(f"restart {number + 1}: batches again {1e3 * (time.monotonic() - ready_s):.0f} ms after readiness")
        await load.more_answers()
    assert load.sent == load.answered + load.lost
    await lease_all(engine)
    return load


@pytest.mark.parametrize(("transport", "rounds"), [("system", 3), ("none", 1)])
async def test_killed_and_restarted_under_load(server: RunningServer, transport: str, rounds: int) -> None:
    engine = await open_engine(server, shared_memory=transport)
    try:
        load = await outlive(engine, server, rounds, patient=False)
        assert load.lost > 0
        assert len(our_regions(server)) == (transport == "system")
    finally:
        await engine.close()
    assert our_regions(server) == []
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"streamproc-{os.getpid()}-")]


async def test_what_must_not_be_lost_waits_for_the_restart(server: RunningServer) -> None:
    engine = await open_engine(server)
    try:
        load = await outlive(engine, server, 1, patient=True)
        assert load.lost == 0
    finally:
        await engine.close()


@pytest.mark.drill
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_ten_restarts_leave_nothing_behind(server: RunningServer, transport: str) -> None:
    engine = await open_engine(server, shared_memory=transport)
    process = Path("/proc/self")

    def held() -> tuple[int, int, int]:
        return len(asyncio.all_tasks()), threading.active_count(), len(os.listdir(process / "fd"))

    def resident_mb() -> float:
        return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    try:
        await outlive(engine, server, 2, patient=False)
        before, memory_mb = held(), resident_mb()
        await outlive(engine, server, 10, patient=False)
        print(f"tasks, threads, descriptors {before} -> {held()}; memory {memory_mb:.1f} -> {resident_mb():.1f} MB")
        assert [after <= first for first, after in zip(before, held(), strict=True)] == [True] * 3
        assert resident_mb() - memory_mb < 10
    finally:
        await engine.close()


async def test_a_model_unloaded_and_loaded_again(server: RunningServer) -> None:
    engine = await open_engine(server)
    try:
        async with Load(engine) as load:
            with client(server) as operator:
                await load.more_answers()
                await asyncio.to_thread(operator.unload_model, "scripted")
                await load.more_losses()
                assert not engine.available
                await asyncio.to_thread(operator.load_model, "scripted")
            await load.more_answers()
        await lease_all(engine)
    finally:
        await engine.close()


async def test_a_new_version_takes_over_without_a_loss(tmp_path: Path) -> None:
    repository = add_scripted(tmp_path / "models", plus=1000)
    with running_server(repository) as server, client(server) as operator:
        newest, pinned = await open_engine(server), await open_engine(server, version=1)
        try:
            async with Load(newest, plus=(0, 1000)) as load:
                await load.more_answers()
                assert load.last_plus == 0
                add_scripted(repository, version=2, plus=1000)
                await asyncio.to_thread(operator.load_model, "scripted")
                while load.last_plus == 0:
                    await load.more_answers(1)
            assert load.lost == 0
            with pytest.raises(EngineAwayError, match=r"triton grpc://.*: not ready: .*version"):
                await infer_one(pinned, 1)
        finally:
            await newest.close()
            await pinned.close()


async def test_regions_that_another_client_unregistered_are_registered_again(server: RunningServer) -> None:
    engine = await open_engine(server, shared_memory="system")
    try:
        with client(server) as other:
            for name in (*our_regions(server), ""):
                while our_regions(server):  # refused for as long as the last answer is not quite out
                    with suppress(tritonclient.utils.InferenceServerException):
                        other.unregister_system_shared_memory(name)
                async with asyncio.TaskGroup() as group:
                    for number in range(engine.slots):
                        group.create_task(infer_one(engine, number))
                assert len(our_regions(server)) == 1
            async with Load(engine) as load:
                for name in [*our_regions(server), ""] * 10:
                    # Refused while a request uses it; a server before 24.10 would take it away all the same.
                    with suppress(tritonclient.utils.InferenceServerException):
                        await asyncio.to_thread(other.unregister_system_shared_memory, name)
                    await load.more_answers(1)
                await load.more_answers()
                lost = load.lost
                await load.more_answers()
                assert load.lost == lost
            await lease_all(engine)
    finally:
        await engine.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_paused_server_gets_nothing_and_keeps_its_slots_until_it_goes_on(
    server: RunningServer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "ABANDONED_S", 0.3)  # it is paused for longer
    engine = await open_engine(server, shared_memory=transport, timeout_s=0.4)
    leased: list[Any] = []
    try:
        async with Load(engine, on_slot=leased.append) as load:
            await load.more_answers()
            os.kill(server.pid, signal.SIGSTOP)
            try:
                await load.more_losses()
                held = [slot for slot in leased[-engine.slots :] if slot.running is not None]
                assert held
                leased.clear()
                assert not engine.available
                await load.more_losses(200)
                assert not [slot for slot in leased if any(slot is one for one in held)]
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await load.more_answers(50)
            await lease_all(engine)
    finally:
        await engine.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_batch_that_is_late_keeps_its_slot_until_it_is_answered(
    server: RunningServer, tmp_path: Path, transport: str
) -> None:
    engine = await open_engine(server, shared_memory=transport, timeout_s=0.4)
    leased: list[Any] = []
    try:
        async with engine.lease() as late:
            late.images[:] = HOLD
            with pytest.raises(EngineAwayError, match=r"not answered within engine.timeout_s, 0.4 s"):
                await engine.infer(late, 4)
            with pytest.raises(ValueError, match="its last inference was abandoned and still runs"):
                await engine.infer(late, 4)
        async with Load(engine, senders=engine.slots, on_slot=leased.append) as load:
            await load.more_answers(50)
            assert not [slot for slot in leased if slot is late]
            open_gate(tmp_path)
            await load.more_answers(50)
        await lease_all(engine)
    finally:
        await engine.close()


async def test_closing_does_not_wait_for_a_batch_that_is_never_answered(server: RunningServer, tmp_path: Path) -> None:
    engine, other = await open_engine(server, timeout_s=0.4), await open_engine(server)
    async with engine.lease() as slot:
        slot.images[:] = HOLD
        with pytest.raises(EngineAwayError):
            await engine.infer(slot, 4)
    await engine.close()
    assert len([name for name in os.listdir("/dev/shm") if name.startswith(f"streamproc-{os.getpid()}-")]) == 1
    open_gate(tmp_path)
    await infer_one(other, 5)
    await other.close()
    assert server.record.alive


def children_of(pid: int) -> list[int]:
    """The processes that this one has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_the_process_of_a_model_dies(server: RunningServer) -> None:
    engine = await open_engine(server)
    try:
        async with Load(engine) as load:
            await load.more_answers()
            for child in children_of(server.pid):
                os.kill(child, signal.SIGKILL)
            await load.more_losses(5)  # the server does not start such a process again by itself
            with client(server) as operator:
                await asyncio.to_thread(operator.unload_model, "scripted")
                await asyncio.to_thread(operator.load_model, "scripted")
            await load.more_answers()
        await lease_all(engine)
    finally:
        await engine.close()


async def infer_until_told(engine: TritonEngine, *, patient: bool) -> None:
    """Batches until one fails for good."""
    for _ in range(1000):
        with suppress(EngineAwayError):
            await infer_one(engine, 2, patient=patient)
        await asyncio.sleep(0.02)


async def test_a_server_that_comes_back_with_another_model_is_an_error(server: RunningServer, tmp_path: Path) -> None:
    engine = await open_engine(server)
    try:
        await infer_one(engine, 1)
        add_scripted(tmp_path / "models", size=(32, 32))
        await asyncio.to_thread(server.restart)
        with pytest.raises(
            EngineError, match=r"model scripted: .*(unexpected shape for input|other tensors than when)"
        ):
            await infer_until_told(engine, patient=False)
        add_scripted(tmp_path / "models")
        await asyncio.to_thread(server.restart)
        await infer_one(engine, 3, patient=True)
    finally:
        await engine.close()


async def test_a_server_seen_to_serve_another_model_is_not_used(server: RunningServer, tmp_path: Path) -> None:
    engine = await open_engine(server)
    try:
        await asyncio.to_thread(server.kill)
        with pytest.raises(EngineAwayError, match=r"triton grpc://.*: cannot be reached: .* Is the server running"):
            await infer_one(engine, 1)
        add_scripted(tmp_path / "models", size=(32, 32))
        await asyncio.to_thread(server.start)
        with pytest.raises(EngineError, match=r"model scripted: the server at grpc://.* now serves it with other tens"):
            await infer_until_told(engine, patient=True)
        assert engine.available, "so that somebody asks, and is told"
        add_scripted(tmp_path / "models")
        await asyncio.to_thread(server.restart)
        while engine._servers[0].broken is not None:  # noqa: ASYNC110 - what goes on in the background
            await asyncio.sleep(0.02)
        await infer_one(engine, 3, patient=True)
    finally:
        await engine.close()


async def served(server: RunningServer) -> int:
    """Batches that this server has answered since its start."""
    with client(server) as other:
        (statistics,) = (await asyncio.to_thread(other.get_inference_statistics, "scripted")).model_stats
    return int(statistics.inference_stats.success.count)


async def more_served(server: RunningServer) -> None:
    """Wait until this server has answered more batches."""
    before = await served(server)
    while await served(server) < before + 10:  # noqa: ASYNC110 - the server tells only who asks
        await asyncio.sleep(0.02)


async def test_two_servers_share_the_work_and_stand_in_for_each_other(tmp_path: Path) -> None:
    repository = add_scripted(tmp_path / "models")
    with running_server(repository) as first, running_server(repository) as second:
        await asyncio.to_thread(second.kill)
        engine = await open_engine(first, second, shared_memory="system")
        try:
            assert engine.concurrency == 4
            async with Load(engine, senders=4) as load:
                await more_served(first)
                await asyncio.to_thread(second.start)  # joins
                await more_served(second)
                await asyncio.to_thread(first.kill)
                await load.more_answers()
                assert engine.available
                await more_served(second)
                await asyncio.to_thread(first.start)
                await more_served(first)
                await more_served(second)
            assert load.lost <= 2, "those under way on the one that was killed"
            assert len(our_regions(first)) == len(our_regions(second)) == 1
            await lease_all(engine)
        finally:
            await engine.close()


async def test_work_that_must_not_be_lost_moves_to_the_other_server(tmp_path: Path) -> None:
    repository = add_scripted(tmp_path / "models")
    with running_server(repository) as first, running_server(repository) as second:
        engine = await open_engine(first, second)
        try:
            async with Load(engine, senders=4, patient=True) as load:
                await more_served(first)
                await more_served(second)
                await asyncio.to_thread(first.kill)
                await load.more_answers(50)
            assert load.lost == 0
        finally:
            await engine.close()
