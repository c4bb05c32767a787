"""``streamproc models``: from a model file to a model that Triton serves."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamproc.cli.building import build_and_compare
from streamproc.cli.scripted import Scripted, build_scripted
from streamproc.cli.terminal import EXIT_BAD_CONFIG, EXIT_FAILED, errors, fail, out, set_up_logging

__all__ = ["models"]

models = typer.Typer(help="Build, look at and manage the models that a Triton server serves.", no_args_is_help=True)

Repository = Annotated[
    Path, typer.Option("--repository", "-r", metavar="DIR", help="The model repository, the folder Triton reads.")
]
_HERE = Path("models")
# What the command takes besides BuildOptions.
_NO_OPTIONS = (
    "source",
    "python",
    "inputs",
    "outputs",
    "ensemble",
    "output",
    "labelled",
    "measure_s",
    "color",
    "mean",
    "scale",
)
_SERVING, _GRAPH, _QUEUE, _PLAN = "Serving", "What is fused into the model", "Batching and queue", "TensorRT plans"
_INT8, _SCRIPTED = "int8", "In place of a model file"
_PIXELS = "The pictures it wants; left out, what its kind wants"
_TENSORS = "The arrays it takes, without the batch: name:dtype:dims, such as text:string:1,image:uint8:-1x-1x3."
_STEPS = (
    "Models of the repository as one: a file with the keys inputs, outputs and steps, or cameras.yaml, all of whose "
    "models the server then runs."
)


@models.command()
def build(
    source: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="An ONNX file, TensorRT plan or TorchScript classifier.")
    ] = None,
    repository: Repository = _HERE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="NAME.xml", help="With int8: a file for model.path, not a repository."),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A function from arrays to arrays.", rich_help_panel=_SCRIPTED),
    ] = None,
    inputs: Annotated[str | None, typer.Option(metavar="SPEC", help=_TENSORS, rich_help_panel=_SCRIPTED)] = None,
    outputs: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Those it returns, likewise.", rich_help_panel=_SCRIPTED)
    ] = None,
    ensemble: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help=_STEPS, rich_help_panel=_SCRIPTED)] = None,
    backend: Annotated[
        Literal["onnxruntime", "tensorrt", "openvino", "python"] | None,
        typer.Option(help="What runs it in the server, onnxruntime; python is for servers without the others."),
    ] = None,
    runtime: Annotated[
        Literal["openvino", "onnxruntime"] | None, typer.Option(help="What runs it in the python backend.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; left out, the file's or function's.")] = None,
    version: Annotated[int | None, typer.Option(help="The version; left out, the next one.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite that version.")] = False,
    labels: Annotated[
        str | None, typer.Option(help="coco, a file, or names separated by commas; left out, the file's own.")
    ] = None,
    head: Annotated[
        Literal["auto", "detector", "pose", "classifier", "ctc", "embedding"],
        typer.Option(
            help="What it tells: objects, those with keypoints, a class, a text, an embedding; auto: the file says."
        ),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16", "int8"], typer.Option(help="Arithmetic; int8 needs --calibration.")
    ] = "auto",
    calibration: Annotated[
        Path | None, typer.Option(help="A folder of pictures or recordings like the cameras'.", rich_help_panel=_INT8)
    ] = None,
    calibration_pictures: Annotated[
        int | None, typer.Option(help="How many of them to use, 100.", rich_help_panel=_INT8)
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Pictures with annotations in COCO's form: tells the accuracy before and after.",
            rich_help_panel=_INT8,
        ),
    ] = None,
    measure_s: Annotated[
        float,
        typer.Option(min=0, help="Seconds to measure the speed before and after; 0 for not.", rich_help_panel=_INT8),
    ] = 6.0,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Input size, for a model that leaves it open; with cameras.yaml, 1920x1080."),
    ] = None,
    verify: Annotated[
        list[Path] | None, typer.Option(help="Pictures, or folders of them, to compare on; left out, a drawn one.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Pictures in one batch; 0 for no batching.", rich_help_panel=_QUEUE)
    ] = None,
    queue_delay_us: Annotated[
        int | None, typer.Option(help="How long a batch waits for company, 0.", rich_help_panel=_QUEUE)
    ] = None,
    queue_timeout_ms: Annotated[
        int | None, typer.Option(help="Requests that waited longer are turned away, 1000.", rich_help_panel=_QUEUE)
    ] = None,
    queue_size: Annotated[int | None, typer.Option(help="Requests that may wait, 128.", rich_help_panel=_QUEUE)] = None,
    priority_levels: Annotated[
        int, typer.Option(help="Levels that requests may name (engine.priority).", rich_help_panel=_QUEUE)
    ] = 0,
    default_priority: Annotated[
        int | None, typer.Option(help="Of requests that name none.", rich_help_panel=_QUEUE)
    ] = None,
    instances: Annotated[
        int | None, typer.Option(help="Copies that work side by side.", rich_help_panel=_SERVING)
    ] = None,
    instance_kind: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option(help="What they run on.", rich_help_panel=_SERVING)
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of each.", rich_help_panel=_SERVING)] = None,
    version_policy: Annotated[
        str | None, typer.Option(help="latest, latest:N, all, or numbers such as 1,3.", rich_help_panel=_SERVING)
    ] = None,
    color: Annotated[
        Literal["rgb", "bgr"] | None, typer.Option(help="Order of its channels, rgb.", rich_help_panel=_PIXELS)
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="N|N,N,N", help="Taken from values of 0 to 255, 0.", rich_help_panel=_PIXELS),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="N|N,N,N", help="What these are multiplied by, 1/255.", rich_help_panel=_PIXELS),
    ] = None,
    fit: Annotated[
        Literal["auto", "letterbox", "top_left", "stretch"],
        typer.Option(help="How a picture lies in its input.", rich_help_panel=_PIXELS),
    ] = "auto",
    fuse_intake: Annotated[
        bool,
        typer.Option(help="Take uint8 pictures and scale them in the model; or its own input.", rich_help_panel=_GRAPH),
    ] = True,
    fuse_suppression: Annotated[
        bool | None,
        typer.Option(help="Suppress overlapping boxes in the model; default for TensorRT.", rich_help_panel=_GRAPH),
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Least confidence of its boxes, 0.25.", rich_help_panel=_GRAPH)
    ] = None,
    iou: Annotated[float | None, typer.Option(help="Overlap that it allows, 0.45.", rich_help_panel=_GRAPH)] = None,
    max_detections: Annotated[
        int | None, typer.Option(help="Boxes that it gives, 300.", rich_help_panel=_GRAPH)
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="The ONNX file that a plan was built from.", rich_help_panel=_PLAN)
    ] = None,
    tensorrt_version: Annotated[
        str | None, typer.Option(help="The server's, such as 10.3.", rich_help_panel=_PLAN)
    ] = None,
    compute_capability: Annotated[
        str | None, typer.Option(help="Of the server's GPU, such as 8.6.", rich_help_panel=_PLAN)
    ] = None,
    plan_compute_capability: Annotated[
        str | None, typer.Option(help="Of the GPU that the plan was built on.", rich_help_panel=_PLAN)
    ] = None,
) -> None:
    """Make a model in the repository out of a model file, a Python function (--python) or other models (--ensemble).

    With --output, make an int8 file for model.path instead.
    """
    given: dict[str, Any] = dict(locals())
    set_up_logging()
    with errors():
        from streamproc.config.pixels import parse_pixels
        from streamproc.repository.from_torchscript import TORCHSCRIPT_SUFFIXES
        from streamproc.repository.options import BuildOptions
        from streamproc.repository.policy import VersionPolicy

        scripted = Scripted(python=python, inputs=inputs, outputs=outputs, ensemble=ensemble)
        torchscript = source is not None and source.suffix in TORCHSCRIPT_SUFFIXES
        usual = "openvino" if output else "python" if torchscript else "onnxruntime"
        given |= {
            "backend": backend or scripted.backend or usual,
            "labels": _labels(labels),
            "size": _size(size),
            "pixels": parse_pixels(color=color, mean=mean, scale=scale),
            "verify": tuple(verify or ()),
            "version_policy": None if version_policy is None else VersionPolicy.parse(version_policy),
        }
        for key in _NO_OPTIONS:
            del given[key]
        options = BuildOptions(**given)
        if output is not None and repository != _HERE:
            fail("--repository: found together with --output; expected one of them", EXIT_BAD_CONFIG)
        if source is None or scripted.is_wanted:
            misplaced = {"MODEL": source, "--output": output, "--labelled": labelled}
            build_scripted(scripted, options, misplaced=misplaced)
        else:
            build_and_compare(source, output, options, labelled=labelled, measure_s=measure_s)


@models.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, a plan, an .xml, or a model's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell what a model takes and gives, and whether streamproc can run it."""
    set_up_logging()
    with errors():
        from streamproc.repository.inspection import inspect as inspect_model

        found = inspect_model(path)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _print(found)
    raise typer.Exit(0 if found.runs else EXIT_FAILED)


@models.command("list")
def list_command(
    repository: Repository = _HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """List the models of a repository, with their versions."""
    with errors():
        from streamproc.repository.versions import list_models

        entries = list_models(repository)
    if as_json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2, default=dict))
    elif not entries:
        _print(f"{repository} holds no models. Build one with: streamproc models build MODEL.onnx")
    for entry in () if as_json else entries:
        _print(entry)
    raise typer.Exit(EXIT_FAILED if any(entry.problem for entry in entries) else 0)


@models.command()
def serve(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")],
    versions: Annotated[str, typer.Argument(metavar="VERSIONS", help="latest, latest:N, all, or numbers such as 1,3.")],
    repository: Repository = _HERE,
) -> None:
    """Choose which versions of a model are served: forward, or back to an earlier one."""
    with errors():
        from streamproc.repository.policy import VersionPolicy
        from streamproc.repository.versions import serve_versions

        _print(serve_versions(repository, name, VersionPolicy.parse(versions)))


@models.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to delete.")],
    repository: Repository = _HERE,
) -> None:
    """Delete a version of a model; with its last one, the model."""
    with errors():
        from streamproc.repository.versions import remove_version

        left = remove_version(repository, name, version)
    _print(left or f"{name} is gone: that was its last version")


def _print(what: object) -> None:
    out.print(str(what), markup=False, highlight=False, soft_wrap=True)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if match is None:
        fail(f"--size: found {text!r}; expected width x height, such as 640x384", EXIT_BAD_CONFIG)
    return int(match[1]), int(match[2])


def _labels(text: str | None) -> Literal["coco"] | Path | tuple[str, ...] | None:
    if text is None:
        return None
    if text == "coco":
        return "coco"
    path = Path(text)
    return path if path.is_file() or "," not in text else tuple(label.strip() for label in text.split(","))
