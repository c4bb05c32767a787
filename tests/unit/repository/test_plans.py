"""Plan files: what their heads tell, and which a server cannot load."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from streamproc.errors import ModelError
from streamproc.repository import plans
from streamproc.repository.plans import check_plan, copy_plan, read_plan
from tests.unit.repository.plan_files import BODY, METADATA, write_plan


def test_a_bare_plan(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path / "model.plan"))
    assert (plan.start, plan.metadata, plan.tensorrt_version, plan.compute_capability) == (0, {}, "10.3.0.26", None)


def test_an_exporters_header_is_stripped(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path / "model.engine", metadata=METADATA))
    assert plan.metadata == METADATA
    assert plan.tensorrt_version == "10.3.0.26"
    copy_plan(plan, tmp_path / "bare.plan")
    assert (tmp_path / "bare.plan").read_bytes() == BODY


def test_a_layout_that_is_not_known_tells_no_version(tmp_path: Path) -> None:
    body = b"ftrt" + struct.pack("<I", 7) + BODY[8:]
    assert read_plan(write_plan(tmp_path / "model.plan", body=body)).tensorrt_version is None


def test_the_builders_note_tells_the_gpu(tmp_path: Path) -> None:
    path = write_plan(tmp_path / "model.plan")
    (tmp_path / "model.plan.json").write_text('{"compute_capability": "8.6"}')
    assert read_plan(path).compute_capability == "8.6"
    (tmp_path / "model.plan.json").write_text("nonsense")
    assert read_plan(path).compute_capability is None


@pytest.mark.parametrize(
    "raw",
    [b"", b"ft", b"ftrt", BODY[:20], b"PK\x03\x04" + bytes(100), struct.pack("<I", 50) + bytes(10), bytes(200)],
    ids=["empty", "two bytes", "tag alone", "cut off", "zip", "short header", "zeros"],
)
def test_what_is_no_plan(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "model.plan").write_bytes(raw)
    with pytest.raises(ModelError, match="no TensorRT plan"):
        read_plan(tmp_path / "model.plan")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_plan(tmp_path / "absent.plan")
    with pytest.raises(ModelError, match="cannot be copied"):
        copy_plan(read_plan(write_plan(tmp_path / "model.plan")), tmp_path / "absent" / "model.plan")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> plans.Plan:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    return read_plan(write_plan(tmp_path / "model.plan"))


@pytest.mark.parametrize("version", ["10", "10.3", "10.3.0", "10.3.0.26"])
def test_the_same_version(plan: plans.Plan, version: str) -> None:
    notes = check_plan(plan, tensorrt_version=version, compute_capability="8.6", built_on="8.6")
    assert notes == ()


@pytest.mark.parametrize("version", ["8.6.1", "10.5", "10.3.0.30"])
def test_another_version(plan: plans.Plan, version: str) -> None:
    with pytest.raises(ModelError, match=rf"built for TensorRT 10.3.0.26, the server has TensorRT {version}.*Build it"):
        check_plan(plan, tensorrt_version=version, compute_capability=None, built_on=None)


def test_another_kind_of_gpu(plan: plans.Plan) -> None:
    with pytest.raises(ModelError, match=r"compute capability 8.6, the server has compute capability 8.9"):
        check_plan(plan, tensorrt_version="10.3", compute_capability="8.9", built_on="8.6")


def test_what_was_not_checked_is_said(plan: plans.Plan) -> None:
    notes = check_plan(plan, tensorrt_version=None, compute_capability=None, built_on=None)
    assert "made by TensorRT 10.3.0.26" in notes[0]
    assert "the plan was built on is not known" in notes[1]
    assert (
        "the server has is not known"
        in check_plan(plan, tensorrt_version="10", compute_capability=None, built_on="8.6")[0]
    )


@pytest.mark.parametrize(("says", "fits"), [("echo 8.6", True), ("echo 9.0", False), ("exit 1", True), ("true", True)])
def test_the_gpu_here_is_asked(plan: plans.Plan, tmp_path: Path, says: str, fits: bool) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    if fits:
        check_plan(plan, tensorrt_version="10", compute_capability=None, built_on="8.6")
    else:
        with pytest.raises(ModelError, match=r"compute capability 9\.0"):
            check_plan(plan, tensorrt_version="10", compute_capability=None, built_on="8.6")
