from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from streamproc.sources.capture import CaptureClock

MS = 1_000_000
HOUR = 3600 * 1000 * MS


def delays_ms(clock: CaptureClock, pictures: Sequence[tuple[int, int | None]]) -> list[float]:
    """By how much each (arrival, camera time), both in ms, was taken before it arrived."""
    return [
        (arrival * MS - clock.captured_ns(arrival * MS, None if sent is None else sent * MS)) / MS
        for arrival, sent in pictures
    ]


def clock(*, held: bool = False) -> CaptureClock:
    capture = CaptureClock()
    capture.begin(held=held)
    return capture


def test_without_reports_it_is_the_arrival() -> None:
    capture = clock()
    assert delays_ms(capture, [(1000, None), (1040, None)]) == [0, 0]
    assert capture.source == "arrival"


def test_what_exceeds_the_least_delay_is_age_whatever_the_cameras_clock_shows() -> None:
    capture = clock()
    arrivals = [(10_000, 5), (10_040, 45), (10_230, 85), (10_235, 125), (10_240, 165), (10_245, 245)]
    assert delays_ms(capture, arrivals) == [0, 0, 150, 115, 80, 5]
    assert capture.source == "rtcp"


def test_a_faster_way_becomes_the_measure_at_once() -> None:
    assert delays_ms(clock(), [(100, 0), (130, 40), (180, 80)]) == [0, 0, 10]


def test_held_pictures_age_by_a_jam_but_not_by_being_held() -> None:
    jam = [(n * 40 + 40, n * 40) for n in range(10)] + [(900 + n, 400 + n * 40) for n in range(10)]
    assert delays_ms(clock(held=True), jam) == [0] * 10 + [900 + n - 440 - n * 40 for n in range(10)]


def test_a_slower_rate_of_held_pictures_is_a_delay_only_to_the_first() -> None:
    steady = [(n * 40 + 40, n * 40) for n in range(10)]
    slow = [(360 + n * 1000 + 1040, 400 + n * 1000) for n in range(4)]
    assert delays_ms(clock(held=True), steady + slow) == [0] * 10 + [960, 0, 0, 0]


def test_a_jump_of_the_cameras_clock_makes_nothing_look_old() -> None:
    for jump in (HOUR // MS, -HOUR // MS, -500):
        pictures = [(n * 40, n * 40 + (jump if n > 20 else 0)) for n in range(40)]
        assert delays_ms(clock(), pictures) == [0] * 40
        assert delays_ms(clock(held=True), pictures) == [0] * 40


def test_pictures_sent_out_of_order_have_no_known_delay() -> None:
    sent = [0, 120, 40, 80, 240, 160, 200]
    for held in (False, True):
        assert delays_ms(clock(held=held), [(1000 + 40 * n, ms) for n, ms in enumerate(sent)]) == [0] * 7


def test_a_longer_route_is_forgotten_within_a_minute() -> None:
    pictures = [(n * 100 + (300 if n >= 100 else 0), n * 100) for n in range(1000)]
    delays = delays_ms(clock(), pictures)
    assert delays[99:101] == [0, 300]
    assert delays[700:] == [0] * 300


def test_no_picture_is_older_than_the_bound() -> None:
    assert delays_ms(clock(), [(0, 0), (9000, 10)]) == [0, 2000]


def test_a_new_connection_has_a_measure_of_its_own_but_no_time_goes_back() -> None:
    capture = clock()
    assert delays_ms(capture, [(0, 0), (500, 10)]) == [0, 490]
    capture.begin(held=False)
    assert capture.source == "arrival"
    assert delays_ms(capture, [(510, 7000), (2000, 7001)]) == [0, 1489]


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 10**11), st.none() | st.integers(-(10**18), 10**18), st.booleans()), max_size=60
    ),
    held=st.booleans(),
)
def test_whatever_a_camera_claims_times_keep_their_order_and_bounds(
    steps: list[tuple[int, int | None, bool]], held: bool
) -> None:
    capture, arrival_ns = clock(held=held), 0
    times = []
    for step_ns, sent_ns, reconnect in steps:
        if reconnect:
            capture.begin(held=held)
        arrival_ns += step_ns
        captured_ns = capture.captured_ns(arrival_ns, sent_ns)
        assert arrival_ns - CaptureClock.MAX_DELAY_NS <= captured_ns <= arrival_ns
        times.append(captured_ns)
    assert all(earlier <= later for earlier, later in itertools.pairwise(times))
