"""Who goes first where the processor is short."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamproc.priority import give_way, yielding


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def of_a_thread_started_here() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(niceness).result()


async def test_work_and_the_threads_that_it_starts_give_way_and_nobody_else_does() -> None:
    before = niceness()
    assert before < await yielding(niceness) == await yielding(of_a_thread_started_here)
    assert niceness() == before
    assert of_a_thread_started_here() == before


async def test_what_goes_wrong_comes_out() -> None:
    def fail() -> None:
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        await yielding(fail)


def test_there_is_an_end_to_giving_way() -> None:
    def often() -> int:
        for _ in range(9):
            give_way()
        return niceness()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(often).result() == 19
