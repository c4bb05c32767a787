"""Bounded channels between threads and the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.channel import Channel, Closed, LoopSignal, Overflow


def test_capacity_is_checked() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Channel[int](0, Overflow.BLOCK)


def test_drop_oldest_hands_over_what_it_discards() -> None:
    dropped: list[int] = []
    channel = Channel[int](2, Overflow.DROP_OLDEST, on_drop=dropped.append)
    assert all(channel.offer(i) for i in range(5))
    assert dropped == [0, 1, 2]
    assert channel.drain() == [3, 4]
    stats = channel.stats()
    assert (stats.accepted, stats.dropped, stats.length, stats.capacity) == (5, 3, 0, 2)


def test_block_refuses_without_waiting() -> None:
    channel = Channel[int](1, Overflow.BLOCK)
    assert channel.offer(1)
    assert not channel.offer(2)
    assert channel.peek() == 1
    assert channel.poll() == 1
    assert channel.poll() is None


def test_closed_for_senders_at_once_for_receivers_when_empty() -> None:
    channel = Channel[int](2, Overflow.BLOCK)
    channel.put(1)
    channel.close()
    with pytest.raises(Closed):
        channel.put(2)
    assert channel.get() == 1
    with pytest.raises(Closed):
        channel.get()


def test_closing_frees_a_thread_that_waits_for_room() -> None:
    channel = Channel[int](1, Overflow.BLOCK)
    channel.put(1)
    outcome: list[str] = []

    def sender() -> None:
        try:
            channel.put(2)
        except Closed:
            outcome.append("closed")

    thread = threading.Thread(target=sender)
    thread.start()
    channel.close()
    thread.join()
    assert outcome == ["closed"]


@pytest.mark.parametrize("capacity", [1, 3])
async def test_everything_gets_through_from_threads_to_a_task(capacity: int) -> None:
    channel = Channel[int](capacity, Overflow.BLOCK)

    def count_from(base: int) -> None:
        for i in range(200):
            channel.put(base + i)

    threads = [threading.Thread(target=count_from, args=(base,)) for base in (0, 1000, 2000)]
    for thread in threads:
        thread.start()

    async def close_at_end() -> None:
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        channel.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(close_at_end())
        got = [item async for item in channel]
    assert sorted(got) == [base + i for base in (0, 1000, 2000) for i in range(200)]
    assert [i for i in got if i < 1000] == list(range(200)), "order is kept"


async def test_everything_gets_through_from_a_task_to_a_thread() -> None:
    channel = Channel[int](2, Overflow.BLOCK)
    got: list[int] = []

    def receiver() -> None:
        try:
            while True:
                got.append(channel.get())
        except Closed:
            pass

    thread = threading.Thread(target=receiver)
    thread.start()
    for i in range(300):
        await channel.send(i)
    channel.close()
    await asyncio.to_thread(thread.join)
    assert got == list(range(300))


async def test_bursts_take_what_is_there_and_no_more_than_asked() -> None:
    channel = Channel[int](10, Overflow.BLOCK)
    for i in range(7):
        channel.put(i)
    channel.close()
    assert [burst async for burst in channel.bursts(3)] == [[0, 1, 2], [3, 4, 5], [6]]


async def test_closing_is_heard_while_nobody_receives() -> None:
    channel = Channel[int](2, Overflow.BLOCK)
    waiting = asyncio.create_task(channel.wait_closed())
    channel.put(1)
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(channel.close)
    await waiting
    await channel.wait_closed()
    assert channel.poll() == 1


async def test_a_cancelled_receiver_takes_nothing() -> None:
    channel = Channel[int](2, Overflow.BLOCK)
    waiting = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    channel.put(1)
    assert await channel.receive() == 1


async def test_signal_merges_rings_and_loses_none() -> None:
    signal = LoopSignal()
    for _ in range(10):
        signal.ring()
    assert await signal.wait()
    assert not await signal.wait(0.0), "ten rings before it was heard are one"
    await asyncio.to_thread(signal.ring)
    assert await signal.wait(5)


@given(st.lists(st.one_of(st.integers(0, 99), st.none()), max_size=80), st.integers(1, 5))
def test_drop_oldest_behaves_like_a_bounded_deque(steps: list[int | None], capacity: int) -> None:
    """Numbers are offered, None takes: the model is a list cut from the left."""
    dropped: list[int] = []
    channel = Channel[int](capacity, Overflow.DROP_OLDEST, on_drop=dropped.append)
    model: list[int] = []
    gone: list[int] = []
    for step in steps:
        if step is None:
            assert channel.poll() == (model.pop(0) if model else None)
        else:
            channel.offer(step)
            model.append(step)
            if len(model) > capacity:
                gone.append(model.pop(0))
    assert channel.drain() == model
    assert dropped == gone
