"""What the configuration opens: a detector of our own, one that is built for a server, or a whole cascade there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamproc import detector as detector_module
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, PixelsConfig, SecondaryConfig
from streamproc.detector import _build, open_detector, served
from streamproc.errors import ConfigError, ModelError
from streamproc.graphs.reading import read_onnx
from streamproc.repository.config_pbtxt import parameters_of, read_config
from streamproc.serving.plan import Plan
from streamproc.triton_server import folders, installation, managed
from streamproc.types import Letterbox
from tests.fakes import FakeEngine
from tests.served import CANVAS, Object, answer, cascade_info, finder, reader
from tests.unit.repository.detectors import save_detector


def test_the_built_model_has_the_pictures_that_are_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "cache_folder", lambda: tmp_path / "cache")
    path = save_detector(tmp_path / "tiny.onnx")
    plain = _build(ModelConfig(path=path), has_backends=True)
    pixels = PixelsConfig(color="bgr", mean=(10, 20, 30), scale=(0.004, 0.004, 0.004))
    other = _build(ModelConfig(path=path, pixels=pixels, fit="stretch"), has_backends=True)
    assert plain != other
    kinds = [
        {node.op_type for node in read_onnx(repository / "tiny" / "1" / "model.onnx").graph.node}
        for repository in (plain, other)
    ]
    assert kinds[1] - kinds[0] == {"Sub", "Gather"}
    assert parameters_of(read_config(other / "tiny" / "config.pbtxt"))["fit"] == "stretch"


PLAN = Plan(size=CANVAS, models=(finder(), reader("shade")))
CAR: Object = (10, 20, 110, 120, 0.9, 1)


class Server:
    """Stands in for the engines' factory: serves one cascade, or refuses."""

    def __init__(self, error: ModelError | None = None) -> None:
        self.asked: list[ModelConfig] = []
        self.closed = 0
        self._error = error

    async def open(self, _: EngineConfig, model: ModelConfig) -> FakeEngine:
        self.asked.append(model)
        if self._error is not None:
            raise self._error
        engine = FakeEngine(lambda _: answer(PLAN, [CAR], shade={0: [(0, 1)]}), size=CANVAS)
        engine.info = cascade_info(PLAN)
        engine.close = self._close  # type: ignore[method-assign]
        return engine

    async def _close(self) -> None:
        self.closed += 1


def config(**gate: Any) -> Config:
    return Config(
        engine=EngineConfig(kind="triton"),
        model=ModelConfig(name="served_detector"),
        models={"shade": SecondaryConfig(name="served_shade")},
        cascade="server",
        cameras={"gate": CameraConfig(url="rtsp://127.0.0.1/", **gate)},
    )


def serve(monkeypatch: pytest.MonkeyPatch, error: ModelError | None = None) -> Server:
    server = Server(error)
    monkeypatch.setattr(detector_module, "open_engine", server.open)
    return server


async def test_a_whole_cascade_is_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    server, wanted = serve(monkeypatch), config()
    async with open_detector(wanted) as detector:
        assert [model.name for model in server.asked] == ["served_detector_cascade"]
        told = (
            "served_detector_cascade: the whole cascade on the server, yolo end-to-end, 2 classes, 400x200; kind fake"
        )
        assert str(detector).startswith(told)
        decode = detector.decoding(detector.head.thresholds(wanted.model, wanted.cameras["gate"]))
        async with detector.engine.lease() as slot:
            found, answers = decode(await detector.engine.infer(slot, 1), 0, Letterbox.fit(CANVAS, CANVAS))
        np.testing.assert_allclose(found.boxes, [CAR[:4]])
        assert answers is not None
        assert answers["shade"].rows == {0: [0]}
    assert server.closed == 1


async def test_what_does_not_go_with_it_is_refused_and_the_engine_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    for gate, key in (
        ({"confidence": 0.1}, "cameras.gate.confidence"),
        ({"classes": ["cat"]}, "cameras.gate.classes[0]"),
    ):
        server = serve(monkeypatch)
        with pytest.raises(ConfigError) as caught:
            async with open_detector(config(**gate)):
                pass
        assert [problem.key for problem in caught.value.problems] == [key]
        assert server.closed == 1


async def test_a_server_without_it_is_told_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, ModelError("model served_detector_cascade: the server has no such model."))
    with pytest.raises(ModelError, match=r"^cascade: server: .*no such model\. Build it .*models build --ensemble"):
        async with open_detector(config()):
            pass


async def test_a_cascade_is_no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(monkeypatch)
    with pytest.raises(ModelError, match=r"has a whole cascade by this name; .*model\.name, and cascade: server\."):
        async with open_detector(config().model_copy(update={"cascade": "client"})):
            pass
    assert server.closed == 1


@pytest.mark.parametrize(
    ("cascade", "loaded"),
    [
        ("client", ("served_detector", "served_shade")),
        ("server", ("served_detector", "served_shade", "served_detector_cascade")),
    ],
)
async def test_a_server_of_our_own_loads_all_that_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cascade: str, loaded: tuple[str, ...]
) -> None:
    started: list[tuple[str, ...]] = []

    @asynccontextmanager
    async def managed_server(_: Path, *, models: tuple[str, ...], **__: object) -> AsyncIterator[str]:
        started.append(models)
        yield "grpc://127.0.0.1:9"

    async def find_server(**_: object) -> SimpleNamespace:
        return SimpleNamespace(kind="wheel")

    monkeypatch.setattr(managed, "managed_server", managed_server)
    monkeypatch.setattr(installation, "find_server", find_server)
    engine = EngineConfig(kind="triton", managed=True, repository=tmp_path)
    async with served(config().model_copy(update={"engine": engine, "cascade": cascade})) as reached:
        assert (reached.engine.url, reached.engine.managed) == ("grpc://127.0.0.1:9", False)
    assert started == [loaded]
