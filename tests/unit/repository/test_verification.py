"""Holding a graph against its source: equal ones pass, others do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.errors import ModelError
from streamproc.models.heads import Thresholds
from streamproc.models.spec import Head
from streamproc.repository.pictures import drawn_sample, find_pictures, read_samples
from streamproc.repository.session import Session, as_input
from streamproc.repository.source import Source, read_source
from streamproc.repository.verification import TOLERANCES, Runner, Verification, compare
from tests.unit.repository.detectors import save_detector, save_picture

THRESHOLDS = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)


def read(path: Path) -> Source:
    return read_source(path, name="tiny")


def runner(source: Source, *, batch: int = 4, moved: float = 0.0) -> Runner:
    """A source as it is, its pictures made brighter by ``moved``."""

    def feed(images: Any) -> Any:
        return as_input(images, source.intake) + np.float32(moved)

    assert isinstance(source.head, Head)
    return Runner(
        session=Session(source.serialised, "tiny"),
        head=source.head,
        feed=feed,
        batch=batch,
        open_batch=source.intake.open_batch,
    )


def compared(
    reference: Runner, built: Runner, *, precision: str = "exact", thresholds: Thresholds | None = None, count: int = 1
) -> Verification:
    samples = [drawn_sample((64, 64))] * count
    return compare(
        "model tiny", reference, built, samples, thresholds=thresholds, tolerance=TOLERANCES[precision], drawn=True
    )


@pytest.mark.parametrize("thresholds", [None, THRESHOLDS])
@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_equal_graphs(tmp_path: Path, batch: Any, thresholds: Thresholds | None) -> None:
    source = read(save_detector(tmp_path / "tiny.onnx", batch=batch))
    size = batch if isinstance(batch, int) else 4
    result = compared(runner(source, batch=size), runner(source, batch=size), thresholds=thresholds, count=5)
    assert result.matched == result.boxes > 0
    assert (result.worst_iou, result.worst_score) == pytest.approx((1.0, 0.0))
    assert "a drawn picture" in str(result)


@pytest.mark.parametrize("thresholds", [None, THRESHOLDS])
def test_other_scores(tmp_path: Path, thresholds: Thresholds | None) -> None:
    source = read(save_detector(tmp_path / "tiny.onnx"))
    with pytest.raises(ModelError, match=r"boxes differ from the source.*first in a drawn picture: person 0\.\d\d at"):
        compared(runner(source), runner(source, moved=0.05), thresholds=thresholds)


@pytest.mark.parametrize(
    ("precision", "moved", "fits"), [("fp16", 0.01, True), ("fp16", 0.1, False), ("int8", 0.1, True)]
)
def test_looser_precisions(tmp_path: Path, precision: str, moved: float, fits: bool) -> None:
    source = read(save_detector(tmp_path / "tiny.onnx"))
    if fits:
        result = compared(runner(source), runner(source, moved=moved), precision=precision)
        assert 0 < result.worst_score < 0.25
    else:
        with pytest.raises(ModelError, match="Choose another precision"):
            compared(runner(source), runner(source, moved=moved), precision=precision)


def test_nothing_found_is_said(tmp_path: Path) -> None:
    source = read(save_detector(tmp_path / "tiny.onnx", brighter=0.01))
    result = compared(runner(source), runner(source), thresholds=THRESHOLDS)
    assert result.boxes == 0
    assert "nothing to compare" in str(result)


def test_a_graph_that_finds_nothing(tmp_path: Path) -> None:
    source = read(save_detector(tmp_path / "tiny.onnx"))
    with pytest.raises(ModelError, match="differ from the source"):
        compared(runner(source), runner(source, moved=-1.0), thresholds=THRESHOLDS)


def test_pictures_are_found_and_spread(tmp_path: Path) -> None:
    for name in ("c.png", "a.jpg", "b.PNG", "d.bmp", "e.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_pictures([tmp_path], limit=9)] == ["a.jpg", "b.PNG", "c.png", "d.bmp"]
    assert [path.name for path in find_pictures([tmp_path], limit=2)] == ["a.jpg", "c.png"]
    (tmp_path / "empty").mkdir()
    for nowhere in (tmp_path / "empty", tmp_path / "absent.jpg"):
        with pytest.raises(ModelError, match="no pictures there"):
            find_pictures([nowhere], limit=2)


def test_pictures_are_letterboxed_like_the_cameras(tmp_path: Path) -> None:
    (sample,) = read_samples([save_picture(tmp_path / "a.png", size=(81, 41))], (64, 64))
    assert sample.image.shape == (64, 64, 3)
    assert sample.letterbox.source == (80, 40)
    assert (sample.image[:16] == 114).all()
    assert np.ptp(sample.image[32].astype(int), axis=1).max() <= 4  # grey stays grey
    assert abs(int(sample.image[32, 0, 0]) - 100) < 6
    assert abs(int(sample.image[32, 63, 0]) - 200) < 6


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ModelError, match="cannot be read as a picture"):
        list(read_samples([tmp_path / "a.jpg"], (64, 64)))
