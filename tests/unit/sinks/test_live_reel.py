from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.channel import Closed
from streamproc.sinks.live_reel import Pace, Reel, Shot
from streamproc.types import Detections, Frame, FrameResult, Picture

PICTURE = Picture(planes=(np.zeros((240, 320), np.uint8), *2 * (np.zeros((120, 160), np.uint8),)), layout="yuv420p")


def frame(seq: int) -> Frame:
    return Frame(
        camera="gate",
        seq=seq,
        pts_s=seq / 24,
        captured_ns=round(seq / 24 * 1e9),
        captured_utc_ns=0,
        live=True,
        picture=PICTURE,
    )


def found(seq: int) -> FrameResult:
    """Somebody who moves on by two pixels a frame."""
    detections = Detections.of(
        np.array([(10 + 2 * seq, 50, 30 + 2 * seq, 110)], np.float32),
        np.array([0.9], np.float32),
        np.array([0], np.int64),
        np.array([1], np.int64),
    )
    return FrameResult(frame=frame(seq), detections=detections, labels=("person",), model="m")


class House:
    """A reel, what it lost, and a thread's view of it."""

    def __init__(self, fps: float | None = None) -> None:
        self.lost: Counter[str] = Counter()
        self.reel = Reel(fps, on_lost=self._count)

    def _count(self, reason: str) -> None:
        self.lost[reason] += 1

    def inferred(self, *numbers: int) -> None:
        for seq in numbers:
            self.reel.put(frame(seq), found(seq))

    def dropped(self, *numbers: int) -> None:
        for seq in numbers:
            self.reel.put(frame(seq), None)

    def take(self, count: int) -> list[Shot]:
        assert len(self.reel) >= count, "the test would hang"
        return [self.reel.get() for _ in range(count)]


def summary(shots: list[Shot]) -> list[tuple[int, bool]]:
    return [(shot.frame.seq, shot.carried) for shot in shots]


def test_frames_come_in_order_with_their_results_or_carried_ones() -> None:
    house = House()
    house.inferred(0, 1)
    assert summary(house.take(2)) == [(0, False), (1, False)]
    house.dropped(3)
    house.inferred(2)
    shots = house.take(2)
    assert summary(shots) == [(2, False), (3, True)]
    assert shots[0].result().detections.boxes.tolist() == [[14, 50, 34, 110]]
    np.testing.assert_allclose(shots[1].result().detections.boxes, [(16, 50, 36, 110)], atol=0.01)
    assert shots[1].result().frame is shots[1].frame
    house.dropped(4)
    assert summary(house.take(1)) == [(4, True)]
    assert house.lost == {}


def test_what_came_free_together_is_kept_together() -> None:
    house = House()
    house.inferred(0)
    house.take(1)
    house.dropped(2, 3, 4, 5, 6)
    house.inferred(1)
    house.dropped(7)
    assert summary(house.take(7)) == [(1, False), *((seq, True) for seq in range(2, 8))]
    assert house.lost == {}


def test_what_came_free_together_makes_no_room_for_what_comes_after() -> None:
    house = House()
    house.inferred(0)
    house.take(1)
    house.dropped(2, 3, 4, 5, 6)
    house.inferred(1)
    house.take(3)
    house.dropped(7, 8, 9)
    assert summary(house.take(4)) == [(seq, True) for seq in (6, 7, 8, 9)]
    assert house.lost == {"overload": 2}
    house.dropped(10, 11, 12)
    assert summary(house.take(2)) == [(11, True), (12, True)]


def test_a_thread_that_is_behind_gets_the_newest() -> None:
    house = House()
    house.inferred(*range(20))
    assert summary(house.take(2)) == [(18, False), (19, False)]
    assert house.lost == {"overload": 18}


def test_pictures_that_were_not_inferred_give_way_first() -> None:
    house = House()
    house.inferred(0)
    house.dropped(1, 2, 3)
    assert summary(house.take(2)) == [(0, False), (3, True)]
    house.dropped(4)
    house.inferred(5, 6)
    house.dropped(7)
    assert summary(house.take(2)) == [(5, False), (6, False)]
    assert house.lost == {"overload": 4}


def test_an_inference_that_takes_too_long_holds_nothing_up_and_is_still_of_use() -> None:
    house = House()
    house.inferred(0)
    house.dropped(*range(2, 11))  # one more than are held, while 1 is being inferred
    house.inferred(1)
    shots = house.take(10)
    assert summary(shots) == [(0, False), *((seq, True) for seq in range(2, 11))]
    assert shots[-1].result().detections.boxes.tolist() == [[10, 50, 30, 110]]
    house.dropped(11)
    [shot] = house.take(1)
    np.testing.assert_allclose(shot.result().detections.boxes, [(32, 50, 52, 110)], atol=0.01)
    assert house.lost == {"late": 1}


def test_beyond_the_rate_nothing_is_shown_and_all_is_remembered() -> None:
    house = House(fps=8)
    house.inferred(0, 1, 2)
    house.dropped(3, 4)
    assert len(house.reel) == 2
    shots = house.take(2)
    assert summary(shots) == [(0, False), (4, True)]
    np.testing.assert_allclose(shots[1].result().detections.boxes, [(18, 50, 38, 110)], atol=0.01)
    assert house.lost == {"rate": 3}


def test_closing_tells_what_is_left_behind() -> None:
    house = House()
    house.inferred(0, 1)
    house.dropped(3, 4)
    assert house.reel.close() == 4
    assert house.reel.close() == 0
    with pytest.raises(Closed):
        house.reel.get()
    with pytest.raises(Closed):
        house.dropped(2)
    assert house.lost == {}


def test_a_waiting_thread_is_woken() -> None:
    house = House()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(house.reel.get)
        house.dropped(0)
        assert waiting.result(60).frame.seq == 0
        waiting = pool.submit(house.reel.get)
        house.reel.close()
        with pytest.raises(Closed):
            waiting.result(60)


def test_many_threads_may_put_at_once() -> None:
    house, count = House(), 4000
    results, drops = list(range(0, count, 5)), [seq for seq in range(count) if seq % 5]
    taken: list[int] = []

    def take() -> None:
        try:
            while True:
                taken.append(house.reel.get().frame.seq)
        except Closed:
            return

    with ThreadPoolExecutor(1) as taker:
        taking = taker.submit(take)
        threads = [
            threading.Thread(target=put, args=numbers)
            for put, numbers in ((house.inferred, results), (house.dropped, drops[::2]), (house.dropped, drops[1::2]))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        left = house.reel.close()
        taking.result(60)
    assert taken == sorted(set(taken))
    assert len(taken) + left + sum(house.lost.values()) == count


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["infer", "drop", "take"]), st.integers(0, 40)), max_size=80))
def test_every_frame_is_shown_lost_or_left_and_never_many_wait(events: list[tuple[str, int]]) -> None:
    house, shown, put = House(), list[int](), set[int]()
    for what, seq in events:
        if what == "take":
            if len(house.reel):
                shown.append(house.reel.get().frame.seq)
        elif seq not in put:
            put.add(seq)
            (house.inferred if what == "infer" else house.dropped)(seq)
        assert len(house.reel) <= 10
    assert shown == sorted(set(shown))
    assert len(shown) + sum(house.lost.values()) + house.reel.close() == len(put)


@pytest.mark.parametrize("inferred", [True, False])
@pytest.mark.parametrize(
    ("camera_fps", "fps", "shown"), [(24, 8, 8), (24, 24, 24), (30, 24, 24), (10, 24, 10), (24, None, 24)]
)
def test_fewer_pictures_are_shown_evenly(camera_fps: float, fps: float | None, shown: int, inferred: bool) -> None:
    rng = np.random.default_rng(1)
    trembling = rng.uniform(-0.1, 0.1, round(10 * camera_fps)) / camera_fps
    pace = Pace(fps)
    times = [index / camera_fps + offset for index, offset in enumerate(trembling)]
    kept = [time for time in times if pace.due(time, inferred=inferred)]
    assert abs(len(kept) - 10 * shown) <= 2
    assert max(np.diff(kept)) < 1.3 / shown + 1 / camera_fps


@pytest.mark.parametrize("fps", [8, 10, 12, 16, 24])
@pytest.mark.parametrize("phase", [0, 1, 2])
def test_among_fewer_pictures_those_that_were_inferred_come_first(fps: float, phase: int) -> None:
    pace = Pace(fps)
    kept = [index for index in range(240) if pace.due(index / 24, inferred=index % 3 == phase)]
    assert abs(len(kept) - 10 * fps) <= 1
    assert sum(index % 3 == phase for index in kept) >= 79
    assert max(np.diff(kept)) <= 2.5 * 24 / fps


def test_where_few_are_inferred_others_fill_the_gaps() -> None:
    pace = Pace(8)
    kept = [index for index in range(240) if pace.due(index / 24, inferred=index % 10 == 0)]
    assert abs(len(kept) - 80) <= 1
    assert set(range(0, 240, 10)) <= set(kept)
    assert max(np.diff(kept)) <= 2.5 * 24 / 8
