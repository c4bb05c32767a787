"""What is taken out of a served cascade's tensors: what counts, about which object, and where that lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.cascade.answers import AnswerReader, Answers
from streamproc.models.heads import Thresholds
from streamproc.serving.plan import Plan
from streamproc.types import Detections, Letterbox
from tests.served import CANVAS, CARS, PLATES, Object, answer, finder, reader

PERSON, CAR = 0, 1
PLAN = Plan(
    size=CANVAS,
    models=(finder(), finder("plates", "detector", labels=PLATES, most=3), reader("text", "plates"), reader("shade")),
)
WHOLE = Letterbox.fit(CANVAS, CANVAS)
ALL = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)

FIRST: Object = (10, 20, 110, 120, 0.9, CAR)
SECOND: Object = (200, 20, 300, 180, 0.6, PERSON)
THIRD: Object = (310, 10, 390, 100, 0.4, CAR)
PLATE: Object = (20, 80, 60, 90, 0.8, 0)
OTHER: Object = (320, 50, 360, 60, 0.7, 0)
FAINT: Object = (25, 85, 50, 95, 0.3, 0)
FULL = answer(
    PLAN,
    [FIRST, SECOND, THIRD],
    plates={0: [PLATE, FAINT], 2: [OTHER]},
    text={0: [(1, 2)], 1: [(3, 4)], 2: [(5, 6)]},
    shade={0: [(0.1, 0.9)], 1: [(0.2, 0.8)], 2: [(0.3, 0.7)]},
)


def thresholds(**changes: Any) -> Thresholds:
    wanted: dict[str, Any] = {"confidence": 0.25, "iou": 0.45, "class_ids": None, "max_detections": 300}
    return Thresholds(**wanted | changes)


def read(
    outputs: dict[str, NDArray[Any]],
    letterbox: Letterbox = WHOLE,
    *,
    plates: float = 0.25,
    models: Sequence[str] = ("plates", "text", "shade"),
    **changes: Any,
) -> tuple[Detections, Answers]:
    reader = AnswerReader(PLAN, {name: thresholds(confidence=plates) for name in models})
    return reader.read(outputs, 0, letterbox, thresholds(**changes))


def said(answers: Answers, model: str) -> dict[int, list[list[float]]]:
    """What a model says of each object that it was shown."""
    told = answers[model]
    (values,) = [told.found.boxes] if told.found is not None else told.outputs.values()
    return {number: values[rows].tolist() for number, rows in told.rows.items()}


def test_everything_stands_beside_what_it_is_about() -> None:
    found, answers = read(FULL)
    np.testing.assert_allclose(found.boxes, [one[:4] for one in (FIRST, SECOND, THIRD)])
    np.testing.assert_allclose(found.confidence, [0.9, 0.6, 0.4], rtol=1e-6)
    assert [CARS[class_id] for class_id in found.class_ids] == ["car", "person", "car"]
    assert found.track_ids.tolist() == [0, 0, 0]
    assert said(answers, "plates") == {0: [list(PLATE[:4]), list(FAINT[:4])], 2: [list(OTHER[:4])]}
    assert said(answers, "text") == {0: [[1, 2]], 1: [[3, 4]], 2: [[5, 6]]}
    assert {number: row[0][1] for number, row in said(answers, "shade").items()} == pytest.approx(
        {0: 0.9, 1: 0.8, 2: 0.7}
    )


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"confidence": 0.5}, (0, 1)),
        ({"confidence": 0.95}, ()),
        ({"class_ids": frozenset([CAR])}, (0, 2)),
        ({"class_ids": frozenset[int]()}, ()),
        ({"max_detections": 1}, (0,)),
        ({"class_ids": frozenset([PERSON]), "max_detections": 1}, (1,)),
    ],
    ids=["confidence", "nobody is sure", "class", "no class", "most", "most of a class"],
)
def test_what_a_camera_does_not_want_goes_with_all_that_is_said_of_it(
    changes: dict[str, Any], left: tuple[int, ...]
) -> None:
    found, answers = read(FULL, **changes)
    np.testing.assert_allclose(
        found.boxes.reshape(-1, 4), np.reshape([(FIRST, SECOND, THIRD)[i][:4] for i in left], (-1, 4))
    )
    place = {before: after for after, before in enumerate(left)}
    plates = {0: [PLATE, FAINT], 2: [OTHER]}
    assert said(answers, "plates") == {
        place[car]: [list(one[:4]) for one in some] for car, some in plates.items() if car in left
    }
    texts = {PLATE: [1, 2], OTHER: [3, 4], FAINT: [5, 6]}
    kept = [one for one in (PLATE, OTHER, FAINT) if (2 if one is OTHER else 0) in left]
    assert said(answers, "text") == {number: [texts[one]] for number, one in enumerate(kept)}
    assert list(said(answers, "shade")) == [place[one] for one in left]


def test_what_a_model_is_not_sure_of_goes_too() -> None:
    _, answers = read(FULL, plates=0.5)
    assert said(answers, "plates") == {0: [list(PLATE[:4])], 2: [list(OTHER[:4])]}
    assert said(answers, "text") == {0: [[1, 2]], 1: [[3, 4]]}


def test_an_object_that_nothing_was_found_in_is_one_that_was_looked_at() -> None:
    _, answers = read(answer(PLAN, [FIRST, SECOND], plates={1: []}))
    assert answers["plates"].rows == {1: []}
    assert answers["text"].rows == answers["shade"].rows == {}


def test_an_empty_picture() -> None:
    found, answers = read(answer(PLAN, []), confidence=0.0)
    assert len(found) == 0
    assert all(told.rows == {} for told in answers.values())


def test_models_that_nobody_wants_are_not_read() -> None:
    _, answers = read(FULL, models=["plates"])
    assert list(answers) == ["plates"]


def test_everything_lies_in_the_cameras_own_pixels() -> None:
    """A picture of half the canvas' height, and of another shape: it lies in the middle, with grey beside it."""
    letterbox = Letterbox.fit((100, 100), CANVAS)
    assert letterbox.pad == (100, 0)
    seen: Object = (120, 40, 220, 140, 0.9, CAR)
    beside: Object = (0, 20, 90, 120, 0.8, CAR)
    over: Object = (250, 100, 380, 190, 0.7, CAR)
    plate: Object = (140, 100, 180, 120, 0.9, 0)
    outputs = answer(PLAN, [seen, beside, over], plates={0: [plate], 1: [], 2: []}, shade={2: [(0, 1)]})
    found, answers = read(outputs, letterbox)
    np.testing.assert_allclose(found.boxes, [(10, 20, 60, 70), (75, 50, 100, 95)])
    assert said(answers, "plates") == {0: [[20, 50, 40, 60]], 1: []}
    assert said(answers, "shade") == {1: [[0, 1]]}


def test_keypoints_go_with_their_objects() -> None:
    plan = Plan(size=CANVAS, models=(finder(keypoints=2), finder("plates", "detector", labels=PLATES, keypoints=4)))
    outputs = answer(plan, [FIRST, SECOND], plates={0: [PLATE], 1: [OTHER]})
    outputs["keypoints"][0, :2] = np.arange(12).reshape(2, 2, 3)
    corners = np.array([[20, 80, 1], [60, 82, 1], [60, 90, 1], [20, 88, 1]])
    outputs["plates.keypoints"][0, 1] = corners
    letterbox = Letterbox.fit((200, 100), CANVAS)
    found, answers = AnswerReader(plan, {"plates": ALL}).read(
        outputs, 0, letterbox, thresholds(class_ids=frozenset([PERSON]))
    )
    assert found.keypoints is not None
    np.testing.assert_allclose(found.keypoints, [[(3, 3.5, 8), (4.5, 5, 11)]])
    plates = answers["plates"].found
    assert plates is not None
    assert plates.keypoints is not None
    np.testing.assert_allclose(plates.keypoints, [corners / [2, 2, 1]])


def test_nothing_of_it_is_a_view_into_the_slot() -> None:
    outputs = {name: values.copy() for name, values in FULL.items()}
    found, answers = read(outputs)
    for values in outputs.values():
        values[:] = 0
    np.testing.assert_allclose(found.boxes[0], FIRST[:4])
    assert said(answers, "text")[1] == [[3, 4]]
    assert said(answers, "plates")[2] == [list(OTHER[:4])]
