"""Who does the work on pixels: the event loop while it has time to spare, other threads when it has not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from streamproc.pixels import PixelThreads

WINDOW_NS = 100_000_000


class Clocks:
    """The monotonic clock, and the processor time of the loop's thread."""

    def __init__(self) -> None:
        self.now_ns = self.used_ns = 0

    def pass_by(self, *, busy: float, windows: float = 1.0) -> None:
        self.now_ns += round(windows * WINDOW_NS)
        self.used_ns += round(windows * WINDOW_NS * busy)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def pixels(clocks: Clocks) -> Iterator[PixelThreads]:
    with PixelThreads(1, thread_ns=lambda: clocks.used_ns, monotonic_ns=lambda: clocks.now_ns) as threads:
        yield threads


async def runs_here(pixels: PixelThreads, pictures: int = 1) -> bool:
    return await pixels.do(pictures, threading.get_ident) == threading.get_ident()


async def test_a_single_picture_is_worked_on_where_it_stands(pixels: PixelThreads, clocks: Clocks) -> None:
    assert await runs_here(pixels)
    for _ in range(3):
        clocks.pass_by(busy=0.4)
        assert await runs_here(pixels)


async def test_a_batch_of_several_never_holds_up_the_loop(pixels: PixelThreads) -> None:
    assert not await runs_here(pixels, pictures=2)


async def test_a_busy_loop_hands_work_on_until_it_has_time_again(pixels: PixelThreads, clocks: Clocks) -> None:
    clocks.pass_by(busy=0.6)
    assert not await runs_here(pixels)
    clocks.pass_by(busy=0.0, windows=0.5)
    assert not await runs_here(pixels), "judged once in a window, lest a single picture tip the scale"
    clocks.pass_by(busy=0.2)
    assert await runs_here(pixels)


@pytest.mark.parametrize("pictures", [1, 2])
async def test_a_failure_comes_out_as_it_is(pixels: PixelThreads, pictures: int) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pixels.do(pictures, fail)
