"""What a model file, a plan or a repository's entry takes and gives, and whether streamproc can run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.engines.intake import plan_intake
from streamproc.errors import ModelError
from streamproc.models.metadata import names_in
from streamproc.models.spec import Head
from streamproc.repository.cascades import STEP_PARAMETER, outline, plan_of_config
from streamproc.repository.config_pbtxt import (
    CONFIG_FILE,
    backend_of,
    check_config,
    inputs_of_config,
    model_file,
    outputs_of_config,
    parameters_of,
    policy_of,
    read_config,
    steps_of,
)
from streamproc.repository.dependencies import needing_onnx
from streamproc.repository.from_plan import tensors_of_plan
from streamproc.repository.from_torchscript import TORCHSCRIPT_SUFFIXES, check_torchscript
from streamproc.repository.function import FUNCTION_FILE
from streamproc.repository.heads import ServedHead, recognise_served
from streamproc.repository.openvino_xml import read_xml
from streamproc.repository.plans import PLAN_SUFFIXES, read_plan
from streamproc.repository.versions import versions_in

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found out.

    ``kind``: "ONNX", "TensorRT plan", "TorchScript", "OpenVINO" or "served model". ``inputs`` and ``outputs`` have -1
    for open sides. ``head``: how streamproc reads the outputs, None where it cannot; ``problem`` then says why and what
    to do. ``engines``: the engine kinds that can run it (triton: an ONNX file or plan once it is built into a
    repository). ``suppression``: whether the model suppresses overlapping boxes itself, and its limits where they are
    known. ``detects``: whether it finds objects; what does not looks at those that another model has found. ``notes``
    for people.
    """

    path: Path
    kind: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    labels: tuple[str, ...]
    head: str | None
    problem: str | None
    engines: tuple[str, ...]
    suppression: str | None
    notes: tuple[str, ...]
    detects: bool = True

    @property
    def runs(self) -> bool:
        """Whether streamproc can run it."""
        return self.problem is None

    def as_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return asdict(self) | {"path": str(self.path), "metadata": dict(self.metadata), "runs": self.runs}

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.kind}"]
        for role, tensors in (("input", self.inputs), ("output", self.outputs)):
            lines += [f"  {role} {tensor.name}: {tensor.dtype} {_shape(tensor)}" for tensor in tensors]
        if self.labels:
            shown = ", ".join(self.labels[:3]) + (", ..." if len(self.labels) > 3 else "")
            lines.append(f"  classes: {len(self.labels)} ({shown})")
        if self.head and not self.detects:
            lines.append(f"  tells of objects that another model finds: {self.head}")
        elif self.head:
            lines.append(f"  detector: {self.head}; suppression: {self.suppression or 'by streamproc'}")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  runs in: {', '.join(self.engines)}" if self.runs else f"  cannot be run: {self.problem}")
        return "\n".join(lines)


def inspect(path: Path) -> Inspection:
    """Look at an ONNX, TensorRT, TorchScript or OpenVINO .xml file, or at a model's folder in a repository.

    Raises:
        DependencyError: it is an ONNX file, and ONNX or ONNX Runtime is not installed.
        ModelError: there is nothing of the kind, or it cannot be read.
    """
    if path.is_dir():
        return _served(path)
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file or folder. Correct the path.")
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix == ".xml":
        return _openvino(path)
    if path.suffix in PLAN_SUFFIXES:
        return _plan(path)
    if path.suffix in TORCHSCRIPT_SUFFIXES:
        return _torchscript(path)
    raise ModelError(
        f"{path}: expected a model ({', '.join(('.onnx', *PLAN_SUFFIXES, *TORCHSCRIPT_SUFFIXES, '.xml'))}) or a folder "
        f"with {CONFIG_FILE}. Export others to ONNX."
    )


def _onnx(path: Path) -> Inspection:
    with needing_onnx("models inspect"):
        from streamproc.graphs.reading import inputs_of, metadata_of, outputs_of, read_onnx
        from streamproc.repository.source import read_source
    graph = read_onnx(path)
    found = _unknown(path, "ONNX", inputs_of(graph), outputs_of(graph), metadata_of(graph))
    try:
        source = read_source(path, name=path.stem)
    except ModelError as exc:
        return replace(found, problem=str(exc))
    return _known(found, source.head, ("openvino", "onnxruntime", "triton"))


def _openvino(path: Path) -> Inspection:
    file = read_xml(path)
    found = _unknown(path, "OpenVINO", file.inputs, file.outputs, file.metadata)
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        return replace(found, problem=f"its weights, {weights.name}, are not beside it. Copy both.")
    return _recognised(found, ("openvino",))


def _plan(path: Path) -> Inspection:
    plan = read_plan(path)
    metadata = {key: str(value) for key, value in plan.metadata.items()}
    header = "an Ultralytics header, which a build strips" if plan.start else "no exporter's metadata"
    notes = (
        f"built with TensorRT {plan.tensorrt_version or '(its header does not tell)'}"
        + (f" on compute capability {plan.compute_capability}" if plan.compute_capability else ""),
        f"it has {header}; its tensors are known to TensorRT alone",
    )
    found = replace(_unknown(path, "TensorRT plan", (), (), metadata), notes=notes)
    if not plan.start:
        return replace(found, problem="its tensors are not known. Build it with the ONNX file it was made from (onnx).")
    try:
        info, _ = tensors_of_plan(plan, path.stem)
    except ModelError as exc:
        return replace(found, problem=str(exc))
    return _recognised(replace(found, inputs=info.inputs, outputs=info.outputs), ("triton",))


def _torchscript(path: Path) -> Inspection:
    check_torchscript(path)
    told = "it does not tell what it takes and gives. Build it with --head classifier, --labels and --size."
    return replace(_unknown(path, "TorchScript", (), (), {}), problem=told)


def _served(folder: Path) -> Inspection:
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(
            f"{folder}: it has no {CONFIG_FILE}, so it is no model of a repository. Name one of its models."
        )
    config = read_config(folder / CONFIG_FILE)
    parameters = parameters_of(config)
    found = _unknown(folder, "served model", inputs_of_config(config), outputs_of_config(config), parameters)
    there = versions_in(folder)
    served, file = policy_of(config).served(there), model_file(config)
    notes = [f"backend {backend_of(config)}, batches of up to {config.max_batch_size}, serves {policy_of(config)}"]
    missing = [number for number in served if file and not (folder / str(number) / file).is_file()]
    notes += [f"version {number} has no {file} yet" for number in missing]
    notes += [f"step: {step.model} version {step.version or 'newest'}" for step in steps_of(config)]
    found = replace(found, notes=tuple(notes))
    try:
        check_config(config, folder / CONFIG_FILE)
    except ModelError as exc:
        return replace(found, problem=str(exc))
    if not set(served) - set(missing):
        return replace(found, problem="there is no complete version to serve. Build one, or serve another.")
    try:
        plan = plan_of_config(config)
    except ModelError as exc:
        return replace(found, problem=str(exc))
    if plan is not None:
        width, height = plan.size
        told = f"cascade of {outline(plan)}; pictures of up to {width}x{height} are not scaled"
        return replace(found, engines=("triton",), notes=(*notes, told, "cameras use it with cascade: server"))
    found = _recognised(found, ("triton",))
    if found.problem and _is_scripted(folder, config, served):
        return replace(found, problem=None, engines=("triton",), notes=(*notes, "it is no detector"))
    found = replace(found, notes=(*found.notes, *_own_input(found)))
    limits = [f"{key} {parameters[f'suppression.{key}']}" for key in _LIMITS if f"suppression.{key}" in parameters]
    return replace(found, suppression=f"fused, {', '.join(limits)}") if limits else found


_LIMITS = ("confidence", "iou", "max_detections")


def _own_input(found: Inspection) -> tuple[str, ...]:
    """What is to be known of a served model that has no pictures for its input."""
    if not found.runs or found.inputs[0].dtype == "uint8":
        return ()
    kind = f"it takes {found.inputs[0].dtype} tensors, not uint8 pictures"
    return (f"{kind}: streamproc fills them with red, green, blue from 0 to 1, or with what its kind wants",)


def _is_scripted(folder: Path, config: Any, served: tuple[int, ...]) -> bool:
    """Whether it is an ensemble, a step of a cascade or calls a function, and so is of use though it is no detector."""
    if steps_of(config) or STEP_PARAMETER in parameters_of(config):
        return True
    return any((folder / str(number) / FUNCTION_FILE).is_file() for number in served)


def _unknown(
    path: Path,
    kind: str,
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
    metadata: Mapping[str, str],
) -> Inspection:
    try:
        labels = names_in(path.stem, metadata) or ()
    except ModelError:
        labels = ()  # recognising it says so
    return Inspection(
        path=path,
        kind=kind,
        inputs=inputs,
        outputs=outputs,
        metadata=metadata,
        labels=labels,
        head=None,
        problem=None,
        engines=(),
        suppression=None,
        notes=(),
    )


def _recognised(found: Inspection, engines: tuple[str, ...]) -> Inspection:
    """With the head that reads its outputs as they are stated, or with the reason why there is none."""
    name = found.path.stem
    try:
        intake = plan_intake(name, found.inputs, max_batch="auto", auto_batch=1, size=None)
        outputs = tuple(replace(tensor, shape=(1, *tensor.shape[1:])) for tensor in found.outputs)
        info = ModelInfo(name=name, size=intake.size, inputs=found.inputs, outputs=outputs, metadata=found.metadata)
        return _known(found, recognise_served(info, None, "auto"), engines)
    except ModelError as exc:
        return replace(found, problem=str(exc))


def _known(found: Inspection, head: ServedHead, engines: tuple[str, ...]) -> Inspection:
    own = "in the model" if head.name == "yolo end-to-end" else None
    detects = isinstance(head, Head)
    return replace(found, head=head.name, labels=head.labels, engines=engines, suppression=own, detects=detects)


def _shape(tensor: TensorInfo) -> str:
    return "x".join("?" if side < 0 else str(side) for side in tensor.shape)
