"""Cascades in the real server: one request, and the answer of the same models called one by one in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from streamproc.cli.models import models
from streamproc.serving.graph import Graph
from streamproc.serving.plan import Plan
from tests.served import built_plan
from tests.spots import add_shades, add_spots, packed, picture, shades, spots
from tests.triton import connected

SIZE = (320, 160)
ROOM = (640, 160)  # as RGB takes twice the samples of YUV
CROP = {"crop": {"min_size": 4}}
SHADE = {"name": "shades", "max_waiting": 8, **CROP}
CASCADES: Mapping[str, Mapping[str, Any]] = {
    "branches": {
        "parts": {"name": "alone", "classes": ["red", "green"], "max_detections": 5, **CROP},
        "inner": {**SHADE, "on": "parts"},
        "outer": {**SHADE, "classes": ["blue"]},
    },
    "line": {"shade": SHADE},
    "alone": {},
}
RED, BLUE = (200, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascades")
    add_shades(folder / "models", "shades")
    for name in CASCADES:
        add_spots(folder / "models", name)
    for name, secondaries in CASCADES.items():
        path = folder / f"{name}.yaml"
        cameras = {"gate": {"url": "rtsp://127.0.0.1/"}}
        config = {"engine": {"kind": "triton"}, "model": {"name": name}, "models": secondaries, "cameras": cameras}
        path.write_text(yaml.safe_dump(config))
        command = ["build", "--ensemble", str(path), "-r", str(folder / "models"), "--size", "640x160"]
        done = CliRunner().invoke(models, command)
        assert done.exit_code == 0, done.output
    return folder / "models"


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[InferenceServerClient]:
    with connected(repository) as client:
        yield client
    assert not [*repository.glob("*/1/modules/**/__pycache__")]


def ask(client: InferenceServerClient, name: str, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    tensor = InferInput("pictures", list(pictures.shape), "UINT8")
    tensor.set_data_from_numpy(pictures)
    answer = client.infer(f"{name}_cascade", [tensor], client_timeout=30)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def here(plan: Plan, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The same, with the models in this process."""

    def call(name: str, rows: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {"means": shades(rows)} if plan.model(name).info.name == "shades" else {"boxes": spots(rows)}

    return Graph(plan).run(pictures, call)


def street(seed: int) -> NDArray[np.uint8]:
    """A packed picture with a red spot, green on it, and a blue one."""
    x, y = np.random.default_rng(seed).integers(0, 60, 2).tolist()
    image = picture(
        SIZE,
        (x, y, x + 120, y + 90, RED),
        (x + 30, y + 20, x + 60, y + 50, (200, 250, 0)),
        (x + 180, y + 30, x + 250, y + 80, BLUE),
    )
    return packed(ROOM, image)


def assert_equal(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        # One OpenCV is not the other: what they scale may differ by one of 255, and a spot's edge by a pixel.
        np.testing.assert_allclose(found[name], values, atol=1.01, err_msg=name)


def calls(client: InferenceServerClient, model: str) -> tuple[int, int]:
    """How often a model ran, and on how many pictures."""
    stats = client.get_inference_statistics(model).model_stats[0]
    return stats.execution_count, stats.inference_count


@pytest.mark.parametrize("name", ["branches", "line", "alone"])
def test_answers_equal_those_of_the_models_one_by_one(
    repository: Path, client: InferenceServerClient, name: str
) -> None:
    plan = built_plan(repository, name)
    for seed in range(3):
        expected = here(plan, street(seed))
        assert expected["detections"][0, 0, 4] > 0.5
        assert_equal(ask(client, name, street(seed)), expected)


@pytest.mark.parametrize("name", ["branches", "alone"])
def test_several_pictures_in_one_request(repository: Path, client: InferenceServerClient, name: str) -> None:
    pictures = np.concatenate([street(1), np.zeros_like(street(1)), street(2)])
    before = calls(client, name)
    assert_equal(ask(client, name, pictures), here(built_plan(repository, name), pictures))
    after = calls(client, name)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 3)


def test_models_with_nothing_to_look_at_are_not_called(repository: Path, client: InferenceServerClient) -> None:
    before = {model: calls(client, model) for model in ("branches", "alone", "shades")}
    black = packed(ROOM, picture(SIZE))
    answer = ask(client, "branches", black)
    assert_equal(answer, here(built_plan(repository, "branches"), black))
    assert not answer["detections"].any()
    assert (answer["inner.parent"] == -1).all()
    after = {model: calls(client, model) for model in before}
    assert after["branches"][1] == before["branches"][1] + 1
    assert (after["alone"], after["shades"]) == (before["alone"], before["shades"])


def test_a_straight_line_with_nothing_to_look_at(repository: Path, client: InferenceServerClient) -> None:
    black = packed(ROOM, picture(SIZE))
    assert_equal(ask(client, "line", black), here(built_plan(repository, "line"), black))


@pytest.mark.parametrize("name", ["branches", "line"])
def test_a_stage_that_fails_is_named_and_the_next_request_is_answered(
    repository: Path, client: InferenceServerClient, name: str
) -> None:
    bad = packed(ROOM, picture(SIZE, (60, 40, 200, 120, (7, 0, 250))))
    said = r"branches_cascade: outer \(shades\): a seven" if name == "branches" else "a seven"
    for _ in range(3):
        with pytest.raises(InferenceServerException, match=said):
            ask(client, name, bad)
    assert_equal(ask(client, name, street(3)), here(built_plan(repository, name), street(3)))


def test_many_clients_at_once(repository: Path, client: InferenceServerClient) -> None:
    jobs = [(name, street(seed)) for seed in range(8) for name in ("branches", "line", "alone")]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda job: ask(client, *job), jobs))
    for (name, one), answer in zip(jobs, answers, strict=True):
        assert_equal(answer, here(built_plan(repository, name), one))
