"""`streamproc run` and `check` with a Triton server, which the user may kill, and streamproc as well."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc
from tritonclient.utils import shared_memory

from tests.brokers import free_port
from tests.e2e.harness import Subscriber, assert_sums_close, started, streamproc, write_config
from tests.integration.engines.scripted import add_scripted, client
from tests.scoring import box_iou
from tests.triton import RunningServer, add_model, running_server

STOP_S = 20.0  # generous: that it ends at all is what counts

_CONFIG = """
max_batch_size: 8
input [{{ name: "images" data_type: TYPE_UINT8 dims: [{height}, {width}, 3] }}]
output [{{ name: "output0" data_type: TYPE_FP32 dims: [{classes}, {cells}] }}]
instance_group [{{ kind: KIND_CPU count: 2 }}]
parameters {{ key: "precision" value {{ string_value: "fp32" }} }}
"""


def add_detector(repository: Path, source: Path, *, size: tuple[int, int], shape: tuple[int, int]) -> None:
    """Serve an ONNX file under its own name, with the metadata it carries."""
    config = _CONFIG.format(width=size[0], height=size[1], classes=shape[0], cells=shape[1])
    model = onnx.load(str(source))
    for entry in model.metadata_props:
        config += f'parameters {{ key: "{entry.key}" value {{ string_value: {json.dumps(entry.value)} }} }}\n'
    onnx.save(model, str(add_model(repository, source.stem, config, runtime="openvino")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Iterator[RunningServer]:
    """A server of the sample world's detector, and of a model for other clients."""
    repository = add_scripted(tmp_path_factory.mktemp("models"))
    add_detector(repository, samples / "streetnet.onnx", size=(640, 384), shape=(7, 5040))
    with running_server(repository) as running:
        yield running


def through(server: RunningServer, model: str = "streetnet", **engine: Any) -> dict[str, Any]:
    return {
        "engine": {"kind": "triton", "url": server.url, "ready_timeout_s": 30, **engine},
        "model": {"name": model},
    }


def segments(*processes: Any) -> list[str]:
    """What these processes have in /dev/shm."""
    own = tuple(f"streamproc-{process.pid}-" for process in processes)
    return [name for name in os.listdir("/dev/shm") if name.startswith(own)]


def regions(server: RunningServer) -> set[str]:
    with client(server) as other:
        return {*other.get_system_shared_memory_status().regions}


def detections(folder: Path, video: Path, **config: Any) -> list[list[dict[str, Any]]]:
    """What is found in each frame of a video."""
    folder.mkdir()
    path = write_config(
        folder,
        **config,
        tracking={"algorithm": "none"},
        file={"path": str(folder / "found.jsonl")},
        cameras={"video": {"url": video, "realtime": False}},
    )
    report = folder / "report.json"
    done = streamproc("run", path, "--duration", "3", "--report", report)
    assert done.code == 0, done.err
    books = json.loads(report.read_text())
    assert_sums_close(books)
    assert "engine" not in books["totals"]["dropped"]
    return [json.loads(line)["detections"] for line in (folder / "found.jsonl").read_text().splitlines()]


def assert_same_findings(ours: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> None:
    """The same objects in every frame that both have come to."""
    frames = min(len(ours), len(theirs))
    assert frames > 20
    assert sum(map(len, ours[:frames])) > frames / 2, "something was seen"
    for one, other in zip(ours, theirs, strict=False):
        assert len(one) == len(other)
        for found in one:
            matches = [match for match in other if match["label"] == found["label"]]
            overlaps = box_iou(np.array([found["box"]]), np.array([match["box"] for match in matches]))[0]
            best = int(np.argmax(overlaps))
            assert overlaps[best] >= 0.99
            assert abs(found["confidence"] - matches[best]["confidence"]) <= 0.01


def test_finds_what_the_engine_in_the_process_finds(tmp_path: Path, samples: Path, server: RunningServer) -> None:
    in_process = {"engine": {"kind": "openvino", "precision": "fp32"}, "model": {"path": samples / "streetnet.onnx"}}
    ours = detections(tmp_path / "ours", samples / "crossing.mp4", **in_process)
    theirs = detections(tmp_path / "theirs", samples / "crossing.mp4", **through(server))
    assert_same_findings(ours, theirs)


@pytest.mark.shared_data
def test_yolov8n_finds_what_it_finds_in_the_process(tmp_path: Path, shared_data: Path) -> None:
    source, video = shared_data / "models" / "yolov8n.onnx", shared_data / "videos" / "people_hall.mp4"
    in_process = {"engine": {"kind": "openvino", "precision": "fp32"}, "model": {"path": source}}
    ours = detections(tmp_path / "ours", video, **in_process)
    add_detector(tmp_path / "models", source, size=(640, 640), shape=(84, 8400))
    with running_server(tmp_path / "models") as server:
        theirs = detections(tmp_path / "theirs", video, **through(server, "yolov8n"))
    assert_same_findings(ours, theirs)


@contextmanager
def running(folder: Path, server: RunningServer, cameras: dict[str, Any]) -> Iterator[tuple[Any, Subscriber, Path]]:
    """A run that publishes: its process, who hears it, and its report in the end."""
    port, report, log = free_port(), folder / "report.json", folder / "log"
    config = write_config(
        folder, site="test", **through(server), mqtt={"url": f"embedded://127.0.0.1:{port}"}, cameras=cameras
    )
    with started("run", config, "--report", report, log=log) as process, Subscriber(port) as heard:
        yield process, heard, report


def wait_for_results(heard: Subscriber, camera: str, count: int) -> None:
    """Wait for so many more results of a camera."""
    topic = f"streamproc/test/{camera}/detections"
    wanted = len(heard.messages[topic]) + count
    heard.wait_for(lambda topics: len(topics[topic]) >= wanted)


def stopped(process: Any, report: Path) -> dict[str, Any]:
    """End a run as an operator would; its books."""
    process.send_signal(signal.SIGTERM)
    log = (report.parent / "log").read_text()
    assert process.wait(STOP_S) == 0, log
    assert "Traceback" not in log
    books: dict[str, Any] = json.loads(report.read_text())
    assert_sums_close(books)
    return books


def test_cameras_go_on_when_the_server_was_killed(tmp_path: Path, samples: Path, server: RunningServer) -> None:
    cameras = {name: {"url": samples / f"{name}.mp4", "loop": True} for name in ("gate", "yard")}
    with running(tmp_path, server, cameras) as (process, heard, report):
        for _ in range(2):
            wait_for_results(heard, "gate", 10)
            server.restart()
        wait_for_results(heard, "gate", 10)
        assert len(regions(server)) == len(segments(process)) == 1
        books = stopped(process, report)
    assert books["totals"]["dropped"]["engine"] > 0
    assert books["engine"]["kind"] == "triton"
    assert books["engine"]["url"] == server.url
    assert books["engine"]["transport"] == "system shared memory"
    assert books["engine"]["model_version"] == "1"
    assert segments(process) == []
    assert regions(server) == set()


def test_a_file_loses_nothing_when_the_server_was_killed(tmp_path: Path, samples: Path, server: RunningServer) -> None:
    cameras = {"gate": {"url": samples / "gate.mp4", "realtime": False}}
    with running(tmp_path, server, cameras) as (process, heard, report):
        wait_for_results(heard, "gate", 5)
        server.restart()
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    books = json.loads(report.read_text())
    assert_sums_close(books)
    assert books["totals"]["dropped"] == {}
    assert books["totals"]["inferred"] > 100


def test_a_run_ends_when_asked_while_the_server_is_away(tmp_path: Path, samples: Path, server: RunningServer) -> None:
    cameras = {
        "gate": {"url": samples / "gate.mp4", "realtime": False, "loop": True},
        "yard": {"url": samples / "yard.mp4", "loop": True},
    }
    with running(tmp_path, server, cameras) as (process, heard, report):
        wait_for_results(heard, "gate", 5)
        server.kill()
        try:
            stopped(process, report)
        finally:
            server.start()
    assert segments(process) == []


class Neighbour:
    """Another client of the server with a region of its own, in which it asks over and over."""

    def __init__(self, server: RunningServer) -> None:
        self._name = f"neighbour-{os.getpid()}"
        self._client = client(server)
        picture = np.full((1, 32, 64, 3), 40, np.uint8)
        self._region = shared_memory.create_shared_memory_region(self._name, f"/{self._name}", picture.nbytes)
        shared_memory.set_shared_memory_region(self._region, [picture])
        self._client.register_system_shared_memory(self._name, f"/{self._name}", picture.nbytes)
        self._input = tritonclient.grpc.InferInput("images", list(picture.shape), "UINT8")
        self._input.set_shared_memory(self._name, picture.nbytes)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="neighbour")
        self.answers = 0
        self.error: Exception | None = None

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.unregister_system_shared_memory(self._name)
        shared_memory.destroy_shared_memory_region(self._region)
        self._client.close()

    def _work(self) -> None:
        try:
            while not self._over.wait(0.02):
                answer = self._client.infer("scripted", [self._input]).as_numpy("means")
                np.testing.assert_array_equal(answer, [[40, 40, 40]])
                self.answers += 1
        except Exception as error:  # noqa: BLE001 - for the test's thread to see
            self.error = error


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.drill)])
def test_killed_over_and_over_it_leaves_no_trace_and_no_neighbour_notices(
    tmp_path: Path, samples: Path, server: RunningServer, rounds: int
) -> None:
    cameras = {name: {"url": samples / f"{name}.mp4", "loop": True} for name in ("gate", "yard")}
    with Neighbour(server) as neighbour:
        theirs, processes = regions(server), list[Any]()
        for number in range(rounds):
            folder = tmp_path / str(number)
            folder.mkdir()
            with running(folder, server, cameras) as (process, heard, _):
                wait_for_results(heard, "gate", 5)
                assert len(segments(process)) == 1
                process.kill()
                process.wait()
            processes.append(process)
        (tmp_path / "last").mkdir()
        with running(tmp_path / "last", server, cameras) as (process, heard, report):
            wait_for_results(heard, "gate", 5)
            assert segments(*processes) == [], "what the dead left behind is freed"
            assert len(regions(server) - theirs) == 1, "and forgotten by the server"
            stopped(process, report)
        answers = neighbour.answers
        assert neighbour.error is None
        assert answers > 0
        assert regions(server) == theirs
    assert segments(process) == []


def test_check_says_what_it_found(tmp_path: Path, samples: Path, server: RunningServer) -> None:
    cameras = {"gate": {"url": samples / "gate.mp4"}}
    done = streamproc("check", write_config(tmp_path, **through(server), cameras=cameras))
    assert done.code == 0, done.err
    assert "streetnet" in done.out
    assert "system shared memory" in done.out


@pytest.mark.parametrize("case", ["model", "port"])
def test_check_says_what_is_wrong(tmp_path: Path, samples: Path, server: RunningServer, case: str) -> None:
    wrong = through(server, "yolo") if case == "model" else through(server, url=f"grpc://127.0.0.1:{free_port()}")
    wrong["engine"]["ready_timeout_s"] = 0.5
    done = streamproc("check", write_config(tmp_path, **wrong, cameras={"gate": {"url": samples / "gate.mp4"}}))
    assert done.code == 1
    said = {"model": "has no such model; it has scripted, streetnet", "port": "no Triton server was ready within"}
    assert said[case] in " ".join((done.out + done.err).split())
    assert "Traceback" not in done.err
