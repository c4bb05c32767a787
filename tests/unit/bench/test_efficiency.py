"""What a pipeline adds to its engine: where a run's processor time went, and what is compared with what."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from streamproc.bench.bare import BareEngine, Way
from streamproc.bench.decoding import Decoding
from streamproc.bench.efficiency import EfficiencyReport, Round, Subject, as_json, unpaced
from streamproc.bench.efficiency_page import as_html, stages_table, subject_lines, summary, totals_table
from streamproc.bench.whole import Pipeline, cost_by_stage
from streamproc.config import CameraConfig, Config, FileConfig, ModelConfig, MqttConfig

WAY = Way(batch=1, concurrency=2)
STAGES = {"decode": 3.0, "letterbox": 0.5, "infer": 20.0, "publish": 0.1, "the rest": 0.9}
DRAWN = {"decode": 3.0, "letterbox": 0.5, "infer": 20.0, "publish": 0.1, "draw": 15.0, "the rest": 1.4}


def one_round(fps: float = 66.0, annotated: bool = False, **stages: float) -> Round:
    pipeline = Pipeline(
        frames_per_s=fps, cpu_ms=sum((STAGES | stages).values()), stages=STAGES | stages, description={"kind": "null"}
    )
    drawing = Pipeline(frames_per_s=30.0, cpu_ms=40.0, stages=DRAWN, description={"kind": "null"})
    return Round(
        decoding=Decoding(frames_per_s=600.0, cpu_ms=2.5),
        engine=BareEngine(way=WAY, images_per_s=80.0, cpu_ms=20.0, description={}, metadata={}),
        pipeline=pipeline,
        annotated=drawing if annotated else None,
    )


def report(*rounds: Round) -> EfficiencyReport:
    subject = Subject(
        processor="a processor",
        cores=2,
        engine={"kind": "openvino", "device": "CPU", "precision": "bf16"},
        model="net",
        way=WAY,
        cameras=4,
        files=("street.mp4",),
    )
    return EfficiencyReport(subject=subject, rounds=rounds)


def test_every_stage_is_charged_for_what_it_has_seen() -> None:
    """110 frames decoded, of which 100 went further: a stage's cost is that of a frame that came so far."""
    cpu_ms = {"decode": 3.0, "letterbox": 0.5, "postprocess": 0.4, "track": 1.0, "publish": 0.1}
    totals = {"decoded": 110, "inferred": 100, "published": 100, "cpu_ms": cpu_ms}
    found = cost_by_stage(totals, cpu_s=2.6, engine_cpu_s=2.0)
    assert list(found) == ["decode", "letterbox", "infer", "postprocess", "track", "publish", "the rest"]
    assert found["decode"] == 3.0
    assert found["letterbox"] == pytest.approx(0.55)
    assert found["infer"] == 20.0
    assert found["the rest"] == pytest.approx((2600 - 2000 - 110 * 5.0) / 100)


def test_stages_that_a_run_has_not_are_left_out() -> None:
    found = cost_by_stage({"decoded": 10, "inferred": 10, "published": 10, "cpu_ms": {}}, cpu_s=0.1, engine_cpu_s=0.2)
    assert found == {"infer": 20.0, "the rest": 0.0}


def test_a_round_compares_with_its_own_engine() -> None:
    found = one_round(fps=66.0)
    assert found.ratio == pytest.approx(66 / 80)
    assert found.beyond_ms == pytest.approx(24.5 - 2.5 - 20.0)


def test_figures_are_medians_of_rounds() -> None:
    told = report(one_round(70.0), one_round(20.0, infer=60.0), one_round(66.0))
    assert told.median(lambda one: one.ratio) == pytest.approx(66 / 80)
    assert told.stages(lambda one: one.pipeline) == STAGES
    assert told.stages(lambda one: one.annotated) == {}


def test_cameras_go_as_fast_as_they_can_and_publish_nothing(tmp_path: Path) -> None:
    camera = CameraConfig(url="yard.mp4", files=(tmp_path / "yard.mp4",), classes=("person",))
    config = Config(
        model=ModelConfig(path=tmp_path / "net.onnx"),
        mqtt=MqttConfig(url="mqtt://broker"),
        file=FileConfig(path="out.jsonl"),
        cameras={"yard": camera},
    )
    own = unpaced(config, None, 4)
    assert own.cameras["yard"] == camera.model_copy(update={"realtime": False, "loop": True})
    assert (own.mqtt, own.file, own.video, own.rtsp) == (None, None, None, None)
    others = unpaced(config, tmp_path / "gate.mp4", 3)
    assert list(others.cameras) == ["camera0", "camera1", "camera2"]
    assert {one.files for one in others.cameras.values()} == {(tmp_path / "gate.mp4",)}
    assert not any(one.realtime for one in others.cameras.values())


def test_json_has_everything() -> None:
    told = json.loads(as_json(report(one_round(), one_round(annotated=True))))
    assert told["schema"] == "streamproc.bench.efficiency/1"
    assert told["ratio"] == pytest.approx(0.825)
    assert told["beyond_ms"] == pytest.approx(2.0)
    assert told["stages_ms"] == STAGES
    assert told["annotated_stages_ms"] == DRAWN
    assert told["engine"]["precision"] == "bf16"
    assert told["way"] == {"batch": 1, "concurrency": 2}
    first, second = told["rounds"]
    assert first["annotated"] is None
    assert second["annotated"]["frames_per_s"] == 30.0
    assert first["pipeline"]["stages"] == STAGES


def test_the_tables() -> None:
    told = report(one_round(70.0), one_round(66.0), one_round(62.0))
    rows = {row[0]: row[1:] for row in totals_table(told).rows}
    assert rows["pipeline, frames/s"] == ("70.0", "66.0", "62.0", "66.0")
    assert rows["pipeline : bare engine"] == ("0.875", "0.825", "0.775", "0.825")
    assert rows["CPU ms a frame beyond both"][-1] == "2.00"
    stages = stages_table(told)
    assert stages.header == ("stage", "CPU ms a frame")
    assert stages.rows[-1] == ("together", "24.50")
    assert "0.825 of the bare engine's" in summary(told)
    assert subject_lines(told)["engine"] == "openvino: device CPU, precision bf16"


def test_annotated_video_has_a_column_of_its_own() -> None:
    stages = stages_table(report(one_round(annotated=True)))
    assert ("annotate + encode", "-", "15.00") in stages.rows
    assert ("letterbox", "0.50", "0.50") in stages.rows


@pytest.mark.parametrize("annotated", [False, True])
def test_the_page_can_be_read(annotated: bool) -> None:
    found = ElementTree.fromstring(as_html(report(one_round(annotated=annotated))))
    text = " ".join(found.itertext())
    for name in ("bare engine", "letterbox", "the rest", "street.mp4"):
        assert name in text
