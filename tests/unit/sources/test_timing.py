from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.sources.timing import FrameSampler, MediaClock, Pacer, TimestampPicker

TIMESTAMPS = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda s: round(s, 3))))


def test_media_time_follows_variable_timestamps_from_zero() -> None:
    clock = MediaClock()
    clock.begin(25.0)
    assert [clock.advance(s) for s in (7.0, 7.01, 7.5, 8.25)] == pytest.approx([0.0, 0.01, 0.5, 1.25])


def test_a_new_file_a_jump_and_a_missing_timestamp_continue_by_one_period() -> None:
    clock = MediaClock()
    clock.begin(10.0)
    times = [clock.advance(s) for s in (0.0, 0.1, None, 5000.0, 5000.1, 0.0, 0.1)]
    clock.begin(20.0)
    times += [clock.advance(s) for s in (90.0, 90.05)]
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7])


def test_from_keyframe_to_keyframe_a_long_step_is_no_jump() -> None:
    clock = MediaClock()
    clock.begin(24.0)
    steps = [(0.0, 1), (250 / 24, 250), (500 / 24, 250), (9000.0, 240), (9012.0, 1)]
    assert [clock.advance(s, pictures=n) for s, n in steps] == pytest.approx(
        [0.0, 250 / 24, 500 / 24, 740 / 24, 741 / 24]
    )


@pytest.mark.parametrize("rate", [None, 0.0, 90_000.0])
def test_an_absurd_rate_is_not_believed(rate: float | None) -> None:
    clock = MediaClock()
    clock.begin(rate)
    assert [clock.advance(None), clock.advance(None)] == [0.0, 0.04]


@given(files=st.lists(TIMESTAMPS, max_size=5), rate=st.one_of(st.none(), st.floats(0, 1e5)))
def test_media_time_is_strictly_increasing_whatever_comes(files: list[list[float | None]], rate: float | None) -> None:
    clock = MediaClock()
    times = []
    for timestamps in files:
        clock.begin(rate)
        times += [clock.advance(s) for s in timestamps]
    assert all(0 < after - before <= MediaClock.MAX_STEP_S + 1e-6 for before, after in itertools.pairwise(times))
    assert times[:1] in ([], [0.0])


@given(st.lists(st.integers(1, 1000), max_size=40))
def test_sound_presentation_times_are_taken_as_they_are(steps: list[int]) -> None:
    picker = TimestampPicker()
    times = list(itertools.accumulate(steps))
    assert [picker.pick(ticks, None) for ticks in times] == times


@given(st.lists(st.tuples(st.none() | st.integers(), st.none() | st.integers())))
def test_a_picked_timestamp_is_one_of_the_two(pairs: list[tuple[int | None, int | None]]) -> None:
    picker = TimestampPicker()
    assert all(picker.pick(pts, dts) in (pts, dts) for pts, dts in pairs)


@given(
    fps=st.floats(0.1, 60),
    steps=st.lists(st.floats(0.001, 20), max_size=100),
)
def test_sampling_never_exceeds_its_rate(fps: float, steps: list[float]) -> None:
    sampler = FrameSampler(fps)
    taken = [pts_s for pts_s in itertools.accumulate(steps, initial=0.0) if sampler.wants(pts_s)]
    assert taken[0] == 0.0
    for first, last in itertools.combinations(range(len(taken)), 2):
        # One more than the time between them has room for, half a period of grid and the slack.
        assert last - first <= (taken[last] - taken[first] + FrameSampler.SLACK_S) * fps + 1.501


@pytest.mark.parametrize("rate", [5, 10, 12, 15, 24, 25, 30, 60])
@pytest.mark.parametrize("jitter_s", [0.0, 0.004])
def test_sampling_gives_the_rate_asked_for_or_the_cameras(rate: int, jitter_s: float) -> None:
    sampler = FrameSampler(10.0)
    times = [n / rate + jitter_s * (-1) ** n for n in range(rate * 60)]
    assert sum(sampler.wants(max(pts_s, 0.0)) for pts_s in times) == pytest.approx(60 * min(rate, 10), abs=3)


class FakeTime:
    """A clock that only waiting, and the test, move on; waits overshoot by ``late_ns``."""

    def __init__(self, late_ns: int = 0) -> None:
        self.now_ns = 10**12
        self.late_ns = late_ns
        self.stopped = False
        self.lags: list[float] = []

    def wait(self, timeout_s: float) -> bool:
        if not self.stopped:
            self.now_ns += round(timeout_s * 1e9) + self.late_ns
        return self.stopped

    def pacer(self) -> Pacer:
        return Pacer(wait=self.wait, on_lag=self.lags.append, clock_ns=lambda: self.now_ns)


def test_pictures_are_due_at_their_media_time_and_not_let_go_before() -> None:
    time = FakeTime()
    pacer, start_ns = time.pacer(), time.now_ns
    for pts_s in (0.0, 0.01, 0.5, 0.5625):
        due_ns = pacer.hold(pts_s)
        assert due_ns == start_ns + round(pts_s * 1e9)
        assert time.now_ns == due_ns


def test_a_small_decoding_lag_is_age_not_a_new_origin() -> None:
    time = FakeTime()
    pacer, start_ns = time.pacer(), time.now_ns
    pacer.hold(0.0)
    time.now_ns += 200_000_000
    assert pacer.hold(0.04) == start_ns + 40_000_000
    assert time.lags == []


def test_a_longer_lag_moves_the_clock_on() -> None:
    time = FakeTime()
    pacer = time.pacer()
    pacer.hold(0.0)
    time.now_ns += 3_000_000_000
    assert pacer.hold(1.0) == time.now_ns
    assert time.lags == [2.0]
    moved_ns = time.now_ns
    assert pacer.hold(1.04) == moved_ns + 40_000_000


def test_stopping_ends_the_wait() -> None:
    time = FakeTime()
    pacer = time.pacer()
    pacer.hold(0.0)
    time.stopped = True
    assert pacer.hold(5.0) is None


@given(
    delays_ms=st.lists(st.integers(0, 3000), max_size=50),
    late_ms=st.integers(0, 30),
    period_ms=st.integers(1, 200),
)
def test_no_picture_is_ever_older_than_the_greatest_lag(delays_ms: list[int], late_ms: int, period_ms: int) -> None:
    time = FakeTime(late_ns=late_ms * 1_000_000)
    pacer = time.pacer()
    for index, delay_ms in enumerate(delays_ms):
        time.now_ns += delay_ms * 1_000_000
        due_ns = pacer.hold(index * period_ms / 1000)
        assert due_ns is not None
        assert 0 <= time.now_ns - due_ns <= Pacer.MAX_LAG_S * 1e9
