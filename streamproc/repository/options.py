"""What a served model is to be like; checked as a whole before anything is read or written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from streamproc.config import PixelsConfig
from streamproc.config.model import HeadKind
from streamproc.errors import ConfigError, Problem
from streamproc.repository.policy import VersionPolicy
from streamproc.types import Fit

__all__ = [
    "DEFAULT_BATCH",
    "Backend",
    "BuildOptions",
    "BuiltHead",
    "InstanceKind",
    "Made",
    "PictureKind",
    "Precision",
    "Runtime",
    "check_options",
]

Backend: TypeAlias = Literal["onnxruntime", "tensorrt", "openvino", "python", "ensemble"]
Made: TypeAlias = Literal["graph", "plan", "torchscript", "function", "ensemble", "cascade"]
"""What a served model is made from: an ONNX, TensorRT or TorchScript file, a Python function, other models one behind
another, or those of a configuration of cameras."""

PictureKind: TypeAlias = Literal["classifier", "ctc", "embedding"]
"""What says something of a whole picture, where detectors say where objects are."""

BuiltHead: TypeAlias = HeadKind | PictureKind
Runtime: TypeAlias = Literal["openvino", "onnxruntime"]
Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16", "int8"]
InstanceKind: TypeAlias = Literal["auto", "cpu", "gpu"]

# The name is a folder, a key in requests and part of addresses.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DEFAULT_BATCH = 8  # what one GPU inference gains from; a CPU serves smaller ones as well
_MOST_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How a model is served. What is None is chosen for the model and the backend.

    ``repository`` is the folder that the server reads. ``name``: the file's, without its suffix, or the function's.
    ``version``: one more than the newest; an existing one is overwritten only with ``replace``.

    ``max_batch``: pictures in one batch, 8 for a model with an open batch; 0 leaves batching off, and the shapes then
    begin with the batch. ``size`` (width, height) decides for models that leave it open, and is that of the largest
    pictures of a cascade, 1920 x 1080 if it is None. ``fuse_intake``: the model takes uint8 (height, width, 3) RGB and
    makes of it what it wants, ``pixels`` where that is not what its kind wants; without, it keeps its own input, for a
    model in front of it that makes such tensors.
    ``fit``: how pictures lie there, told to clients. ``fuse_suppression``: it suppresses overlapping boxes
    itself, from ``confidence`` (0.25) on, by ``iou`` (0.45), and gives ``max_detections`` (300) rows; None does so for
    TensorRT, where it replaces a copy of the raw output from the GPU (2.8 MB a picture of 640 x 640), and leaves it to
    the client elsewhere. ``calibration``: a folder of pictures or recordings like the cameras', for int8;
    ``calibration_pictures`` (100) of them are used.

    A TorchScript classifier needs ``head``, ``labels`` and ``size``: its file tells none of them.

    ``runtime`` runs the model in the python backend, OpenVINO if it is None. ``instances`` run side by side, of
    ``threads`` threads each. ``queue_delay_us`` (0): how long a batch waits for company. ``queue_timeout_ms`` (1000): a
    request that has waited this long in the server is rejected, and requests may ask for less, never for more;
    ``queue_size`` (128) requests wait at most. The python backend on a processor has no such queue unless one of these
    or priorities are asked for: each instance works picture by picture, and a server that merges requests lets one
    instance do what two would do side by side (measured: 60 instead of 65 pictures/s on two cores).

    ``priority_levels``: 0 for none, else requests name 1 (first) to this, ``default_priority`` (the last) where they
    name none. ``version_policy``: which versions are served; None keeps what the model has, the newest at first.

    ``labels``: ``coco``, a file, or the names; None takes the model's own. ``head``: what the model tells, where the
    file does not say: objects (``pose``: with keypoints), a class, a text (``ctc``) or an embedding. ``verify``:
    picture files, or folders of them, on which the result is held against the source; those of the calibration, or a
    drawn picture, without any.

    For an existing plan: ``onnx``, the file it was built from, which tells its tensors; ``tensorrt_version`` of the
    server ("10.3" or in full), ``compute_capability`` of its GPU ("8.6"; asked of nvidia-smi where that is), and
    ``plan_compute_capability`` that the plan was built on, which plans do not tell.
    """

    repository: Path
    backend: Backend = "onnxruntime"
    runtime: Runtime | None = None
    name: str | None = None
    version: int | None = None
    replace: bool = False
    max_batch: int | None = None
    size: tuple[int, int] | None = None
    fuse_intake: bool = True
    pixels: PixelsConfig | None = None
    fit: Fit | Literal["auto"] = "auto"
    fuse_suppression: bool | None = None
    confidence: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    precision: Precision = "auto"
    calibration: Path | None = None
    calibration_pictures: int | None = None
    labels: Literal["coco"] | Path | tuple[str, ...] | None = None
    head: BuiltHead = "auto"
    instances: int | None = None
    instance_kind: InstanceKind = "auto"
    threads: int | None = None
    queue_delay_us: int | None = None
    queue_timeout_ms: int | None = None
    queue_size: int | None = None
    priority_levels: int = 0
    default_priority: int | None = None
    version_policy: VersionPolicy | None = None
    verify: tuple[Path, ...] = ()
    onnx: Path | None = None
    tensorrt_version: str | None = None
    compute_capability: str | None = None
    plan_compute_capability: str | None = None

    @property
    def suppresses(self) -> bool:
        """Whether suppression is to be fused, for a model that does not suppress boxes itself."""
        return self.backend == "tensorrt" if self.fuse_suppression is None else self.fuse_suppression

    @property
    def merges_requests(self) -> bool:
        """Whether the server is to put requests into common batches, from a queue with limits."""
        asked_for = (self.queue_delay_us, self.queue_timeout_ms, self.queue_size, self.priority_levels or None)
        return self.backend != "python" or self.instance_kind == "gpu" or any(value is not None for value in asked_for)

    @property
    def runs_openvino(self) -> bool:
        """Whether OpenVINO runs the model."""
        return self.backend == "openvino" or (self.backend == "python" and self.runtime != "onnxruntime")


def check_options(options: BuildOptions, *, made_from: Made = "graph") -> None:
    """Every rule that needs no model.

    Raises:
        ConfigError: all that is wrong, each with its remedy.
    """
    problems = [*_bad_numbers(options), *_bad_pairs(options, made_from), *_out_of_place(options, made_from)]
    if options.head in get_args(PictureKind):
        problems += _of_detectors(options)
    if options.name is not None and not _NAME.fullmatch(options.name):
        expected = "letters, digits, '.', '_' and '-', the first a letter or digit"
        problems.append(_problem("name", options.name, expected, "Choose another name."))
    if problems:
        raise ConfigError("models build", problems)


def _bad_numbers(options: BuildOptions) -> Iterator[Problem]:
    ranges: tuple[tuple[str, float | None, float, float], ...] = (
        ("version", options.version, 1, 2**31 - 1),
        ("max_batch", options.max_batch, 0, _MOST_BATCH),
        ("confidence", options.confidence, 0.001, 1),
        ("iou", options.iou, 0, 1),
        ("max_detections", options.max_detections, 1, 1000),
        ("instances", options.instances, 1, 1024),
        ("calibration_pictures", options.calibration_pictures, 1, 10_000),
        ("threads", options.threads, 1, 1024),
        ("queue_delay_us", options.queue_delay_us, 0, 10_000_000),
        ("queue_timeout_ms", options.queue_timeout_ms, 1, 3_600_000),
        ("queue_size", options.queue_size, 1, 1_000_000),
        ("priority_levels", options.priority_levels, 0, 1000),
        ("default_priority", options.default_priority, 1, options.priority_levels or 1000),
    )
    for key, value, least, most in ranges:
        if value is not None and not least <= value <= most:
            yield _problem(key, str(value), f"{least} to {most}", "Correct it.")


def _bad_pairs(options: BuildOptions, made_from: Made) -> Iterator[Problem]:
    precision, backend = options.precision, options.backend
    if precision == "bf16" and not options.runs_openvino:
        yield _problem(
            "precision", "bf16", "a backend that runs OpenVINO", "Choose fp16, or backend python or openvino."
        )
    if (precision == "int8") != (options.calibration is not None):
        remedy = (
            "Name a folder of pictures like those of the cameras." if precision == "int8" else "Add precision int8."
        )
        yield _problem("calibration", str(options.calibration), "pictures with precision int8, and only then", remedy)
    if options.calibration is None and options.calibration_pictures is not None:
        found = str(options.calibration_pictures)
        yield _problem("calibration_pictures", found, "it with calibration only", "Leave it out.")
    if precision == "int8" and options.runs_openvino and options.fuse_suppression:
        expected, remedy = "False with int8 in OpenVINO", "Leave it out: streamproc suppresses boxes in under 1 ms."
        yield _problem("fuse_suppression", "True", expected, remedy)
    if precision == "int8" and not options.fuse_intake:
        yield _problem("fuse_intake", "False", "True with precision int8", "Leave it out, or choose another precision.")
    if options.pixels is not None and not options.fuse_intake:
        expected, remedy = "no pixels without a fused intake", "Leave one of them out: only that can have them within."
        yield _problem("pixels", str(options.pixels), expected, remedy)
    if options.runtime is not None and backend != "python":
        yield _problem("runtime", options.runtime, "a runtime with backend python only", "Leave it out.")
    limits = {"confidence": options.confidence, "iou": options.iou, "max_detections": options.max_detections}
    for key, value in limits.items():
        if value is not None and not options.suppresses:
            yield _problem(key, str(value), "it with fused suppression only", "Fuse suppression, or leave it out.")
    if backend == "tensorrt" and options.instance_kind == "cpu":
        yield _problem("instance_kind", "cpu", "gpu for TensorRT", "Choose gpu, or another backend.")
    if options.runs_openvino and options.instance_kind == "gpu" and made_from in ("graph", "plan"):
        yield _problem("instance_kind", "gpu", "cpu for OpenVINO", "Choose cpu, or another backend.")
    if backend == "tensorrt" and options.threads is not None:
        yield _problem("threads", str(options.threads), "no threads for TensorRT", "Leave it out: the GPU schedules.")
    if options.default_priority is not None and not options.priority_levels:
        yield _problem(
            "default_priority", str(options.default_priority), "priority_levels as well", "Set both, or none."
        )
    if options.max_batch == 0 and (options.priority_levels or options.queue_delay_us):
        remedy = "Set max_batch to 1 or more, or leave priorities and queue delay out."
        yield _problem("max_batch", "0", "batching, for priorities or a queue delay", remedy)


_BACKENDS: Mapping[Made, tuple[tuple[Backend, ...], str]] = {
    "graph": (("onnxruntime", "tensorrt", "openvino", "python"), "one that runs ONNX files"),
    "plan": (("tensorrt",), "tensorrt, which alone runs plans"),
    "torchscript": (("python",), "python, which runs TorchScript"),
    "function": (("python",), "python, which alone calls functions"),
    "ensemble": (("ensemble",), "ensemble: its models have backends of their own"),
    "cascade": (("ensemble",), "ensemble: its models have backends of their own"),
}
# What changes a graph, what tells of a plan, and so on; each is without effect on what is made from something else.
_OF_CHANGED_GRAPHS = (
    "fuse_suppression",
    "confidence",
    "iou",
    "max_detections",
    "precision",
    "calibration",
    "calibration_pictures",
    "verify",
)
_OF_GRAPHS = ("pixels", "fit", *_OF_CHANGED_GRAPHS)
_OF_PLANS = ("onnx", "tensorrt_version", "compute_capability", "plan_compute_capability")
_OF_ONE_FILE = (*_OF_GRAPHS, *_OF_PLANS, "head", "runtime", "threads", "fuse_intake")
_OF_MODEL_FILES = (*_OF_ONE_FILE, "size")
_OF_ONE_MODEL = (
    "max_batch",
    "instances",
    "instance_kind",
    "queue_delay_us",
    "queue_timeout_ms",
    "queue_size",
    "priority_levels",
    "default_priority",
)
_NOT_FOR: Mapping[Made, tuple[tuple[str, ...], str]] = {
    "graph": (_OF_PLANS, "it for an existing plan only"),
    "plan": (_OF_GRAPHS, "it for an ONNX file only"),
    "torchscript": ((*_OF_CHANGED_GRAPHS, *_OF_PLANS, "runtime", "fuse_intake"), "it for an ONNX file only"),
    "function": (_OF_MODEL_FILES, "it for a model file only"),
    "ensemble": ((*_OF_MODEL_FILES, *_OF_ONE_MODEL), "it for the models of an ensemble only"),
    "cascade": ((*_OF_ONE_FILE, "name", "labels"), "no such option: the models and their configuration have it"),
}
_DEFAULTS = {field.name: field.default for field in fields(BuildOptions)}


def _out_of_place(options: BuildOptions, made_from: Made) -> Iterator[Problem]:
    backends, expected = _BACKENDS[made_from]
    if options.backend not in backends:
        yield _problem("backend", options.backend, expected, "Choose it, or make the model from something else.")
    if made_from == "plan" and options.onnx is None:
        for key in ("size", "max_batch"):
            if getattr(options, key) is not None:
                remedy = "Leave it out: the plan has it. Or name the ONNX file that it was built from."
                yield _problem(key, str(getattr(options, key)), "it for a plan with onnx only", remedy)
    if made_from == "torchscript":
        yield from _untold(options)
    keys, expected = _NOT_FOR[made_from]
    for key in keys:
        value = getattr(options, key)
        if value != _DEFAULTS[key]:
            yield _problem(key, str(value), expected, "Leave it out.")


def _untold(options: BuildOptions) -> Iterator[Problem]:
    """What a TorchScript file does not tell by itself."""
    if options.head != "classifier":
        expected = "classifier, which alone is made from TorchScript"
        yield _problem("head", options.head, expected, "Write head classifier, or export the model to ONNX.")
    if options.labels is None:
        remedy = "Name a file with one name a line, or write the names with commas between them."
        yield _problem("labels", "nothing", "the names of its classes, in their order", remedy)
    if options.size is None:
        yield _problem("size", "nothing", "width and height of the pictures it takes", "Write, for example, 224x224.")


def _of_detectors(options: BuildOptions) -> Iterator[Problem]:
    """What is for boxes, of a model that gives none."""
    for key in ("fuse_suppression", "confidence", "iou", "max_detections"):
        value = getattr(options, key)
        if value not in (None, False):
            yield _problem(key, str(value), f"it for detectors only, not with head {options.head}", "Leave it out.")
    if options.precision == "int8":
        expected = f"another precision with head {options.head}: what int8 loses is seen by boxes"
        yield _problem("precision", "int8", expected, "Leave it and the calibration out, or choose fp16.")
    if options.labels is not None and options.head != "classifier":
        remedy = "Leave it out." if options.head == "embedding" else "Leave it out: the alphabet is the client's."
        yield _problem("labels", str(options.labels), f"no labels with head {options.head}", remedy)


def _problem(key: str, found: str, expected: str, remedy: str) -> Problem:
    return Problem(key=key, found=found, expected=expected, remedy=remedy)
