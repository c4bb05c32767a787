"""From a model file to an int8 one for the engine in this process, and what the command says of both."""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamproc.cli.models import models
from streamproc.engines.openvino import OpenVinoEngine
from streamproc.errors import ConfigError
from streamproc.models.heads import Thresholds
from streamproc.models.spec import recognise
from streamproc.repository.in_process import write_int8
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from tests.detecting import agreement, detect_all
from tests.engines import open_model
from tests.pictures import frames_of, picture_of
from tests.unit.repository.detectors import save_convolutional, save_picture
from tests.unit.repository.test_accuracy import write_set

USUAL = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)


async def test_the_sample_detector(samples: Path, tmp_path: Path) -> None:
    options = BuildOptions(
        repository=tmp_path,
        backend="openvino",
        precision="int8",
        calibration=samples / "annotated.jpg",
    )
    source = samples / "streetnet.onnx"
    written = write_int8(source, tmp_path / "street.xml", options)
    assert "boxes matched on 1 picture" in written.verified[0]
    assert written.path.with_suffix(".bin").stat().st_size < 0.4 * source.stat().st_size
    clear = found = 0
    plain = await open_model(OpenVinoEngine, source, name="plain")
    quantised = await open_model(OpenVinoEngine, written.path, name="street")
    try:
        assert quantised.description["precision"] == "int8"
        assert plain.description["precision"] != "int8"
        heads = [recognise(engine.info) for engine in (plain, quantised)]
        assert heads[0].labels == heads[1].labels
        pictures = [picture_of(frame) for frame in islice(frames_of(samples / "plaza.mp4", every=5), 8)]
        expected = await detect_all(plain, heads[0], pictures, USUAL)
        for one, other in zip(expected, await detect_all(quantised, heads[1], pictures, USUAL), strict=True):
            now = agreement(one, other, iou=0.7)
            found, clear = found + now[0], clear + now[1]
    finally:
        await plain.close()
        await quantised.close()
    print(f"{found} of {clear} clear boxes")
    assert clear > 20
    assert found >= 0.9 * clear


def arguments(folder: Path, *more: str) -> list[str]:
    """A folder of pictures and a tiny model, and the command that makes it int8."""
    (folder / "pictures").mkdir(exist_ok=True)
    save_picture(folder / "pictures" / "a.png")
    source = save_convolutional(folder / "small.onnx")
    return ["build", str(source), "--precision", "int8", "--calibration", str(folder / "pictures"), *more]


def test_the_command_shows_before_and_after(tmp_path: Path) -> None:
    labelled = asyncio.run(write_set(tmp_path))
    output = tmp_path / "small.xml"
    command = arguments(tmp_path, "--output", str(output), "--labelled", str(labelled), "--measure-s", "0.3")
    told = CliRunner().invoke(models, command)
    assert told.exit_code == 0, told.output
    assert "yolo, int8, 64x64, calibrated on 1 picture" in told.stdout
    assert re.search(r"pictures/s .* x \d+\.\d\d", told.stdout)
    assert re.search(r"mAP50-95 │ +0\.\d{4} │ +0\.\d{4} │ +[+-]0\.\d{4}", told.stdout)
    assert "after (int8)" in told.stdout
    assert "accuracy on 2 labelled pictures" in told.stdout
    found = inspect(output)
    assert found.runs
    assert (found.inputs[0].dtype, found.inputs[0].shape) == ("uint8", (-1, 64, 64, 3))
    assert found.labels == ("person", "car")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_repository_is_compared_as_well(tmp_path: Path, backend: str) -> None:
    command = arguments(tmp_path, "--repository", str(tmp_path / "models"), "--backend", backend, "--measure-s", "0.3")
    told = CliRunner().invoke(models, command)
    assert told.exit_code == 0, told.output
    assert "pictures/s" in told.stdout
    assert "calibrated on 1 picture" in told.stdout
    file = "model.xml" if backend == "openvino" else "model.onnx"
    assert (tmp_path / "models" / "small" / "1" / file).is_file()
    assert f'default_model_filename: "{file}"' in (tmp_path / "models" / "small" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--output", "a.onnx"), "output: found a.onnx; expected an .xml file"),
        (("--output", "a.xml", "--repository", "here"), "--repository: found together with --output"),
        (("--output", "a.xml", "--backend", "python"), "backend: found python; expected openvino with output"),
        (("--output", "a.xml", "--instances", "2"), "instances: found 2; expected it for a model in a repository only"),
        (("--backend", "openvino", "--fuse-suppression"), "fuse_suppression: found True; expected False with int8"),
        (("--backend", "tensorrt", "--labelled", "."), "--labelled: found .; expected it with precision int8, another"),
        (("--calibration-pictures", "0"), "calibration_pictures: found 0; expected 1 to 10000"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    told = CliRunner().invoke(models, arguments(tmp_path, *more))
    assert told.exit_code == 2
    assert said in told.output.replace("\n", " ")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    arguments(tmp_path)
    options = BuildOptions(repository=tmp_path, backend="openvino", precision="int8", calibration=tmp_path / "pictures")
    (tmp_path / "small.bin").write_text("somebody's")
    with pytest.raises(ConfigError, match=r"small\.xml, which exists; expected a new file.*--replace"):
        write_int8(tmp_path / "small.onnx", tmp_path / "small.xml", options)
