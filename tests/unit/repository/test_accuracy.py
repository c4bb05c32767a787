"""mAP of a detector on a labelled set: 1 where it finds the truth, less where it does not, and sets that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamproc.engines.openvino import OpenVinoEngine
from streamproc.errors import ModelError
from streamproc.models.heads import Thresholds
from streamproc.models.spec import recognise
from streamproc.repository.accuracy import Accuracy, read_labelled, score
from streamproc.repository.pictures import read_samples
from tests.engines import open_model
from tests.unit.repository.detectors import save_detector, save_picture

CATEGORIES = [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}]  # numbers of their own, as COCO's
SURE = Thresholds(confidence=0.6, iou=0.65, class_ids=None, max_detections=300)


async def write_set(folder: Path, *, shift: float = 0.0, folder_of_pictures: str = "images") -> Path:
    """Two pictures whose truth is what the tiny detector finds, its boxes ``shift`` times their width to the right."""
    (folder / folder_of_pictures).mkdir(exist_ok=True)
    engine = await open_model(OpenVinoEngine, save_detector(folder / "tiny.onnx"), name="tiny", precision="fp32")
    head = recognise(engine.info)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in (7, 9):
        path = save_picture(folder / folder_of_pictures / f"{number}.png", value=140 + 10 * number)
        images.append({"id": number, "file_name": path.name, "width": 80, "height": 60})
        (sample,) = read_samples([path], engine.info.size)
        async with engine.lease() as slot:
            slot.images[0] = sample.image
            found = head.decode(await engine.infer(slot, 1), 0, sample.letterbox, SURE)
        for box, class_id in zip(found.boxes.tolist(), found.class_ids.tolist(), strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 3 if class_id else 1,
                    "iscrowd": 0,
                    "bbox": [box[0] + shift * width, box[1], width, height],
                    "area": width * height,
                }
            )
    await engine.close()
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "truth.json").write_text(json.dumps(content))
    return folder


async def accuracy_of(folder: Path) -> Accuracy:
    engine = await open_model(OpenVinoEngine, folder / "tiny.onnx", name="tiny", precision="fp32")
    try:
        return await score(engine, recognise(engine.info), read_labelled(folder))
    finally:
        await engine.close()


async def test_a_detector_that_finds_the_truth(tmp_path: Path) -> None:
    found = await accuracy_of(await write_set(tmp_path))
    assert found.map50_95 == pytest.approx(1.0)
    assert found.map50 == pytest.approx(1.0)
    assert found.pictures == 2


async def test_boxes_that_lie_beside_the_truth(tmp_path: Path) -> None:
    found = await accuracy_of(await write_set(tmp_path, shift=0.2, folder_of_pictures="."))  # an IoU of 2 / 3
    assert 0.2 < found.map50_95 < 0.6 < found.map50


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": "none"}, "these are no annotations in COCO's form"),
        ({"categories": [{"id": 1, "name": "cat"}]}, r"its categories \(cat, ...\) are none of the model's classes"),
        ({"annotations": []}, "it has 2 pictures and 0 objects"),
        ({"images": [{"id": 7, "file_name": "absent.png"}]}, r"absent\.png is neither beside it nor in images/"),
    ],
)
async def test_sets_that_do_not_suit(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    truth = await write_set(tmp_path) / "truth.json"
    truth.write_text(json.dumps(json.loads(truth.read_text()) | change))
    with pytest.raises(ModelError, match=said):
        await accuracy_of(tmp_path)


def test_one_file_of_annotations(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a folder with just one; found none"):
        read_labelled(tmp_path)
    (tmp_path / "a.json").touch()
    (tmp_path / "b.json").touch()
    with pytest.raises(ModelError, match=r"found a\.json, b\.json"):
        read_labelled(tmp_path)
    with pytest.raises(ModelError, match="these are no annotations"):
        read_labelled(tmp_path / "a.json")
