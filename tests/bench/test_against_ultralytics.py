"""Figures beside Ultralytics: the same four files, network, precision and input size, in turns.

It is under the AGPL: no dependency, never imported here, and run by an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
import yaml

from streamproc.bench.child import in_child
from streamproc.bench.efficiency import unpaced
from streamproc.bench.whole import measure_pipeline
from streamproc.config import CameraConfig, Config, FileConfig, ModelConfig
from streamproc.labels import COCO_80

pytestmark = [pytest.mark.bench, pytest.mark.shared_data, pytest.mark.timeout(3600)]

PYTHON = "STREAMPROC_ULTRALYTICS_PYTHON"
INT8 = "STREAMPROC_INT8_MODEL"
ROUNDS = 3
CAMERAS = 4
SECONDS = 15.0
SCRIPT = Path(__file__).with_name("ultralytics_streams.py")


@pytest.fixture(scope="module")
def interpreter() -> str:
    """One that has Ultralytics and OpenVINO."""
    if not (python := os.environ.get(PYTHON)):
        pytest.skip(
            f"{PYTHON} names no interpreter with Ultralytics. Make one: python3 -m venv ultralytics && "
            f"ultralytics/bin/pip install ultralytics openvino lap && export {PYTHON}=$PWD/ultralytics/bin/python"
        )
    return python


@pytest.fixture(scope="module")
def clip(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shopping street from above, 1080p, about 15 people in view, 18 s."""
    path = tmp_path_factory.mktemp("clips") / "street.mp4"
    source = shared_data / "videos" / "pedestrians_street_1080p.mp4"
    command = ["ffmpeg", "-v", "error", "-stream_loop", "2", "-i", source, "-c", "copy", "-an", path]
    subprocess.run(list(map(str, command)), check=True)
    return path


@pytest.fixture(scope="module")
def theirs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The network as Ultralytics takes it for OpenVINO: one picture at a time, and one of every camera at a time."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for batch in (1, CAMERAS):
        model = ov.Core().read_model(shared_data / "models" / "yolov8n.onnx")
        model.reshape([batch, 3, 640, 640])
        (room := folder / f"batch{batch}_openvino_model").mkdir()
        ov.save_model(model, room / "yolov8n.xml", compress_to_fp16=False)
        told = {"task": "detect", "stride": 32, "batch": batch, "imgsz": [640, 640], "channels": 3}
        content = told | {"names": dict(enumerate(COCO_80)), "args": {"dynamic": False}}
        (room / "metadata.yaml").write_text(yaml.safe_dump(content))
        found[f"Ultralytics, batch {batch}"] = room
    return found


def run_theirs(python: str, model: Path, clip: Path, folder: Path) -> dict[str, Any]:
    """Pictures a second, and objects in a picture."""
    streams = folder / "four.streams"
    streams.write_text(f"{clip}\n" * CAMERAS)
    environ = os.environ | {"YOLO_OFFLINE": "True", "YOLO_CONFIG_DIR": str(folder)}
    command = [python, str(SCRIPT), str(model), str(streams)]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return {"fps": told["pictures"] / told["seconds"], "objects": told["objects"] / told["pictures"]}


async def run_ours(model: Path, clip: Path, folder: Path) -> dict[str, Any]:
    """The same of ours, which also writes every picture's detections into a file."""
    out = folder / "detections.jsonl"
    out.unlink(missing_ok=True)
    cameras = {"one": CameraConfig(url=str(clip), files=(clip,))}
    config = unpaced(Config(model=ModelConfig(path=model, labels="coco"), cameras=cameras), clip, CAMERAS)
    found = await in_child(measure_pipeline, config.model_copy(update={"file": FileConfig(path=str(out))}), SECONDS)
    objects = [len(json.loads(line)["detections"]) for line in out.read_text().splitlines()]
    return {"fps": found.frames_per_s, "objects": statistics.mean(objects)}


async def test_streams_of_ultralytics_with_bytetrack(
    interpreter: str,
    clip: Path,
    theirs: Mapping[str, Path],
    shared_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The goal: 1.2 times their pictures a second, and 1.5 times with our INT8."""
    ours = {"streamproc": shared_data / "models" / "yolov8n.onnx"}
    if int8 := os.environ.get(INT8):
        ours["streamproc, int8"] = Path(int8)
    rounds: list[dict[str, dict[str, Any]]] = []
    names = [*theirs, *ours]
    for number in range(ROUNDS):
        rounds.append({})
        for name in names if number % 2 == 0 else reversed(names):
            if name in theirs:
                rounds[-1][name] = run_theirs(interpreter, theirs[name], clip, tmp_path)
            else:
                rounds[-1][name] = await run_ours(ours[name], clip, tmp_path)
    with capsys.disabled():
        print(f"\n{'pictures/s by round':24}{'':{9 * (ROUNDS - 1)}}   median  objects  times the better of theirs")
        for name in names:
            speeds = [found[name]["fps"] for found in rounds]
            ratio = statistics.median(
                found[name]["fps"] / max(found[peer]["fps"] for peer in theirs) for found in rounds
            )
            shown = "".join(f"{fps:9.1f}" for fps in speeds)
            objects = statistics.median(found[name]["objects"] for found in rounds)
            print(f"{name:24}{shown}{statistics.median(speeds):9.1f}{objects:9.1f}{ratio:9.2f}")
