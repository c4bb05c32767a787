"""Served models that do what their pictures say, and a load that checks every answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
from numpy.typing import NDArray

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import Engine
from streamproc.engines.triton import TritonEngine
from streamproc.errors import EngineAwayError
from tests.triton import RunningServer

__all__ = ["HOLD", "Load", "add_scripted", "client", "lease_all", "means_of", "open_engine", "our_regions", "paint"]

HOLD = 7
"""A picture whose first value is this one is not answered while the model's ``gate`` is shut."""

_SOURCE = """
import json, os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.told = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.outputs = [output["name"] for output in config["output"]]
        self.plus = float(self.told.get("plus", "0")) * (int(args["model_version"]) - 1)
        self.wait("load_gate")
        if "refuse" in self.told:
            raise pb_utils.TritonModelException(self.told["refuse"])

    def wait(self, gate):
        while gate in self.told and not os.path.exists(self.told[gate]):
            time.sleep(0.01)

    def execute(self, requests):
        responses = []
        for request in requests:
            images = pb_utils.get_input_tensor_by_name(request, "images").as_numpy()
            if images[0, 0, 0, 0] == HOLD:
                self.wait("gate")
            means = images.mean(axis=(1, 2), dtype=np.float32) + self.plus
            rows = np.repeat(means[:, None], 1 + int(images[0, 0, 0, 1]), axis=1)
            answer = {"means": means, "rows": rows}
            tensors = [pb_utils.Tensor(name, answer[name]) for name in self.outputs]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""

_CONFIG = """
backend: "python"
max_batch_size: 4
input [{{ name: "images" data_type: TYPE_UINT8 dims: [{size}, 3] }}]
output [{{ {output} }}]
instance_group [{{ kind: KIND_CPU count: {instances} }}]
"""


def add_scripted(
    repository: Path,
    name: str = "scripted",
    *,
    output: str = 'name: "means" data_type: TYPE_FP32 dims: [3]',
    size: tuple[int, int] = (32, 64),
    instances: int = 1,
    version: int = 1,
    extra: str = "",
    **parameters: object,
) -> Path:
    """Make or replace a model that answers with the mean of each channel; the answer is ``repository``.

    ``rows`` as its output holds the means as often as the second value of the first picture says, and once more.
    Parameters: ``gate`` and ``load_gate`` are files without which it answers no HOLD pictures, or is not loaded;
    ``plus`` is added to every mean with each version after the first; ``refuse`` is why it cannot be loaded.
    """
    folder = repository / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(_SOURCE.replace("HOLD", str(HOLD)))
    config = _CONFIG.format(size=f"{size[0]}, {size[1]}", output=output, instances=instances) + extra
    for key, value in parameters.items():
        config += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    (folder.parent / "config.pbtxt").write_text(config)
    return repository


async def open_engine(
    *servers: RunningServer, model: str = "scripted", version: int | None = None, **settings: Any
) -> TritonEngine:
    """An engine for these servers; ``settings`` are keys of the engine's section."""
    urls = tuple(server.url for server in servers)
    where: dict[str, Any] = {"url": urls[0]} if len(urls) == 1 else {"urls": urls}
    return await TritonEngine.open(
        EngineConfig(kind="triton", **where, **{"ready_timeout_s": 20, "max_batch": 4} | settings),
        ModelConfig(name=model, version=version),
    )


def client(server: RunningServer) -> tritonclient.grpc.InferenceServerClient:
    """Another client of the same server."""
    return tritonclient.grpc.InferenceServerClient(server.url.removeprefix("grpc://"))


def our_regions(server: RunningServer) -> list[str]:
    """The names of this process's regions on the server."""
    with client(server) as other:
        names = [*other.get_system_shared_memory_status().regions]
    return [name for name in names if name.startswith(f"streamproc-{os.getpid()}-")]


def paint(images: NDArray[np.uint8], number: int) -> None:
    """Fill a picture with a colour that tells a number of up to 16 bits; its first value is even, and so not HOLD."""
    images[:] = (2 * (number & 127), (number >> 7) & 255, number >> 15)
    images[..., 0, 0, 1] = 0


def means_of(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the model answers."""
    means: NDArray[np.float32] = images.mean(axis=(1, 2), dtype=np.float32)
    return means


async def lease_all(engine: Engine) -> None:
    """Ends when every slot is in the pool."""
    async with AsyncExitStack() as stack:
        for _ in range(engine.slots):
            await stack.enter_async_context(engine.lease())


class Load:
    """Batches, each of its own content, sent until :meth:`stop`; ``answered`` right and ``lost`` ones are counted.

    Anything but a right answer or an EngineAwayError fails the block that uses it. An answer is right if it is the
    means and one of ``plus`` more; ``last_plus`` is that of the last one.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        senders: int = 3,
        patient: bool = False,
        plus: Sequence[float] = (0,),
        on_slot: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.answered = 0
        self.lost = 0
        self.sent = 0
        self.last_plus = plus[0]
        self._plus = plus
        self._engine = engine
        self._patient = patient
        self._senders = senders
        self._on_slot = on_slot
        self._going = True
        self._news = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Load:
        await self._group.__aenter__()
        for _ in range(self._senders):
            self._group.create_task(self._send())
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.stop()
        await self._group.__aexit__(*exc)

    def stop(self) -> None:
        """Send nothing more."""
        self._going = False

    async def more_answers(self, count: int = 20) -> None:
        """Wait for so many more right answers."""
        wanted = self.answered + count
        while self.answered < wanted:
            self._news.clear()
            await self._news.wait()

    async def more_losses(self, count: int = 1) -> None:
        """Wait for so many more lost batches."""
        wanted = self.lost + count
        while self.lost < wanted:
            self._news.clear()
            await self._news.wait()

    async def _send(self) -> None:
        while self._going:
            async with self._engine.lease() as slot:
                self.sent += 1
                for row, images in enumerate(slot.images):
                    paint(images, (4 * self.sent + row) % 2**16)
                expected = means_of(slot.images)
                self._on_slot(slot)
                try:
                    outputs = await self._engine.infer(slot, 4, patient=self._patient)
                except EngineAwayError:
                    self.lost += 1
                    await asyncio.sleep(0.01)
                else:
                    more = float(outputs["means"][0, 0] - expected[0, 0])
                    self.last_plus = min(self._plus, key=lambda plus: abs(plus - more))
                    np.testing.assert_allclose(outputs["means"], expected + self.last_plus, atol=1e-3)
                    self.answered += 1
                self._news.set()
