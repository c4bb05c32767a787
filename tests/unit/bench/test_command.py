"""``streamproc bench transport``: what is wrong with a command line is said before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamproc.cli.bench import bench

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
        ((*SERVER, "--picture", "nowhere.jpg"), "--picture: found nowhere.jpg; expected a picture file"),
        ((*SERVER, "--header", "token"), "--header: expected NAME=VALUE"),
        ((*SERVER, "--ca", "ca.pem"), "expected a tls section only with grpcs://"),
        (("--url", "http://127.0.0.1:8000", "--model", "net"), "expected grpc://HOST:8001 or grpcs://HOST:8001"),
        (("--onnx", "other.onnx"), "'other.onnx' does not exist"),
        ((*SERVER, "--seconds", "0"), "greater than or equal to 0.1"),
    ],
)
def test_bad_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("net.onnx", "ca.pem"):
        (tmp_path / name).touch()
    done = CliRunner().invoke(bench, ["transport", *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
