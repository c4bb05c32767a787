"""What benchmarks in real time have in common: their cameras, trials and progress."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer
from rich.status import Status

from streamproc.cli.bench.subject import written_labels
from streamproc.cli.terminal import EXIT_BAD_CONFIG, err, errors, fail
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, load_config
from streamproc.errors import ModelError, SourceError

if TYPE_CHECKING:
    from streamproc.bench.workload import Workload

__all__ = [
    "ConfigFile",
    "Doing",
    "EngineKind",
    "Limit",
    "Seconds",
    "WarmUp",
    "bad_input",
    "chosen_workload",
]

Engine: TypeAlias = Literal["openvino", "onnxruntime", "null"]

ConfigFile = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG]", help="A cameras.yaml, whose cameras are taken in turn.")
]
EngineKind = Annotated[
    Engine | None,
    typer.Option(
        help="What runs the model, whatever the CONFIG says. null answers at once and finds nothing: it measures "
        "everything but inference, and needs no model.",
        show_default="that of the CONFIG, or openvino",
    ),
]
WarmUp = Annotated[int, typer.Option(help="Seconds of each trial that do not count.", min=1, max=600)]
Seconds = Annotated[int, typer.Option(help="Seconds that do.", min=1, max=86_400)]
Limit = Annotated[int, typer.Option("--max", help="Most cameras to try.", min=1, max=1024)]


@contextmanager
def bad_input() -> Iterator[None]:
    """End the command as for a bad configuration where a model or a camera cannot be used, otherwise as usual."""
    with errors():
        try:
            yield
        except (ModelError, SourceError) as error:
            fail(str(error), EXIT_BAD_CONFIG, cause=error)


def chosen_workload(
    path: Path | None, video: Path | None, model: Path | None, engine: Engine | None, labels: str | None
) -> Workload:
    """The cameras to repeat: those of a configuration, or one that plays a video.

    Ends the command where both or neither are given. Raises ConfigError and SourceError.
    """
    if (path is None) == (video is None):
        fail("give either a CONFIG, or --video FILE and --model FILE", EXIT_BAD_CONFIG)
    for option, value in (("--model", model), ("--labels", labels)):
        if path is not None and value is not None:
            fail(f"{option}: the CONFIG has it; leave out one of the two", EXIT_BAD_CONFIG)
    config = load_config(path) if path is not None else None
    from streamproc.bench.workload import look_around, with_engine

    if config is None:
        assert video is not None
        config = _of_video(video, model, engine or "openvino", labels)
    elif engine is not None:
        config = with_engine(config, engine)
    return asyncio.run(look_around(config))


def _of_video(video: Path, model: Path | None, engine: Engine, labels: str | None) -> Config:
    """One camera that plays a file."""
    if model is None and engine != "null":
        fail("--model: expected the model to run, or --engine null", EXIT_BAD_CONFIG)
    names = written_labels(labels)
    named = ModelConfig(name="null", labels=names) if model is None else ModelConfig(path=model, labels=names)
    camera = CameraConfig(url=str(video), files=(video.absolute(),), loop=True)
    return Config(engine=EngineConfig(kind=engine), model=named, cameras={"camera": camera})


class Doing:
    """What is under way now, on the last line of a terminal; nothing elsewhere. A context manager."""

    def __init__(self) -> None:
        self._status: Status | None = Status("", console=err) if err.is_terminal else None

    def __enter__(self) -> Doing:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, text: str) -> None:
        """Show this from now on."""
        if self._status is not None:
            self._status.update(text)
