"""A slot that an abandoned inference may still touch stays out of the pool until it cannot."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import numpy as np
import pytest

from tests.fakes import FakeEngine


def engine(gate: asyncio.Event) -> FakeEngine:
    return FakeEngine(lambda images: {"n": np.zeros((len(images), 1))}, size=(32, 32), slots=2, gate=gate)


async def abandon(fake: FakeEngine) -> None:
    """Start an inference, stop waiting for it, and release its slot."""
    async with fake.lease() as slot:
        task = asyncio.ensure_future(fake.infer(slot, 1))
        await asyncio.sleep(0)
        assert fake.started == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_quarantine_ends_with_the_inference() -> None:
    gate = asyncio.Event()
    fake = engine(gate)
    await abandon(fake)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(fake.lease())
        second = asyncio.ensure_future(stack.enter_async_context(fake.lease()))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not second.done()
        gate.set()
        await second


async def test_close_waits_for_abandoned_inferences() -> None:
    gate = asyncio.Event()
    fake = engine(gate)
    await abandon(fake)
    closing = asyncio.ensure_future(fake.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing


async def test_a_running_slot_is_not_started_again() -> None:
    gate = asyncio.Event()
    fake = engine(gate)
    async with fake.lease() as slot:
        task = asyncio.ensure_future(fake.infer(slot, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        with pytest.raises(ValueError, match="still runs"):
            await fake.infer(slot, 1)
        gate.set()
    await fake.close()
