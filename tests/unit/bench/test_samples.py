"""What a trial tells about itself: ages, differences from second to second, and lines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.bench.samples import Ages, Ended, Line, Refused, Second, read_line, write_line
from streamproc.bench.trial import Recorder
from streamproc.ledger import AgeHistogram, CameraLedger, DropReason
from streamproc.monitor import CameraView
from streamproc.types import CameraState, CameraStatus
from tests.trials import a_second

AGES = st.lists(st.floats(1, 5000), min_size=1, max_size=50)


def histogram(*ages_ms: float) -> AgeHistogram:
    made = AgeHistogram()
    for age_ms in ages_ms:
        made.add(age_ms)
    return made


@given(before=AGES, after=AGES)
def test_ages_between_two_snapshots_are_those_that_came_between(before: list[float], after: list[float]) -> None:
    earlier, later = histogram(*before), histogram(*before, *after)
    between = Ages.between(earlier, later)
    assert between.count == len(after)
    for percent in (50, 95, 99):
        exact = np.percentile(after, percent, method="inverted_cdf")
        # Half a bin, and half of the hundredth that is rounded to.
        assert between.percentile(percent) == pytest.approx(exact, abs=0.01 * exact + 0.006)


@given(parts=st.lists(AGES, min_size=1, max_size=4))
def test_ages_of_parts_together_are_those_of_all(parts: list[list[float]]) -> None:
    together = Ages.together(Ages.between(None, histogram(*part)) for part in parts)
    assert together == Ages.between(None, histogram(*(age for part in parts for age in part)))


def test_no_ages() -> None:
    assert Ages().summary() == {"p50": None, "p95": None, "p99": None, "max": None}
    assert Ages.together([]) == Ages()


@pytest.mark.parametrize(
    "line",
    [
        Line(second=Second(at_s=1.5, cameras={"gate": a_second(23, stale=1), "yard": a_second(0, state="offline")})),
        Line(ended=Ended(report={"cameras": {}}, failures=("broken",))),
        Line(refused=Refused(message="no model", is_bad_input=True)),
    ],
)
def test_lines_survive_the_pipe(line: Line) -> None:
    text = write_line(line)
    assert text.count(b"\n") == 1
    assert read_line(text) == line


def view(ledger: CameraLedger, state: CameraState = CameraState.ONLINE) -> CameraView:
    status = CameraStatus(camera="gate", state=state, reason=None, since_utc_ns=0)
    return CameraView(status=status, tally=ledger.tally(), decoded_fps=0.0, published_fps=0.0, ages=ledger.ages.copy())


def test_a_second_is_what_came_since_the_last_look() -> None:
    lines: list[Line] = []
    recorder = Recorder(lines.append, clock=lambda: 7.0)
    ledger = CameraLedger("gate")
    for age_ms, stale in ((10.0, 2), (30.0, 1), (50.0, 0)):
        ledger.received(1 + stale)
        ledger.dropped(DropReason.STALE, stale)
        ledger.inferred()
        ledger.published(age_ms, 1)
        recorder([view(ledger)])
    seconds = [line.second for line in lines if line.second is not None]
    gates = [second.cameras["gate"] for second in seconds]
    assert recorder.looks == 3
    assert {second.at_s for second in seconds} == {7.0}
    assert [(one.received, one.inferred, one.published) for one in gates] == [(3, 1, 1), (2, 1, 1), (1, 1, 1)]
    assert [dict(one.lost) for one in gates] == [{"stale": 2}, {"stale": 1}, {}]
    assert [one.ages.percentile(50) for one in gates] == [pytest.approx(age, rel=0.011) for age in (10, 30, 50)]
    assert {one.state for one in gates} == {"online"}
