"""The script that builds a plan, run with a trtexec of our own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from streamproc.engines.base import TensorInfo
from streamproc.repository.tensorrt import PlanInput, build_script, trtexec_command

IMAGES = TensorInfo(name="images", dtype="uint8", shape=(-1, 64, 96, 3))
SHAPES = ["--minShapes=images:1x64x96x3", "--optShapes=images:8x64x96x3", "--maxShapes=images:8x64x96x3"]


def wanted(precision: str = "fp16", image: TensorInfo = IMAGES) -> PlanInput:
    return PlanInput(image=image, max_batch=8, is_open=image.shape[0] < 0, precision=precision)


def write_script(folder: Path, *, precision: str = "fp16", image: TensorInfo = IMAGES) -> Path:
    folder.mkdir()
    script = folder / "build_plan.sh"
    script.write_text(build_script("yolo", 1, wanted(precision, image)))
    script.chmod(0o755)
    (folder / "model.onnx").write_text("graph")
    return script


def write_trtexec(
    path: Path, *, banner: str = "&&&& RUNNING TensorRT.trtexec [TensorRT v100300]", plan: str = "plan"
) -> Path:
    """A stand-in for the real one: its banner, its arguments in a file, and a plan."""
    path.write_text(
        "#!/bin/sh\n"
        f"echo '{banner}'\n"
        'case "$1" in --help) exit 0;; esac\n'
        f'printf "%s\\n" "$@" >{path}.args\n'
        'for word; do case "$word" in --saveEngine=*) printf "%s" "'
        f'{plan}" >"${{word#*=}}";; esac; done\n'
    )
    path.chmod(0o755)
    return path


def run(script: Path, trtexec: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "TRTEXEC": str(trtexec), **environment}
    return subprocess.run([str(script)], env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16", "int8"])
def test_scripts_are_valid(tmp_path: Path, shell: str, precision: str) -> None:
    script = write_script(tmp_path / "1", precision=precision)
    subprocess.run([shell, "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("banner", "precision", "flags", "version"),
    [
        ("x [TensorRT v8603] y", "fp16", ["--fp16"], "8.6.3"),
        ("x [TensorRT v100300] y", "int8", ["--int8", "--fp16"], "10.3.0"),
        ("x [TensorRT v101401] y", "auto", [], "10.14.1"),
        ("x [TensorRT v110100] y", "fp16", [], "11.1.0"),
    ],
)
def test_flags_fit_the_version(tmp_path: Path, banner: str, precision: str, flags: list[str], version: str) -> None:
    script = write_script(tmp_path / "1", precision=precision)
    trtexec = write_trtexec(tmp_path / "trtexec", banner=banner)
    done = run(script, trtexec)
    assert done.returncode == 0, done.stderr
    words = Path(f"{trtexec}.args").read_text().split()
    assert words[0] == f"--onnx={tmp_path / '1' / 'model.onnx'}"
    assert words[2:] == ["--skipInference", *flags, *SHAPES]
    assert (tmp_path / "1" / "model.plan").read_text() == "plan"
    assert json.loads((tmp_path / "1" / "model.plan.json").read_text())["tensorrt_version"] == version
    assert sorted(os.listdir(tmp_path / "1")) == ["build_plan.sh", "model.onnx", "model.plan", "model.plan.json"]


def test_a_fixed_batch_needs_no_shapes(tmp_path: Path) -> None:
    script = write_script(tmp_path / "1", image=TensorInfo(name="images", dtype="uint8", shape=(1, 64, 96, 3)))
    trtexec = write_trtexec(tmp_path / "trtexec")
    assert run(script, trtexec).returncode == 0
    assert "Shapes" not in Path(f"{trtexec}.args").read_text()


def test_a_version_that_is_not_told_is_asked_for(tmp_path: Path) -> None:
    script = write_script(tmp_path / "1")
    trtexec = write_trtexec(tmp_path / "trtexec", banner="no version")
    refused = run(script, trtexec)
    assert refused.returncode != 0
    assert "set TENSORRT_MAJOR" in refused.stderr
    assert run(script, trtexec, TENSORRT_MAJOR="10").returncode == 0
    assert json.loads((tmp_path / "1" / "model.plan.json").read_text())["tensorrt_version"] == "10"


def test_without_trtexec(tmp_path: Path) -> None:
    done = run(write_script(tmp_path / "1"), tmp_path / "absent")
    assert done.returncode == 1
    assert "run this inside the Triton container" in done.stderr


@pytest.mark.parametrize("old", [None, "old plan"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, old: str | None) -> None:
    script = write_script(tmp_path / "1")
    if old:
        (tmp_path / "1" / "model.plan").write_text(old)
    done = run(script, write_trtexec(tmp_path / "trtexec", plan=""))
    assert done.returncode == 1
    assert "ended without a plan" in done.stderr
    left = {path.name for path in (tmp_path / "1").iterdir()}
    assert left == {"build_plan.sh", "model.onnx"} | ({"model.plan"} if old else set())
    if old:
        assert (tmp_path / "1" / "model.plan").read_text() == old


def test_the_command_for_people() -> None:
    command = trtexec_command(wanted("int8"), tensorrt_major=10)
    assert command.split()[3:] == ["--skipInference", "--int8", "--fp16", *SHAPES]
    assert "--int8" not in trtexec_command(wanted("int8"), tensorrt_major=11)


def test_open_sizes_are_stated_for_a_fixed_batch() -> None:
    fixed = TensorInfo(name="images", dtype="float32", shape=(2, 3, 64, 96))
    command = trtexec_command(PlanInput(image=fixed, max_batch=0, is_open=True, precision="auto"), tensorrt_major=10)
    assert command.split()[4:] == [f"--{which}Shapes=images:2x3x64x96" for which in ("min", "opt", "max")]
