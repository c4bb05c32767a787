"""The batching policy, with an injected clock."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.batching import Batcher, BatchTimes, Plan, Scheduler, Waiting
from streamproc.channel import Channel, LoopSignal, Overflow
from streamproc.ledger import DropReason
from streamproc.types import Frame, Picture

MS = 1_000_000
INTERVAL_NS = 1_000_000_000 // 24
MAX_AGE_NS = 100 * MS


def scheduler(weights: dict[str, float], *, max_batch: int = 1, expect_ms: float = 0.0) -> Scheduler:
    return Scheduler(
        weights,
        max_batch=max_batch,
        frame_interval_ns=INTERVAL_NS,
        max_age_ns=MAX_AGE_NS,
        expect_ns=lambda _: int(expect_ms * MS),
    )


def live(camera: str, captured_ns: int = 0) -> Waiting:
    return Waiting(camera=camera, captured_ns=captured_ns, live=True)


def test_nothing_waiting_means_wait_for_news() -> None:
    assert scheduler({"a": 1}).plan(0, []) == Plan()


def test_batch_of_one_leaves_at_once() -> None:
    assert scheduler({"a": 1, "b": 1}).plan(0, [live("a")]).take == ("a",)


def test_a_frame_that_would_be_late_is_dropped_before_inference() -> None:
    policy = scheduler({"a": 1}, expect_ms=30)
    assert policy.plan(71 * MS, [live("a", 0)]).stale == ("a",)
    assert policy.plan(69 * MS, [live("a", 0)]).take == ("a",)


def test_fresh_frames_are_tried_however_slow_inference_seems() -> None:
    """Otherwise one stall would stop inference for good, since only inference corrects the estimate."""
    policy = scheduler({"a": 1}, expect_ms=5000)
    assert policy.plan(12 * MS, [live("a", 0)]).take == ("a",)
    assert policy.plan(13 * MS, [live("a", 0)]).stale == ("a",)


def test_frames_of_files_never_get_stale() -> None:
    waiting = Waiting(camera="a", captured_ns=0, live=False)
    assert scheduler({"a": 1}, expect_ms=30).plan(10_000 * MS, [waiting]).take == ("a",)


def test_batch_waits_for_present_cameras_and_leaves_when_all_are_aboard() -> None:
    policy = scheduler({"a": 1, "b": 1}, max_batch=4)
    assert policy.plan(0, [live("a"), live("b")]).take == ("a", "b")
    waits = policy.plan(10 * MS, [live("a", 10 * MS)])
    assert waits.take == ()
    assert waits.wake_at_ns == 10 * MS + INTERVAL_NS
    assert policy.plan(12 * MS, [live("a", 10 * MS), live("b", 12 * MS)]).take == ("b", "a")


def test_batch_leaves_at_the_oldest_frames_deadline() -> None:
    policy = scheduler({"a": 1, "b": 1}, max_batch=4, expect_ms=40)
    policy.plan(0, [live("a"), live("b")])
    late = live("a", 15 * MS)
    assert policy.plan(60 * MS, [late]).wake_at_ns == 75 * MS
    assert policy.plan(75 * MS, [late]).take == ("a",)


def test_among_equals_the_freshest_frame_goes_first() -> None:
    policy = scheduler({"a": 1, "b": 1, "c": 1})
    waiting = [live("a", 2 * MS), live("b", 9 * MS), live("c", 5 * MS)]
    taken: list[str] = []
    while waiting:
        taken += policy.plan(10 * MS, waiting).take
        waiting = [each for each in waiting if each.camera not in taken]
    assert taken == ["b", "c", "a"]


def test_a_batch_is_no_larger_than_can_be_inferred_in_time() -> None:
    policy = Scheduler(
        dict.fromkeys("abcd", 1.0),
        max_batch=4,
        frame_interval_ns=INTERVAL_NS,
        max_age_ns=MAX_AGE_NS,
        expect_ns=lambda size: 20 * MS * size,
    )
    waiting = [live(camera, captured_ms * MS) for camera, captured_ms in zip("abcd", (60, 70, 80, 90), strict=True)]
    assert policy.plan(100 * MS, waiting).take == ("d", "c", "b"), "with a, it would be 120 ms old"
    assert policy.plan(120 * MS, [live("a", 60 * MS)]).take == ("a",), "later it may still go alone"


def test_an_absent_camera_is_not_waited_for() -> None:
    policy = scheduler({"a": 1, "b": 1}, max_batch=4)
    policy.plan(0, [live("a"), live("b")])
    now_ns = 4 * INTERVAL_NS
    assert policy.plan(now_ns, [live("a", now_ns)]).take == ("a",)


def test_one_file_fills_a_batch_by_itself() -> None:
    waiting = Waiting(camera="a", captured_ns=0, live=False, count=3)
    assert scheduler({"a": 1}, max_batch=8).plan(0, [waiting]).take == ("a", "a", "a")


@pytest.mark.parametrize("max_batch", [1, 2])
def test_overload_shares_by_weight(max_batch: int) -> None:
    """Everybody always has a frame waiting: rates are as the weights."""
    policy = scheduler({"a": 2, "b": 1, "c": 1, "d": 1}, max_batch=max_batch)
    served: Counter[str] = Counter()
    for _ in range(1000):
        served.update(policy.plan(0, [live(c) for c in "abcd"]).take)
    total = sum(served.values())
    assert served["a"] == pytest.approx(total * 2 / 5, abs=max_batch + 1)
    for camera in "bcd":
        assert served[camera] == pytest.approx(total / 5, abs=max_batch + 1)


@pytest.mark.parametrize("seed", range(5))
def test_paced_cameras_share_an_overloaded_engine_fairly(seed: int) -> None:
    """Four 24 FPS cameras of random phase, an engine that does 60 frames/s: equal weights within 10 %, double twice."""
    generator = random.Random(seed)
    for weights in ({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}, {"a": 2.0, "b": 1.0, "c": 1.0, "d": 1.0}):
        policy = scheduler(weights, expect_ms=33)
        due = {c: generator.randrange(INTERVAL_NS) for c in weights}
        box: dict[str, int] = {}
        served: Counter[str] = Counter()
        for now_ns in range(0, 20_000 * MS, 1_000 * MS // 60):
            for camera in weights:
                while due[camera] <= now_ns:
                    box[camera] = due[camera]
                    due[camera] += INTERVAL_NS
            plan = policy.plan(now_ns, [live(c, t) for c, t in box.items()])
            for camera in plan.stale + plan.take:
                del box[camera]
            served.update(plan.take)
        ones = [served[c] for c, w in weights.items() if w == 1.0]
        assert max(ones) <= 1.1 * min(ones)
        if weights["a"] == 2.0:
            assert 1.8 <= served["a"] / (sum(ones) / len(ones)) <= 2.1


@pytest.mark.parametrize("seed", range(5))
def test_a_tight_budget_is_still_shared_fairly(seed: int) -> None:
    """Frames stay fresh for 25 of 42 ms, so not everybody has one when there is room: about 30 of 96 frames/s."""
    generator = random.Random(seed)
    policy = scheduler(dict.fromkeys("abcd", 1.0), expect_ms=75)
    due = {c: generator.randrange(INTERVAL_NS) for c in "abcd"}
    box: dict[str, int] = {}
    served: Counter[str] = Counter()
    room_ns = 0
    for now_ns in range(0, 20_000 * MS, MS):
        for camera in due:
            if due[camera] <= now_ns:
                box[camera] = due[camera]
                due[camera] += INTERVAL_NS
        plan = policy.plan(now_ns, [live(c, t) for c, t in box.items()]) if now_ns >= room_ns else Plan()
        for camera in plan.stale + plan.take:
            del box[camera]
        if plan.take:
            served.update(plan.take)
            room_ns = now_ns + generator.randrange(25 * MS, 41 * MS)
    assert max(served.values()) <= 1.1 * min(served.values())


def test_a_camera_that_was_away_does_not_catch_up() -> None:
    policy = scheduler({"a": 1, "b": 1})
    for _ in range(100):
        policy.plan(0, [live("a")])
    taken = [policy.plan(0, [live("a"), live("b")]).take[0] for _ in range(20)]
    assert taken.count("b") <= 11


def test_room_is_kept_for_a_camera_whose_frames_came_at_the_wrong_moments() -> None:
    policy = scheduler({"a": 1, "b": 1}, expect_ms=50)
    plans = []
    for i in range(5):
        now_ns = i * INTERVAL_NS
        assert policy.plan(now_ns, [live("b", now_ns - 60 * MS)]).stale == ("b",)
        plans.append(policy.plan(now_ns, [live("a", now_ns)]))
    assert [plan.take for plan in plans] == [("a",), ("a",), (), (), ()]
    assert plans[-1].wake_at_ns == now_ns + INTERVAL_NS, "b's next frame is due then"
    now_ns += INTERVAL_NS
    waiting = [live("a", now_ns), live("b", now_ns)]
    assert [policy.plan(now_ns, waiting).take for _ in range(4)] == [("b",), ("b",), ("a",), ("b",)]


def test_room_is_not_kept_for_ever() -> None:
    policy = scheduler({"a": 1, "b": 1}, expect_ms=50)
    for i in range(5):
        now_ns = i * INTERVAL_NS
        policy.plan(now_ns, [live("b", now_ns - 60 * MS)])
        policy.plan(now_ns, [live("a", now_ns)])
    now_ns += INTERVAL_NS
    assert policy.plan(now_ns, [live("a", now_ns)]).take == ("a",)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=1),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 50 * MS), st.sets(st.sampled_from("abcdefgh")), st.booleans()), max_size=60),
)
def test_plans_are_always_sound(
    weights: dict[str, float], max_batch: int, steps: list[tuple[int, set[str], bool]]
) -> None:
    policy = scheduler(weights, max_batch=max_batch, expect_ms=10)
    now_ns = 0
    for passed_ns, cameras, is_live in steps:
        now_ns += passed_ns
        waiting = [
            Waiting(camera=c, captured_ns=now_ns - i * 3 * MS, live=is_live, count=1 if is_live else 2)
            for i, c in enumerate(sorted(cameras & set(weights)))
        ]
        plan = policy.plan(now_ns, waiting)
        counts = Counter(plan.take)
        assert len(plan.take) <= max_batch
        assert all(counts[w.camera] <= w.count for w in waiting)
        assert set(plan.take) | set(plan.stale) <= {w.camera for w in waiting}
        assert not (plan.take and plan.stale)
        if plan.wake_at_ns is not None:
            assert now_ns < plan.wake_at_ns <= now_ns + INTERVAL_NS
        if waiting and not plan.stale and not plan.take:
            assert plan.wake_at_ns is not None


def test_batch_times_follow_what_is_measured() -> None:
    times = BatchTimes()
    assert times.expect_ns(1) == 0
    for _ in range(50):
        times.add(1, 10 * MS)
    assert times.expect_ns(1) == 10 * MS
    assert times.expect_ns(4) == 25 * MS, "an unknown larger size is scaled by half"
    times.add(4, 16 * MS)
    assert times.expect_ns(4) == 16 * MS
    assert times.expect_ns(3) == 16 * MS, "an unknown smaller size is not scaled"
    for _ in range(50):
        times.add(1, 30 * MS)
    assert times.expect_ns(1) == pytest.approx(30 * MS, rel=0.05)
    assert times.expect_ns(4) == pytest.approx(75 * MS, rel=0.05), "what was measured long ago is forgotten"


def frame(seq: int, captured_ns: int, *, is_live: bool = True) -> Frame:
    planes = (np.zeros((2, 2), np.uint8), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    return Frame(
        camera="a",
        seq=seq,
        pts_s=seq / 24,
        captured_ns=captured_ns,
        captured_utc_ns=captured_ns,
        live=is_live,
        picture=Picture(planes=planes, layout="yuv420p"),
    )


async def batcher(
    now_ns: int, *frames: Frame, overflow: Overflow = Overflow.DROP_OLDEST, expect_ms: float = 10
) -> tuple[Batcher, list[tuple[int, DropReason]]]:
    """One over these frames, and a list of those that it is going to drop."""
    signal = LoopSignal()
    dropped: list[tuple[int, DropReason]] = []
    box: Channel[Frame] = Channel(2, overflow, on_put=signal.ring)
    for item in frames:
        box.offer(item)
    box.close()
    policy = scheduler({"a": 1}, expect_ms=expect_ms)
    return (
        Batcher(
            {"a": box},
            policy,
            signal,
            frame_interval_ns=INTERVAL_NS,
            not_inferred=lambda frame, reason: dropped.append((frame.seq, reason)),
            monotonic_ns=lambda: now_ns,
        ),
        dropped,
    )


async def test_frames_that_arrive_together_are_both_served() -> None:
    forming, dropped = await batcher(2 * MS, frame(0, 0), frame(1, MS))
    assert [f.seq for f in await forming.next_batch()] == [0]
    assert [f.seq for f in await forming.next_batch()] == [1]
    assert await forming.next_batch() == []
    assert dropped == []


async def test_an_old_frame_gives_way_to_the_newer_one_behind_it() -> None:
    """Where inference takes longer than a frame's time."""
    forming, dropped = await batcher(60 * MS, frame(0, 0), frame(1, 50 * MS), expect_ms=45)
    assert [f.seq for f in await forming.next_batch()] == [1]
    assert dropped == [(0, DropReason.OVERLOAD)]


async def test_a_frame_that_took_long_to_decode_is_served_where_there_is_time() -> None:
    forming, dropped = await batcher(60 * MS, frame(0, 0), frame(1, 50 * MS), expect_ms=10)
    assert [[f.seq for f in await forming.next_batch()] for _ in range(2)] == [[0], [1]]
    assert dropped == []
    forming, dropped = await batcher(86 * MS, frame(0, 0), frame(1, 50 * MS), expect_ms=10)
    assert [f.seq for f in await forming.next_batch()] == [1]
    assert dropped == [(0, DropReason.OVERLOAD)]


@pytest.mark.parametrize(
    ("expect_ms", "cameras", "max_batch", "keeps_up"),
    [(10, 4, 1, True), (10, 5, 1, False), (40, 8, 8, True), (40, 9, 8, False), (0, 64, 1, True)],
)
def test_the_engine_keeps_up_or_not(expect_ms: float, cameras: int, max_batch: int, keeps_up: bool) -> None:
    policy = scheduler({f"{number}": 1.0 for number in range(cameras)}, max_batch=max_batch, expect_ms=expect_ms)
    policy.plan(0, [live(f"{number}") for number in range(cameras)])
    assert policy.keeps_up(1) is keeps_up


async def test_stale_frames_are_told_of() -> None:
    forming, dropped = await batcher(200 * MS, frame(0, 0), frame(1, 50 * MS))
    assert await forming.next_batch() == []
    assert dropped == [(0, DropReason.OVERLOAD), (1, DropReason.STALE)]


async def test_frames_of_files_are_all_served() -> None:
    forming, dropped = await batcher(
        9000 * MS, frame(0, 0, is_live=False), frame(1, 1, is_live=False), overflow=Overflow.BLOCK
    )
    assert [[f.seq for f in await forming.next_batch()] for _ in range(2)] == [[0], [1]]
    assert dropped == []
