"""``streamproc bench efficiency`` and ``cost`` over the sample world: quick, so what is measured is only plausible."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.e2e.harness import streamproc


def test_efficiency(samples: Path, tmp_path: Path) -> None:
    everything, page = tmp_path / "all.json", tmp_path / "page.html"
    done = streamproc(
        *("bench", "efficiency", "--video", samples / "yard.mp4", "--model", samples / "streetnet.onnx"),
        *("--cameras", "2", "--rounds", "1", "--seconds", "0.3", "--json", everything, "--html", page),
    )
    assert done.code == 0, done.err
    assert "of the bare engine's images/s" in done.out
    told = json.loads(everything.read_text())
    assert told["schema"] == "streamproc.bench.efficiency/1"
    assert (told["cameras"], told["files"], told["model"]) == (2, ["yard.mp4"], "streetnet")
    (found,) = told["rounds"]
    assert found["decoding"]["cpu_ms"] > 0
    assert found["engine"]["images_per_s"] > 0
    assert told["ratio"] == pytest.approx(found["pipeline"]["frames_per_s"] / found["engine"]["images_per_s"])
    assert set(told["stages_ms"]) == {"decode", "letterbox", "infer", "postprocess", "track", "publish", "the rest"}
    assert all(ms > 0 for stage, ms in told["stages_ms"].items() if stage != "the rest")
    assert ElementTree.parse(page).getroot() is not None


def test_cost(samples: Path, tmp_path: Path) -> None:
    everything, page = tmp_path / "all.json", tmp_path / "page.html"
    done = streamproc(
        *("bench", "cost", samples / "streetnet.onnx", "--price", "0.25", "--machine", "a box", "--engine"),
        *("onnxruntime", "--rounds", "1", "--seconds", "0.2", "--json", everything, "--html", page),
    )
    assert done.code == 0, done.err
    told = json.loads(everything.read_text())
    assert (told["schema"], told["machine"]) == ("streamproc.bench.cost/1", "a box")
    (row,) = told["rows"]
    assert row["price_per_million_images"] == pytest.approx(0.25 / 3600 * row["ms_per_image"] * 1e3)
    assert f"{row['price_per_million_images']:.3f}" in done.out
    assert ElementTree.parse(page).getroot() is not None
