"""``streamproc bench capacity`` as its users see it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from tests.e2e.harness import streamproc


def test_cameras_within_the_budget(tmp_path: Path, samples: Path) -> None:
    done = streamproc(
        *("bench", "capacity", "--video", samples / "gate.mp4", "--engine", "null", "--fps", "2", "--max", "1"),
        *("--warm-up", "1", "--seconds", "1", "--json", tmp_path / "all.json", "--html", tmp_path / "page.html"),
    )
    assert done.code == 0, done.err
    assert "1 camera at 2 FPS, p95 age " in done.out
    assert "no more were tried" in done.out
    assert "1 camera at 2 FPS: holds" in done.err
    told = json.loads((tmp_path / "all.json").read_text())
    assert (told["schema"], told["model"], told["cores"] > 0) == ("streamproc.bench.capacity/1", "null", True)
    (answer,) = told["answers"]
    assert (answer["fps"], answer["cameras"], answer["limited"]) == (2.0, 1, True)
    figures = answer["held"]["figures"]
    assert 0 < figures["ages"]["summary_ms"]["p95"] <= 100
    assert figures["rss_mb"] > 50
    assert figures["cpu_cores"] > 0
    assert ElementTree.parse(tmp_path / "page.html").getroot() is not None
