"""What images cost: the formula, what a row is charged for, and the report as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.bench.bare import Way
from streamproc.bench.cost import CostReport, CostRow, as_json, is_quantised, million_price
from streamproc.bench.cost_page import as_html, cost_table

WAY = Way(batch=1, concurrency=2)


def row(model: str = "yolov8n", precision: str = "bf16", engine_ms: float = 12.0, pipeline_ms: float = 0.0) -> CostRow:
    piped = (pipeline_ms,) * 3 if pipeline_ms else ()
    return CostRow(model=model, precision=precision, way=WAY, engine_ms=(engine_ms,) * 3, pipeline_ms=piped)


def report(*rows: CostRow, video: str | None = None) -> CostReport:
    return CostReport(machine="box", price_per_hour=0.36, currency="EUR", video=video, rows=rows)


def test_the_price_of_a_million() -> None:
    """36 seconds for a thousand images are ten hours for a million."""
    assert million_price(0.5, 36.0) == pytest.approx(5.0)
    assert million_price(0.0, 36.0) == 0.0


@given(price=st.floats(0, 1e3), ms=st.floats(1e-3, 1e5))
def test_the_price_is_that_of_the_time_it_takes(price: float, ms: float) -> None:
    hours = 1e6 * ms / 1e3 / 3600
    assert million_price(price, ms) == pytest.approx(price * hours)


def test_one_disturbed_round_changes_nothing() -> None:
    disturbed = CostRow(model="m", precision="fp32", way=WAY, engine_ms=(90.0, 12.0, 11.0), pipeline_ms=())
    assert disturbed.ms == 12.0


def test_the_pipeline_is_what_is_charged_for_where_there_is_one() -> None:
    assert row(pipeline_ms=15.0).ms == 15.0
    assert report(row(pipeline_ms=15.0)).million(row(pipeline_ms=15.0)) == pytest.approx(1.5)


def test_json_has_everything() -> None:
    told = json.loads(as_json(report(row(), row(precision="int8", pipeline_ms=10.0), video="4 x street.mp4")))
    assert told["schema"] == "streamproc.bench.cost/1"
    assert (told["machine"], told["price_per_hour"], told["currency"]) == ("box", 0.36, "EUR")
    first, second = told["rows"]
    assert (first["model"], first["precision"], first["ms_per_image"]) == ("yolov8n", "bf16", 12.0)
    assert first["price_per_million_images"] == pytest.approx(1.2)
    assert first["pipeline_ms_per_image"] is None
    assert (second["ms_per_image"], second["engine_ms_per_image"]) == (10.0, 12.0)
    assert (first["batch"], first["concurrency"]) == (1, 2)


def test_the_table_says_what_is_charged_for() -> None:
    bare = cost_table(report(row()))
    assert bare.header == (*("machine", "model", "precision", "ms an image"), "EUR an hour", "EUR a million images")
    assert bare.rows == (("box", "yolov8n", "bf16", "12.00", "0.36", "1.200"),)
    assert "the bare engine" in bare.note
    whole = cost_table(report(row(pipeline_ms=15.0), video="4 x street.mp4"))
    assert whole.rows == (("box", "yolov8n", "bf16", "15.00", "12.00", "0.36", "1.500"),)
    assert "the whole pipeline" in whole.note


def test_the_page_has_a_bar_for_each() -> None:
    rows = (row(), row(precision="fp32", engine_ms=22.0), row(model="yolov8s", engine_ms=30.0))
    found = ElementTree.fromstring(as_html(report(*rows)))
    text = " ".join(found.itertext())
    for name in ("yolov8n", "yolov8s", "fp32", "bf16", "EUR"):
        assert name in text


def test_quantised_files_are_known(tmp_path: Path, samples: Path) -> None:
    assert not is_quantised(samples / "streetnet.onnx")
    (xml := tmp_path / "net.xml").write_text('<layer id="3" name="in/fq" type="FakeQuantize" version="opset1">')
    assert is_quantised(xml)
    (onnx := tmp_path / "net.onnx").write_bytes(b"\x12\x0eQuantizeLinear")
    assert is_quantised(onnx)
