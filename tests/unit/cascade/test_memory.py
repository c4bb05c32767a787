"""What is known of an object: readings that agree or not, when the next is due, and objects within objects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.about import Reading
from streamproc.cascade.memory import CameraMemory, Policy, Subject
from streamproc.types import Detections

POLICY = Policy(vote=3, refresh_s=2.0)
BOX = (100.0, 100.0, 200.0, 300.0)
NO_EMBEDDINGS: dict[str, bool] = {}


def text(value: str, confidence: float = 0.9) -> Reading:
    return Reading(value=value, confidence=confidence)


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    count = len(boxes)
    return Detections.of(
        np.array(boxes, np.float32).reshape(count, 4),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.zeros(count, np.int64),
    )


def looks(policy: Policy, *, until_s: float, step_s: float = 0.04) -> list[float]:
    """When an object that is always there is looked at."""
    subject, times = Subject(), []
    for number in range(round(until_s / step_s) + 1):
        now_s = round(number * step_s, 3)
        if subject.is_due("text", policy, now_s):
            subject.tried("text", now_s)
            times.append(now_s)
    return times


def test_a_new_object_is_looked_at_often_and_a_known_one_seldom() -> None:
    assert looks(POLICY, until_s=5) == [0.0, 0.04, 0.08, 2.08, 4.08]


def test_looks_are_never_closer_together_than_asked_for() -> None:
    assert looks(Policy(vote=3, refresh_s=0.5, every_s=1.0), until_s=4) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_texts_are_voted_on_by_confidence() -> None:
    subject = Subject()
    for reading in (text("A1", 0.9), text("AI", 0.6), text("A1", 0.3)):
        subject.read("text", reading, POLICY)
    about = subject.about(BOX, NO_EMBEDDINGS)
    assert about is not None
    assert about.texts["text"].value == "A1"
    assert about.texts["text"].confidence == pytest.approx((0.9 + 0.3) / 3)


def test_only_the_last_votes_count() -> None:
    subject = Subject()
    for value in ("A1", "A1", "A1", "B2", "B2", "B2"):
        subject.read("text", text(value), POLICY)
    about = subject.about(BOX, NO_EMBEDDINGS)
    assert about is not None
    assert about.texts["text"].value == "B2"
    assert about.texts["text"].confidence == pytest.approx(0.9)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=8))
def test_a_vote_is_one_of_those_cast_and_no_surer_than_the_surest(votes: list[tuple[str, float]]) -> None:
    subject = Subject()
    for value, confidence in votes:
        subject.read("text", text(value, confidence), POLICY)
    about = subject.about(BOX, NO_EMBEDDINGS)
    assert about is not None
    counted = votes[-POLICY.vote :]
    assert about.texts["text"].value in {value for value, _ in counted}
    assert about.texts["text"].confidence <= max(confidence for _, confidence in counted) + 1e-9


def test_classes_are_ranked_by_their_mean_confidence() -> None:
    subject = Subject()
    subject.classified("colour", (text("red", 0.6), text("blue", 0.3)), POLICY)
    subject.classified("colour", (text("blue", 0.9), text("red", 0.1)), POLICY)
    about = subject.about(BOX, NO_EMBEDDINGS)
    assert about is not None
    ranked = about.attributes["colour"]
    assert [one.value for one in ranked] == ["blue", "red"]
    assert [one.confidence for one in ranked] == pytest.approx([0.6, 0.35])


def test_embeddings_are_told_on_request_and_point_between_those_made() -> None:
    subject = Subject()
    for vector in ([1.0, 0.0], [0.0, 1.0]):
        subject.embedded("reid", np.array(vector, np.float32), POLICY)
    assert subject.about(BOX, {"reid": False}) is None
    about = subject.about(BOX, {"reid": True})
    assert about is not None
    np.testing.assert_allclose(about.embeddings["reid"], [0.5**0.5, 0.5**0.5], rtol=1e-6)


def test_a_child_moves_with_its_parent_and_keeps_what_is_known_of_it() -> None:
    subject = Subject()
    (plate,) = subject.contains("plates", found((150, 250, 190, 270)), ("plate",), BOX, POLICY)
    plate.read("text", text("A1"), POLICY)
    moved = (110.0, 100.0, 210.0, 300.0)
    (again,) = subject.contains("plates", found((161, 251, 200, 270)), ("plate",), moved, POLICY)
    assert again is plate
    about = subject.about((0.0, 0.0, 200.0, 400.0), NO_EMBEDDINGS)
    assert about is not None
    (child,) = about.children
    assert (child.model, child.label, child.about.texts["text"].value) == ("plates", "plate", "A1")
    assert child.box == pytest.approx((102, 302, 180, 340), abs=0.1)


def test_another_child_is_another_subject() -> None:
    subject = Subject()
    (first,) = subject.contains("plates", found((110, 110, 130, 120)), ("plate",), BOX, POLICY)
    second, third = subject.contains(
        "plates", found((150, 250, 190, 270), (111, 110, 131, 120)), ("plate",), BOX, POLICY
    )
    assert second is not first
    assert third is first


def test_a_child_is_given_up_when_it_was_missed_as_often_as_there_are_votes() -> None:
    subject = Subject()
    subject.contains("plates", found((150, 250, 190, 270)), ("plate",), BOX, POLICY)
    for _ in range(POLICY.vote - 1):
        assert subject.contains("plates", found(), ("plate",), BOX, POLICY) == ()
        about = subject.about(BOX, NO_EMBEDDINGS)
        assert about is not None
        assert len(about.children) == 1
    subject.contains("plates", found(), ("plate",), BOX, POLICY)
    assert subject.about(BOX, NO_EMBEDDINGS) is None


def test_tracks_that_are_gone_are_forgotten() -> None:
    memory = CameraMemory(forget_s=5.0)
    memory.seen([0, 1, 2], 0.0)
    assert memory.subject(0) is None
    first = memory.subject(1)
    assert first is not None
    memory.seen([1], 4.0)
    assert len(memory) == 2
    memory.seen([1], 6.0)
    assert (memory.subject(1), len(memory)) == (first, 1)
    memory.seen([3], 1.0)
    assert len(memory) == 2, "media time that steps back a little forgets nothing"
