"""The script that the server runs for a cascade, without the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from streamproc.repository.build import BuiltModel
from streamproc.repository.from_cascade import build_cascade
from streamproc.repository.options import BuildOptions
from tests.spots import add_shades, add_spots, packed, picture, shades, spots
from tests.unit.repository.python_backend import Response, Tensor, load, use_backend

SIZE = (128, 64)
ROOM = (256, 64)  # as RGB takes twice the samples of YUV
RED, SEVEN = (200, 0, 0), (7, 200, 0)


@dataclass
class Output:
    """A tensor that a model has answered, as Triton gives it."""

    own_name: str
    values: NDArray[Any]

    def name(self) -> str:
        return self.own_name

    def as_numpy(self) -> NDArray[Any]:
        return self.values


@dataclass
class Failure:
    said: str

    def message(self) -> str:
        return self.said


@dataclass
class Answer:
    tensors: Sequence[Output] = ()
    failure: Failure | None = None

    def has_error(self) -> bool:
        return self.failure is not None

    def error(self) -> Failure | None:
        return self.failure

    def output_tensors(self) -> Sequence[Output]:
        return self.tensors


@dataclass
class Server:
    """The models that a cascade calls, and which of them were called, on how many pictures."""

    calls: list[tuple[str, int, int]] = field(default_factory=list)

    def request(
        self,
        *,
        model_name: str,
        model_version: int,
        requested_output_names: list[str],
        inputs: list[Tensor],
        preferred_memory: object,
    ) -> Server._Request:
        (images,) = inputs
        assert images.name == "images"
        assert preferred_memory == ("cpu", 0)
        self.calls.append((model_name, model_version, len(images.values)))
        function = shades if model_name == "shades" else spots
        try:
            return Server._Request(Answer([Output(requested_output_names[0], function(images.values))]))
        except ValueError as exc:
            return Server._Request(Answer(failure=Failure(str(exc))))

    @dataclass
    class _Request:
        answer: Answer

        def exec(self) -> Answer:
            return self.answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    use_backend(monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    found = Server()
    backend: Any = sys.modules["triton_python_backend_utils"]
    backend.InferenceRequest, backend.TRITONSERVER_MEMORY_CPU = found.request, "cpu"
    backend.PreferredMemory = lambda *where: where
    return found


@pytest.fixture
def cascade(tmp_path: Path, server: Server) -> Any:
    """Red and green spots in pictures, spots within them, and the shades of these."""
    model = built(
        tmp_path,
        {
            "parts": {"name": "spots", "version": 1, "crop": {"min_size": 4}},
            "shade": {"name": "shades", "on": "parts", "crop": {"min_size": 4}},
        },
    )
    return load(model)


def built(folder: Path, secondaries: dict[str, Any]) -> BuiltModel:
    add_spots(folder / "models", "spots")
    add_shades(folder / "models", "shades")
    config = {
        "engine": {"kind": "triton"},
        "model": {"name": "spots"},
        "models": secondaries,
        "cameras": {"gate": {"url": "rtsp://127.0.0.1/"}},
    }
    (folder / "cameras.yaml").write_text(yaml.safe_dump(config))
    options = BuildOptions(repository=folder / "models", backend="ensemble", size=ROOM)
    return build_cascade(folder / "cameras.yaml", options)


def asked(*pictures: NDArray[np.uint8]) -> dict[str, Tensor]:
    return {"pictures": Tensor("pictures", packed(ROOM, *pictures))}


def seen(response: Response) -> list[int]:
    """How many objects there are in each picture of an answer."""
    counts: list[int] = (response["detections"][:, :, 4] > 0).sum(axis=1).tolist()
    return counts


BLACK = picture(SIZE)
GOOD = picture(SIZE, (20, 10, 100, 50, RED))
TWO = picture(SIZE, (20, 10, 100, 50, RED), (0, 0, 40, 60, (0, 220, 0)))
BAD = picture(SIZE, (20, 10, 100, 50, SEVEN))


def test_requests_are_looked_at_together(cascade: Any, server: Server) -> None:
    responses = cascade.execute([asked(GOOD), asked(BLACK, TWO)])
    assert [seen(response) for response in responses] == [[1], [0, 2]]
    assert server.calls == [("spots", -1, 3), ("spots", 1, 3), ("shades", -1, 3)]
    assert responses[0]["shade.means"][0, 0].round().tolist() == [200, 0, 0]
    assert responses[1]["shade.parent"][0].tolist() == [-1] * 32
    (alone,) = cascade.execute([asked(GOOD)])
    for tensor in alone.tensors:
        np.testing.assert_array_equal(tensor.values, responses[0][tensor.name])


def test_nothing_to_look_at_is_no_call(cascade: Any, server: Server) -> None:
    (response,) = cascade.execute([asked(BLACK)])
    assert seen(response) == [0]
    assert server.calls == [("spots", -1, 1)]


def test_only_the_request_that_is_to_blame_fails(cascade: Any) -> None:
    bad, good = cascade.execute([asked(BAD), asked(GOOD)])
    assert bad.error == "spots_cascade: shade (shades): a seven"
    assert seen(good) == [1]


def test_pictures_of_another_size(cascade: Any) -> None:
    small = {"pictures": Tensor("pictures", packed((8, 8), BLACK))}
    bad, good = cascade.execute([small, asked(GOOD)])
    assert bad.error == (
        "spots_cascade: ValueError: pictures: expected uint8 (batch, 33, 256, 3), got uint8 (1, 5, 8, 3)"
    )
    assert seen(good) == [1]


def test_a_python_without_opencv(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(tmp_path, {"parts": {"name": "spots"}})
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        RuntimeError, match=r"the cascade cannot be loaded: .*cv2.*with numpy and opencv-python-headless"
    ):
        load(model)
