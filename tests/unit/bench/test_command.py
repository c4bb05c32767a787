"""``streamproc bench``: what is wrong with a command line is said before anything is measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamproc.cli.bench import bench

PAIR = ("--model", "net.onnx", "--video", "yard.mp4")
SERVER = ("--url", "grpc://127.0.0.1:8001", "--model", "net")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --onnx FILE, or --url and --model"),
        (("--onnx", "net.onnx", *SERVER), "give either --onnx FILE, or --url and --model"),
        (("--onnx", "net.onnx", "--model", "net"), "give either --onnx FILE, or --url and --model"),
        (("--url", "grpc://127.0.0.1:8001"), "give either --onnx FILE, or --url and --model"),
        ((*SERVER, "--batch-sizes", "1,two"), "--batch-sizes: found 'two'; expected numbers from 1 to 256"),
        ((*SERVER, "--batch-sizes", "0"), "--batch-sizes: found '0'"),
        ((*SERVER, "--concurrency", ""), "--concurrency: found ''"),
        ((*SERVER, "--transports", "system,rdma"), "--transports: found 'rdma'; expected some of cuda, system, none"),
        (("--onnx", "net.onnx", "--fused", "some"), "--fused: found 'some'; expected some of none, input, all"),
        ((*SERVER, "--csv", "nowhere/rows.csv"), "--csv: the folder of nowhere/rows.csv does not exist"),
        ((*SERVER, "--json", "nowhere/all.json"), "--json: the folder of nowhere/all.json does not exist"),
        ((*SERVER, "--html", "nowhere/page.html"), "--html: the folder of nowhere/page.html does not exist"),
        ((*SERVER, "--picture", "nowhere.jpg"), "--picture: found nowhere.jpg; expected a picture file"),
        ((*SERVER, "--header", "token"), "--header: expected NAME=VALUE"),
        ((*SERVER, "--ca", "ca.pem"), "expected a tls section only with grpcs://"),
        (("--url", "http://127.0.0.1:8000", "--model", "net"), "expected grpc://HOST:8001 or grpcs://HOST:8001"),
        (("--onnx", "other.onnx"), "'other.onnx' does not exist"),
        ((*SERVER, "--seconds", "0"), "greater than or equal to 0.1"),
    ],
)
def test_transport(arguments: tuple[str, ...], said: str) -> None:
    refused("transport", *arguments, said=said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either a CONFIG, or --video and --model"),
        (("cameras.yaml", "--model", "net.onnx"), "give either a CONFIG, or --video and --model"),
        (("--video", "yard.mp4"), "give either a CONFIG, or --video and --model"),
        (("--model", "net.onnx"), "--model: expected a --video"),
        (("--model", "other.onnx", "--video", "yard.mp4"), "'other.onnx' does not exist"),
        (("--model", "net.onnx", "--video", "other.mp4"), "'other.mp4' does not exist"),
        ((*PAIR, "--cameras", "0"), "Input should be greater than or equal to 1"),
        ((*PAIR, "--rounds", "0"), "Input should be greater than or equal to 1"),
        ((*PAIR, "--seconds", "0"), "Input should be greater than or equal to 0.1"),
        ((*PAIR, "--labels", "nowhere.txt"), "--labels: found 'nowhere.txt'; expected coco, or a text file"),
        ((*PAIR, "--json", "nowhere/all.json"), "--json: the folder of nowhere/all.json does not exist"),
        ((*PAIR, "--html", "nowhere/page.html"), "--html: the folder of nowhere/page.html does not exist"),
        (("nowhere.yaml",), "nowhere.yaml"),
        (("live.yaml", "--labels", "coco"), "--labels: the configuration has it; leave out one of the two"),
        (("live.yaml", "--engine", "openvino"), "--engine: the configuration has it; leave out one of the two"),
        (("live.yaml",), "camera gate is live, and cannot go as fast as the machine allows. Give a --video"),
    ],
)
def test_efficiency(arguments: tuple[str, ...], said: str) -> None:
    refused("efficiency", *arguments, said=said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("net.onnx",), "Missing option '--price'"),
        (("net.onnx", "--price", "-1"), "Invalid value for '--price': Input should be greater than or equal to 0"),
        (("net.onnx", "--price", "nan"), "Invalid value for '--price'"),
        (("net.onnx", "--price", "inf"), "--price: found inf; expected what the machine costs an hour"),
        (("net.onnx", "--price", "cheap"), "Invalid value for '--price': Input should be a valid number"),
        (("--price", "1"), "give either model files, or --config FILE"),
        (("net.onnx", "--config", "live.yaml", "--price", "1"), "give either model files, or --config FILE"),
        (("other.onnx", "--price", "1"), "'other.onnx' does not exist"),
        (("yard.mp4", "--price", "1"), "yard.mp4: expected a model file, .onnx or .xml"),
        (("net.onnx", "--price", "1", "--video", "other.mp4"), "'other.mp4' does not exist"),
        (("net.onnx", "--price", "1", "--html", "nowhere/page.html"), "--html: the folder of nowhere/page.html"),
        (("--config", "nowhere.yaml", "--price", "1"), "nowhere.yaml"),
        (("--config", "live.yaml", "--price", "1", "--labels", "coco"), "--labels: the configuration has it"),
    ],
)
def test_cost(arguments: tuple[str, ...], said: str) -> None:
    refused("cost", *arguments, said=said)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("net.onnx", "ca.pem", "yard.mp4"):
        (tmp_path / name).touch()
    camera = "cameras: {gate: {url: rtsp://10.0.0.5/stream1}}"
    (tmp_path / "live.yaml").write_text(f"model: {{path: net.onnx}}\n{camera}\n")


def refused(*arguments: str, said: str) -> None:
    done = CliRunner().invoke(bench, list(arguments))
    assert done.exit_code == 2, done.output
    assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", done.output).split())
