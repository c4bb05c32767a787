"""What a benchmark runs: a configuration, or a video and a model without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from streamproc.cli.terminal import EXIT_BAD_CONFIG, fail
from streamproc.config import CameraConfig, Config, EngineConfig, ModelConfig, load_config

__all__ = [
    "ConfigFile",
    "Engine",
    "EngineKind",
    "LabelsWord",
    "ModelFile",
    "VideoFile",
    "chosen_config",
    "refuse_beside_config",
    "written_labels",
]

_INSTEAD = "Instead of a configuration"

ConfigFile = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="A cameras.yaml, for its engine and model.")]
VideoFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What the cameras play.", exists=True, dir_okay=False),
]
ModelFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The model, .onnx or .xml.", exists=True, dir_okay=False, rich_help_panel=_INSTEAD
    ),
]
Engine: TypeAlias = Literal["openvino", "onnxruntime"]
EngineKind = Annotated[
    Engine | None, typer.Option(help="What runs the model.", show_default="openvino", rich_help_panel=_INSTEAD)
]
LabelsWord = Annotated[
    str | None,
    typer.Option(
        metavar="coco|FILE",
        help="Names of the model's classes, where the file does not tell them.",
        rich_help_panel=_INSTEAD,
    ),
]


def chosen_config(
    path: Path | None,
    video: Path | None,
    model: Path | None,
    engine: Engine | None,
    labels: str | None,
) -> Config:
    """The configuration in a file, or one of a single camera that plays a video.

    Ends the command where both or neither are given. Raises ConfigError: the file cannot be used.
    """
    if (path is None) == (model is None):
        fail("give either a CONFIG, or --video and --model", EXIT_BAD_CONFIG)
    if path is not None:
        refuse_beside_config(engine, labels)
        return load_config(path)
    if video is None or model is None:
        fail("--model: expected a --video for it to see as well", EXIT_BAD_CONFIG)
    return Config(
        engine=EngineConfig(kind=engine or "openvino"),
        model=ModelConfig(path=model, labels=written_labels(labels)),
        cameras={"camera0": CameraConfig(url=str(video), files=(video,))},
    )


def refuse_beside_config(engine: Engine | None, labels: str | None) -> None:
    """End the command where an option says what a configuration says already."""
    for option, value in (("--engine", engine), ("--labels", labels)):
        if value is not None:
            fail(f"{option}: the configuration has it; leave out one of the two", EXIT_BAD_CONFIG)


def written_labels(text: str | None) -> Literal["coco"] | Path | None:
    """What ``--labels`` stands for in a configuration. Ends the command where it is neither."""
    if text is None:
        return None
    if text == "coco":
        return "coco"
    if not Path(text).is_file():
        fail(f"--labels: found {text!r}; expected coco, or a text file with one class name a line", EXIT_BAD_CONFIG)
    return Path(text)
