"""Deliveries: several receivers, one entry in the books."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamproc.ledger import CameraLedger, DropReason
from streamproc.sinks.base import Delivery
from streamproc.types import Detections, Frame, FrameResult, Picture

MS = 1_000_000


class House:
    """A delivery of a frame captured at 0, and a clock to turn."""

    def __init__(
        self, receivers: int, max_age_ms: float | None = 100, now_ns: int = 0, *, predicted: bool = False
    ) -> None:
        self.now_ns = now_ns
        self.ledger = CameraLedger("gate")
        self.ledger.received()
        self.ledger.decoded(0)
        self.ledger.inferred()
        planes = (np.zeros((2, 2), np.uint8), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
        picture = Picture(planes=planes, layout="yuv420p")
        frame = Frame(camera="gate", seq=0, pts_s=0.0, captured_ns=0, captured_utc_ns=0, live=True, picture=picture)
        nothing = Detections.of(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        self.delivery = Delivery(
            FrameResult(frame=frame, detections=nothing, labels=(), model="m", predicted=predicted),
            self.ledger,
            receivers=receivers,
            max_age_ms=max_age_ms,
            monotonic_ns=lambda: self.now_ns,
        )


def test_published_when_the_last_receiver_took_it() -> None:
    house = House(2)
    house.delivery.taken()
    assert house.ledger.tally().published == 0
    house.delivery.taken()
    assert house.ledger.tally().published == 1


def test_lost_for_the_first_reason_given() -> None:
    house = House(3)
    house.delivery.lost(DropReason.LATE)
    house.delivery.taken()
    house.delivery.lost(DropReason.SINK)
    assert house.ledger.tally().dropped == {"late": 1}


def test_without_receivers_it_is_published_at_once() -> None:
    assert House(0).ledger.tally().published == 1


def test_without_receivers_a_late_result_is_late_too() -> None:
    assert House(0, now_ns=101 * MS).ledger.tally().dropped == {"late": 1}


def test_what_is_predicted_is_counted_and_enters_no_sum() -> None:
    taken, refused = House(2, predicted=True), House(2, predicted=True)
    for each in (taken, refused):
        before = each.ledger.tally()
        each.delivery.taken()
        assert each.ledger.tally() == before
    taken.delivery.taken()
    refused.delivery.lost()
    assert taken.ledger.tally() == replace(before, predicted=1)
    assert refused.ledger.tally() == before
    assert taken.ledger.ages.max_ms is None


def test_one_answer_too_many_is_a_bug() -> None:
    house = House(1)
    house.delivery.taken()
    with pytest.raises(AssertionError):
        house.delivery.taken()


def test_message_verdict_and_books_agree_on_the_age() -> None:
    house = House(1)
    house.now_ns = 99 * MS
    assert not house.delivery.too_old()
    house.now_ns = 150 * MS
    assert house.delivery.age_ms() == 99
    house.delivery.taken()
    assert house.ledger.ages.max_ms == 99


def test_too_old_beyond_the_budget_and_never_without_one() -> None:
    for max_age_ms, verdict in ((100, True), (None, False)):
        house = House(1, max_age_ms)
        house.now_ns = 101 * MS
        assert house.delivery.too_old() is verdict
