"""A TorchScript classifier in the real server: by a small double of PyTorch, and by PyTorch itself where there is one.

The latter is far too large to be fetched for a test: STREAMPROC_TORCH_SITE names a folder of site-packages with it, for
the Python that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamproc.config import EngineConfig, ModelConfig, PixelsConfig
from streamproc.engines.triton import TritonEngine
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.secondary import WantedHead, recognise_secondary
from streamproc.repository.build import build
from streamproc.repository.options import BuildOptions
from streamproc.types import UInt8Array
from tests import fake_torch
from tests.triton import RunningServer, running_server

SITE = "STREAMPROC_TORCH_SITE"
LABELS = ("red", "green", "blue")
MEAN, SCALE = (123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375)
COUNT, SIZE = 5, (64, 32)

# Made by PyTorch: a network in TorchScript, and what it gives for pictures.
MAKE = """
import sys
import numpy as np
import torch

class Colours(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.classes = torch.nn.Linear(8, 3)

    def forward(self, pictures):
        features = torch.relu(self.norm(self.features(pictures)))
        scores = self.classes(self.drop(features.mean((2, 3))))
        return scores, features

torch.manual_seed(7)
network = torch.jit.script(Colours())
network.save(sys.argv[1])
values = torch.from_numpy(np.load(sys.argv[2]))
with torch.inference_mode():
    np.save(sys.argv[3], network.eval()(values)[0].numpy())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """``network`` gives the ``scores`` (COUNT, classes); ``site`` is what runs it."""

    network: Path
    site: Path
    scores: NDArray[np.float32]


def pictures() -> UInt8Array:
    images = np.random.default_rng(5).integers(0, 100, (COUNT, SIZE[1], SIZE[0], 3), dtype=np.uint8)
    images[np.arange(COUNT), :, :, np.arange(COUNT) % 3] += 90
    return images


def values() -> NDArray[np.float32]:
    """What the network is to see of them."""
    images = (pictures() - np.array(MEAN, np.float32)) * np.array(SCALE, np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def made_by_double(folder: Path) -> Made:
    site = folder / "site"
    site.mkdir()
    shutil.copyfile(fake_torch.__file__, site / "torch.py")
    network = fake_torch.save_means(folder / "colours.pt")
    return Made(network=network, site=site, scores=values().mean(axis=(2, 3)))


def made_by_pytorch(folder: Path) -> Made:
    if not (named := os.environ.get(SITE)):
        pytest.skip(f"{SITE} names no folder of site-packages with PyTorch for {sys.executable}")
    network, given, scores = (folder / name for name in ("colours.pt", "values.npy", "scores.npy"))
    np.save(given, values())
    script = folder / "make.py"  # TorchScript reads the source of what it compiles
    script.write_text(MAKE)
    command = [sys.executable, "-W", "ignore", str(script), str(network), str(given), str(scores)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": named}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return Made(network=network, site=Path(named), scores=np.load(scores))


@pytest.fixture(scope="module", params=["double", "PyTorch"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("torchscript")
    return made_by_double(folder) if request.param == "double" else made_by_pytorch(folder)


@pytest.fixture(scope="module")
def server(made: Made) -> Iterator[RunningServer]:
    """It, in a server whose Python has that PyTorch behind its own packages, of which numpy has to be below 2."""
    built = build(
        made.network,
        BuildOptions(
            repository=made.network.parent / "models",
            backend="python",
            head="classifier",
            labels=LABELS,
            size=SIZE,
            pixels=PixelsConfig(mean=MEAN, scale=SCALE),
            instances=1,
        ),
    )
    script = built.folder / "model.py"
    beside = f"import sys\n\nsys.path.append({str(made.site)!r})\n"
    script.write_text(script.read_text().replace("import sys\n", beside, 1))
    with running_server(built.folder.parents[1]) as running:
        yield running


async def test_the_best_labels_are_those_of_the_network(made: Made, server: RunningServer) -> None:
    engine = await TritonEngine.open(
        EngineConfig(kind="triton", url=server.url, max_batch=COUNT), ModelConfig(name="colours")
    )
    try:
        reader = recognise_secondary(engine.info, WantedHead(top=2))
        assert isinstance(reader, ClassifierReader)
        async with engine.lease() as slot:
            slot.images[:COUNT] = pictures()
            outputs = await engine.infer(slot, COUNT)
            np.testing.assert_allclose(outputs["scores"], made.scores, atol=1e-4)
            found = [[label for label, _ in reader.read(outputs, row).labels] for row in range(COUNT)]
    finally:
        await engine.close()
    expected = np.argsort(-made.scores, axis=1)[:, :2]
    assert found == [[LABELS[number] for number in row] for row in expected]
