"""A cascade on pictures in memory, with models whose answers are written down: who is shown what, and what is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.packing import pack_into, packed_shape
from streamproc.preprocess import crop_into, letterbox_into, warp_into
from streamproc.serving.graph import Graph
from streamproc.serving.plan import ModelPlan, Plan
from streamproc.types import Fit, Letterbox, Picture, UInt8Array

CANVAS = (128, 96)  # half as large in the input, to the bit
ROOMY = (256, 96)  # in YUV 4:2:0 as many bytes as that in RGB
SIZE = (64, 64)
ROOM = 8  # objects in an answer of the models that find some
PERSON, CAR = 0, 1

Outputs = Mapping[str, NDArray[Any]]
Object = tuple[float, float, float, float, float, int]
"""x1, y1, x2, y2, confidence, class."""


def info(*outputs: TensorInfo, size: tuple[int, int] = SIZE, fit: Fit = "letterbox", **metadata: str) -> ModelInfo:
    return ModelInfo(name="any", size=size, inputs=(), outputs=outputs, metadata=metadata, fit=fit)


def finder(name: str = "detector", **keys: Any) -> ModelPlan:
    """A model that finds objects, end to end."""
    boxes = info(TensorInfo(name="found", dtype="float32", shape=(1, ROOM, 6)))
    wanted: dict[str, Any] = {"info": boxes, "head": "auto", "labels": ("person", "car"), "most": 5, "max_batch": 4}
    return ModelPlan(name=name, finds=True, **(wanted | keys))


def reader(name: str = "text", on: str = "detector", **keys: Any) -> ModelPlan:
    """A model that says something of a crop, which is 24x8, filled."""
    said = info(TensorInfo(name="said", dtype="float32", shape=(1, 3)), size=(24, 8), fit="stretch")
    wanted: dict[str, Any] = {"most": 4, "max_batch": 4}
    return ModelPlan(name=name, on=on, info=said, head="ctc", finds=False, **(wanted | keys))


class Models:
    """Models by name: what those that find objects find in each picture that they are shown, in pixels of their input;
    others say what :func:`said` does. Notes who was shown what."""

    def __init__(self, **found: Sequence[Sequence[Object]]) -> None:
        self._found: dict[str, Iterator[Sequence[Object]]] = {name: iter(each) for name, each in found.items()}
        self.calls: list[tuple[str, int]] = []
        self.shown: dict[str, list[UInt8Array]] = {}

    def __call__(self, name: str, pictures: UInt8Array) -> Outputs:
        self.calls.append((name, len(pictures)))
        self.shown.setdefault(name, []).extend(pictures)
        if name not in self._found:
            return {"said": said(pictures)}
        rows = np.zeros((len(pictures), ROOM, 6), np.float32)
        for picture in rows:
            objects = next(self._found[name])
            picture[: len(objects)] = np.reshape(objects, (-1, 6))
        return {"found": rows}


def said(crops: UInt8Array) -> NDArray[np.float32]:
    """(n, 3): the mean of each colour."""
    return np.asarray(crops.mean(axis=(1, 2)), dtype=np.float32)


def pictures(count: int = 1) -> UInt8Array:
    """Smooth noise, so that every crop is another's."""
    width, height = CANVAS
    coarse = np.random.default_rng(3).integers(0, 256, (count, height // 8, width // 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def picture(canvas: UInt8Array) -> Picture:
    return Picture(planes=(canvas,), layout="rgb24")


def packed(canvases: UInt8Array) -> UInt8Array:
    rows = np.zeros((len(canvases), *packed_shape(ROOMY)), np.uint8)
    for canvas, row in zip(canvases, rows, strict=True):
        pack_into(picture(canvas), row)
    return rows


def seen(*objects: Object) -> list[Object]:
    """Objects on the canvas, as the detector has them in its input."""
    letterbox = Letterbox.fit(CANVAS, SIZE)
    (width, _), (left, top) = letterbox.inner, letterbox.pad
    scale = width / CANVAS[0]
    return [
        (x1 * scale + left, y1 * scale + top, x2 * scale + left, y2 * scale + top, sure, kind)
        for x1, y1, x2, y2, sure, kind in objects
    ]


def cropped(canvas: UInt8Array, box: Sequence[float], model: ModelPlan) -> tuple[UInt8Array, Letterbox]:
    width, height = model.info.size
    crop = np.zeros((height, width, 3), np.uint8)
    return crop, crop_into(picture(canvas), box, crop, fit=model.info.fit)


LEFT: Object = (10, 20, 50, 60, 0.9, CAR)
RIGHT: Object = (80, 10, 120, 90, 0.75, CAR)
SMALL: Object = (60, 40, 75, 80, 0.5, PERSON)


def check_shapes(plan: Plan, answer: Outputs, batch: int) -> None:
    assert {name: (values.shape, values.dtype) for name, values in answer.items()} == {
        tensor.name: ((batch, *tensor.shape), np.dtype(object if tensor.dtype == "string" else tensor.dtype))
        for tensor in plan.outputs()
    }


def test_where_nothing_is_found_nobody_else_is_called() -> None:
    text = replace(reader(), info=info(TensorInfo(name="said", dtype="string", shape=(1, 2)), size=(24, 8)))
    plan = Plan(size=ROOMY, models=(finder(), finder("plates", on="detector", keypoints=0), text))
    models = Models(detector=[[], []])
    answer = Graph(plan).run(packed(pictures(2)), models)
    assert models.calls == [("detector", 2)]
    check_shapes(plan, answer, 2)
    for name, values in answer.items():
        assert (values == (-1 if name.endswith("parent") else b"" if name == "text.said" else 0)).all(), name


def test_what_is_said_of_an_object_stands_beside_it() -> None:
    plan = Plan(size=ROOMY, models=(finder(), reader(crop_min_size=1.0)))
    models = Models(detector=[seen(LEFT, RIGHT)])
    canvases = pictures()
    answer = Graph(plan).run(packed(canvases), models)
    check_shapes(plan, answer, 1)
    assert models.calls == [("detector", 1), ("text", 2)]
    whole = np.zeros((64, 64, 3), np.uint8)
    letterbox_into(picture(canvases[0]), whole)
    np.testing.assert_array_equal(models.shown["detector"], [whole])
    crops = [cropped(canvases[0], one[:4], reader())[0] for one in (LEFT, RIGHT)]
    np.testing.assert_array_equal(models.shown["text"], crops)
    np.testing.assert_allclose(answer["detections"][0, :2], [LEFT, RIGHT], rtol=1e-6)
    assert not answer["detections"][0, 2:].any()
    assert answer["text.looked"].tolist() == [[1, 1, 0, 0, 0]]
    assert answer["text.parent"].tolist() == [[0, 1, -1, -1]]
    np.testing.assert_array_equal(answer["text.said"][0], [*said(np.array(crops)), [0, 0, 0], [0, 0, 0]])


def test_two_levels_of_several_pictures_go_together() -> None:
    """The first picture has two cars, one of them with two plates; the second none; the third one with one."""
    plates = finder("plates", on="detector", labels=("plate",), most=3, crop_expand=0.1)
    text = reader(on="plates", crop_min_size=1.0)
    plan = Plan(size=ROOMY, models=(finder(), plates, text))
    inner: list[list[Object]] = [[(5, 5, 20, 15, 0.6, 0), (30, 40, 60, 60, 0.8, 0)], [], [(0, 0, 32, 32, 0.5, 0)]]
    models = Models(detector=[seen(LEFT, RIGHT), [], seen(RIGHT)], plates=inner)
    canvases = pictures(3)
    answer = Graph(plan).run(packed(canvases), models)
    assert models.calls == [("detector", 3), ("plates", 3), ("text", 3)]
    grown = ((6, 16, 54, 64), (76, 2, 124, 98), (76, 2, 124, 98))
    shown = [cropped(canvases[index], box, plates) for index, box in zip((0, 0, 2), grown, strict=True)]
    np.testing.assert_array_equal(models.shown["plates"], [crop for crop, _ in shown])
    boxes = [
        letterbox.to_source(np.array([one[:4] for one in objects], np.float32).reshape(-1, 4))
        for (_, letterbox), objects in zip(shown, inner, strict=True)
    ]
    np.testing.assert_allclose(answer["plates.objects"][0, :2, :4], boxes[0][::-1], rtol=1e-6)
    np.testing.assert_allclose(answer["plates.objects"][0, :2, 4:], [(0.8, 0), (0.6, 0)], rtol=1e-6)
    np.testing.assert_allclose(answer["plates.objects"][2, :1, :4], boxes[2], rtol=1e-6)
    assert answer["plates.looked"].tolist() == [[1, 1, 0, 0, 0], [0] * 5, [1, 0, 0, 0, 0]]
    assert answer["plates.parent"].tolist() == [[0, 0, -1], [-1, -1, -1], [0, -1, -1]]
    assert answer["text.looked"].tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert answer["text.parent"].tolist() == [[0, 1, -1, -1], [-1] * 4, [0, -1, -1, -1]]
    read = [cropped(canvases[0], box, text)[0] for box in boxes[0][::-1].tolist()]
    np.testing.assert_array_equal(answer["text.said"][0, :2], said(np.array(read)))
    last = cropped(canvases[2], boxes[2][0].tolist(), text)[0]
    np.testing.assert_array_equal(answer["text.said"][2, 0], said(last[None])[0])


def test_two_models_look_at_the_same_objects() -> None:
    plan = Plan(size=ROOMY, models=(finder(), reader("colour"), reader("make", classes=("car",), most=1)))
    models = Models(detector=[seen(LEFT, replace_class(RIGHT, PERSON))])
    answer = Graph(plan).run(packed(pictures()), models)
    assert models.calls == [("detector", 1), ("colour", 2), ("make", 1)]
    assert answer["colour.parent"].tolist() == [[0, 1, -1, -1]]
    assert answer["make.parent"].tolist() == [[0]]
    np.testing.assert_array_equal(answer["make.said"][0], answer["colour.said"][0, :1])


def replace_class(one: Object, kind: int) -> Object:
    return (*one[:5], kind)


def test_only_wanted_classes_are_looked_at() -> None:
    plan = Plan(size=ROOMY, models=(finder(), reader(classes=("person",), crop_min_size=1.0)))
    answer = Graph(plan).run(packed(pictures()), Models(detector=[seen(LEFT, RIGHT, SMALL)]))
    assert answer["text.looked"].tolist() == [[0, 0, 1, 0, 0]]
    assert answer["text.parent"].tolist() == [[2, -1, -1, -1]]


@pytest.mark.parametrize(("least", "looked"), [(15, [1, 1, 1]), (15.5, [1, 1, 0]), (40, [1, 1, 0]), (40.5, [0, 0, 0])])
def test_what_is_too_small_is_left_alone(least: float, looked: list[int]) -> None:
    plan = Plan(size=ROOMY, models=(finder(most=3), reader(crop_min_size=least)))
    models = Models(detector=[seen(LEFT, RIGHT, SMALL)])
    answer = Graph(plan).run(packed(pictures()), models)
    assert answer["text.looked"].tolist() == [looked]
    assert models.calls[1:] == ([("text", sum(looked))] if any(looked) else [])


def test_the_best_are_taken_where_there_is_no_room_for_all() -> None:
    plan = Plan(size=ROOMY, models=(finder(most=3, max_batch=1), reader(most=2, crop_min_size=1.0)))
    objects = [(*LEFT[:4], sure, CAR) for sure in (0.3, 0.9, 0.5, 0.7)]
    models = Models(detector=[seen(*objects), seen(*objects[:1])])
    answer = Graph(plan).run(packed(pictures(2)), models)
    assert models.calls == [("detector", 1), ("detector", 1), ("text", 3)]
    np.testing.assert_allclose(answer["detections"][0, :, 4], [0.9, 0.7, 0.5], rtol=1e-6)
    assert answer["text.looked"].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert answer["text.parent"].tolist() == [[0, 1], [0, -1]]


def test_of_all_parts_the_best_are_taken() -> None:
    """Those of all objects of a picture; among equals, that of the better object."""
    plan = Plan(size=ROOMY, models=(finder(), finder("parts", on="detector", most=3)))
    inner = [[(0, 0, 9, 9, 0.5, 0), (0, 0, 8, 8, 0.4, 1)], [(0, 0, 9, 9, 0.9, 1), (0, 0, 8, 8, 0.4, 0)]]
    answer = Graph(plan).run(packed(pictures()), Models(detector=[seen(LEFT, RIGHT)], parts=inner))
    np.testing.assert_allclose(answer["parts.objects"][0, :, 4:], [(0.9, 1), (0.5, 0), (0.4, 1)], rtol=1e-6)
    assert answer["parts.parent"].tolist() == [[1, 0, 0]]
    assert answer["parts.looked"].tolist() == [[1, 1, 0, 0, 0]]


def test_no_call_is_larger_than_a_model_takes() -> None:
    sizes: dict[str, Any] = {"max_batch": 2, "crop_min_size": 1.0}
    plan = Plan(size=ROOMY, models=(finder(), finder("parts", on="detector", **sizes), reader(**sizes)))
    parts: list[list[Object]] = [[(0, 0, 9, 9, 0.5, 0)], [], [(0, 0, 9, 9, 0.7, 0)]]
    models = Models(detector=[seen(LEFT, RIGHT), seen(SMALL)], parts=parts)
    canvases = pictures(2)
    answer = Graph(plan).run(packed(canvases), models)
    assert models.calls == [("detector", 2), ("parts", 2), ("parts", 1), ("text", 2), ("text", 1)]
    assert answer["parts.parent"][:, :2].tolist() == [[0, -1], [0, -1]]
    last = cropped(canvases[1], SMALL[:4], reader())[0]
    np.testing.assert_array_equal(answer["text.said"][1, 0], said(last[None])[0])


PRIOR = 72  # of RetinaFace at 64x64: the small one, 24 pixels, in the middle, which is 36, 36 (row 4, column 4)
TENSORS = {"boxes": 4, "scores": 2, "corners": 8}


def plate(corners: Sequence[tuple[float, float]]) -> Outputs:
    """A RetinaFace that finds one plate with these corners on the canvas, its own top left first."""
    letterbox = Letterbox.fit(CANVAS, SIZE)
    scale = letterbox.inner[0] / CANVAS[0]
    places = np.array(corners) * scale + np.array(letterbox.pad)
    tensors = {name: np.zeros((1, 168, columns), np.float32) for name, columns in TENSORS.items()}
    tensors["scores"][0, :, 0] = 9
    tensors["scores"][0, PRIOR] = (0, 9)
    bottom_right_first = np.roll(places, 2, axis=0)
    tensors["corners"][0, PRIOR] = ((bottom_right_first - 36) / (0.1 * 24)).reshape(-1)
    return tensors


@pytest.mark.parametrize("straighten", [True, False])
@pytest.mark.parametrize("mirrored", [False, True])
def test_what_has_corners_is_straightened(straighten: bool, mirrored: bool) -> None:
    outputs = tuple(TensorInfo(name=name, dtype="float32", shape=(1, 168, size)) for name, size in TENSORS.items())
    plates = finder(info=info(*outputs), labels=("plate",), keypoints=4)
    text = reader(crop_straighten=straighten, crop_expand=0.25)
    corners = [(60.0, 30.0), (110.0, 40.0), (110.0, 60.0), (60.0, 50.0)][:: -1 if mirrored else 1]
    canvases = pictures()
    told: list[UInt8Array] = []

    def call(name: str, shown: UInt8Array) -> Outputs:
        told.extend(shown)
        return plate(corners) if name == "detector" else {"said": said(shown)}

    plan = Plan(size=ROOMY, models=(plates, text))
    answer = Graph(plan).run(packed(canvases), call)
    check_shapes(plan, answer, 1)
    np.testing.assert_allclose(answer["keypoints"][0, 0, :, :2], corners, atol=1e-3)
    box = answer["detections"][0, 0, :4].astype(float)
    expected = np.zeros((8, 24, 3), np.uint8)
    if straighten and not mirrored:
        middle = np.mean(corners, axis=0)
        larger = middle + (answer["keypoints"][0, 0, :, :2] - middle.astype(np.float32)) * np.float32(1.5)
        warp_into(picture(canvases[0]), larger, expected)
    else:
        margin = 0.25 * (box[2:] - box[:2])
        crop_into(picture(canvases[0]), (*(box[:2] - margin), *(box[2:] + margin)), expected, fit="stretch")
    np.testing.assert_array_equal(told[1], expected)


def test_keypoints_of_parts_stand_beside_them() -> None:
    pose = info(TensorInfo(name="pose", dtype="float32", shape=(1, 11, 84)), kpt_shape="[2, 3]", task="pose")
    heads = finder("heads", on="detector", info=pose, head="pose", labels=("head",), keypoints=2, most=2)
    plan = Plan(size=ROOMY, models=(finder(), heads))
    boxes = Models(detector=[seen(LEFT)])

    def call(name: str, shown: UInt8Array) -> Outputs:
        if name == "detector":
            return boxes(name, shown)
        raw = np.zeros((len(shown), 11, 84), np.float32)
        raw[:, :, 7] = (32, 32, 16, 16, 0.8, 32, 32, 0.9, 0, 64, 0.4)
        return {"pose": raw}

    answer = Graph(plan).run(packed(pictures()), call)
    check_shapes(plan, answer, 1)
    np.testing.assert_allclose(answer["heads.objects"][0, 0], (25, 35, 35, 45, 0.8, 0), rtol=1e-6)
    np.testing.assert_allclose(answer["heads.keypoints"][0, 0], [(30, 40, 0.9), (10, 60, 0.4)], rtol=1e-6)
    assert not answer["heads.keypoints"][0, 1].any()


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf, 3e38])
def test_damaged_values_find_nothing(damage: float) -> None:
    plan = Plan(size=ROOMY, models=(finder(), finder("parts", on="detector"), reader(crop_min_size=1.0)))
    sound = Models(detector=[seen(LEFT)])

    def broken(name: str, shown: UInt8Array) -> Outputs:
        if name == "detector":
            return sound(name, shown)
        shape = (len(shown), 3) if name == "text" else (len(shown), ROOM, 6)
        return {"said" if name == "text" else "found": np.full(shape, damage, np.float32)}

    answer = Graph(plan).run(packed(pictures()), broken)
    assert answer["parts.looked"][0, 0] == 1
    assert (answer["parts.parent"] == -1).all()
    np.testing.assert_array_equal(answer["text.said"][0, 0], np.full(3, damage, np.float32))  # for its reader to judge

    everywhere = Graph(plan).run(
        packed(pictures()), lambda name, shown: {"found": np.full((1, ROOM, 6), damage, np.float32)}
    )
    assert not everywhere["detections"].any()


def test_a_straight_line_in_pieces_gives_the_same() -> None:
    plan = Plan(size=ROOMY, models=(finder(), reader(crop_min_size=1.0, most=2)))
    objects = [seen(LEFT, RIGHT, SMALL), [], seen(SMALL)]
    canvases = pictures(3)
    graph, models = Graph(plan), Models(detector=objects)
    cut = graph.cut(packed(canvases), models("detector", graph.prepare(packed(canvases))))
    assert cut.crops is not None
    assert len(cut.crops) == 3
    answer = graph.answer(cut.tensors, models("text", cut.crops))
    expected = graph.run(packed(canvases), Models(detector=objects))
    assert answer.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(answer[name], values, err_msg=name)
    assert cut.tensors.keys() == expected.keys() - {"text.said"}


def test_a_straight_line_shows_black_where_there_is_nothing() -> None:
    graph = Graph(Plan(size=ROOMY, models=(finder(), reader())))
    cut = graph.cut(packed(pictures()), Models(detector=[[]])("detector", graph.prepare(packed(pictures()))))
    assert cut.crops is not None
    assert cut.crops.shape == (1, 8, 24, 3)
    assert not cut.crops.any()
    answer = graph.answer(cut.tensors, {"said": np.full((1, 3), 7, np.float32)})
    assert not answer["text.said"].any()
    assert (answer["text.parent"] == -1).all()


def test_the_detector_alone_is_a_straight_line_too() -> None:
    graph = Graph(Plan(size=ROOMY, models=(finder(),)))
    cut = graph.cut(packed(pictures()), Models(detector=[seen(LEFT)])("detector", graph.prepare(packed(pictures()))))
    assert cut.crops is None
    assert cut.tensors.keys() == {"detections"}
    np.testing.assert_allclose(cut.tensors["detections"][0, 0], LEFT, rtol=1e-6)


@pytest.mark.parametrize(
    "others", [(reader("a"), reader("b")), (finder("plates", on="detector"),)], ids=["a branch", "a finder"]
)
def test_other_graphs_do_not_go_in_pieces(others: tuple[ModelPlan, ...]) -> None:
    plan = Plan(size=ROOMY, models=(finder(), *others))
    assert not plan.is_straight
    with pytest.raises(ValueError, match="at most one model that finds no objects"):
        Graph(plan).cut(packed(pictures()), {})


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 48, 256, 3), np.uint8), np.zeros((49, 256, 3), np.uint8), np.zeros((1, 49, 256, 3), np.int8)]
)
def test_pictures_of_another_shape_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(batch, 49, 256, 3\), got "):
        Graph(Plan(size=ROOMY, models=(finder(),))).run(wrong, Models())


def test_a_model_that_nothing_reads_is_refused() -> None:
    unknown = finder(info=info(TensorInfo(name="what", dtype="float32", shape=(1, 7))))
    with pytest.raises(ModelError, match="not supported"):
        Graph(Plan(size=ROOMY, models=(unknown,)))
