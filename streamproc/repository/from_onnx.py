"""The contents of a served model, made from an ONNX file."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from streamproc.engines.base import TensorInfo
from streamproc.labels import resolve_labels
from streamproc.repository.config_pbtxt import MODEL_FILES
from streamproc.repository.contents import Contents, described, origin_of
from streamproc.repository.fusing import FusedModel, fuse, verify
from streamproc.repository.options import BuildOptions, Runtime
from streamproc.repository.source import Source, read_source
from streamproc.repository.tensorrt import SCRIPT_FILE, PlanInput, build_script, trtexec_command

__all__ = ["from_onnx"]


def from_onnx(path: Path, name: str, options: BuildOptions) -> Contents:
    """A served model from an ONNX file, fused as the options say, and verified.

    Raises:
        ModelError: the file does not suit, or the result differs from it.
    """
    source = read_source(
        path,
        name=name,
        size=options.size,
        max_batch=options.max_batch,
        splits_batches=options.backend == "python",
        labels=resolve_labels(options.labels),
        kind=options.head,
        pixels=options.pixels,
        fit=options.fit,
    )
    fused = fuse(source, options)
    verified = verify(source, fused, options)
    inputs, outputs = (_batched(tensors, source.max_batch) for tensors in (fused.inputs, fused.outputs))
    width, height = source.intake.size
    metadata = {**source.info.metadata, "imgsz": str([height, width])}  # now fixed, whatever it was exported for
    parameters = described(metadata, source.head) | _for_clients(fused) | _for_backend(options)
    to_do = None
    if options.backend == "tensorrt":
        command = trtexec_command(_plan_input(source, fused), tensorrt_major=10)
        to_do = f"inside the server's container run {SCRIPT_FILE} in the version's folder, which runs: {command}"
    return Contents(
        kind=source.head.name,
        labels=source.head.labels,
        inputs=inputs,
        outputs=outputs,
        max_batch=source.max_batch,
        parameters=parameters,
        origin=origin_of(path, _precision_name(fused, options)),
        verified=tuple(map(str, verified)),
        notes=_notes(options, fused),
        to_do=to_do,
        file="model.xml" if fused.openvino is not None and options.backend == "openvino" else None,
        write=lambda folder, version: _write_graph(folder, version, name, source, fused, options),
    )


def _write_graph(
    folder: Path, version: int, name: str, source: Source, fused: FusedModel, options: BuildOptions
) -> None:
    if fused.openvino is not None:
        fused.openvino.write(folder / "model.xml")
    else:
        (folder / "model.onnx").write_bytes(fused.serialised)
    if options.backend == "python":
        served = resources.files("streamproc.repository") / "served" / f"{_runtime(options)}_model.py"
        (folder / MODEL_FILES["python"]).write_bytes(served.read_bytes())
    if options.backend == "tensorrt":
        script = folder / SCRIPT_FILE
        script.write_text(build_script(name, version, _plan_input(source, fused)))
        script.chmod(0o755)


def _plan_input(source: Source, fused: FusedModel) -> PlanInput:
    """What TensorRT builds for; the types that it is to be allowed are those that the graph has by now."""
    own = "int8" if source.quantised else "fp16" if source.intake.dtype == "float16" else fused.precision
    (image,) = fused.inputs
    return PlanInput(image=image, max_batch=source.max_batch, is_open=fused.is_open, precision=own)


def _batched(tensors: tuple[TensorInfo, ...], max_batch: int) -> tuple[TensorInfo, ...]:
    """The server's batch in place of the graph's, where the backend takes a fixed one apart."""
    if not max_batch:
        return tensors
    return tuple(replace(tensor, shape=(-1, *tensor.shape[1:])) for tensor in tensors)


def _for_clients(fused: FusedModel) -> dict[str, str]:
    """The limits of fused suppression: below them a client need not look."""
    if fused.suppression is None:
        return {}
    limits = ("confidence", "iou", "max_detections")
    return {f"suppression.{limit}": str(getattr(fused.suppression, limit)) for limit in limits}


def _runtime(options: BuildOptions) -> Runtime:
    return options.runtime or "openvino"


def _for_backend(options: BuildOptions) -> dict[str, str]:
    """What each backend reads from config.pbtxt (their own documentation; for python, the served model's)."""
    hint = options.precision if options.precision in ("fp32", "bf16") else "auto"
    threads = None if options.threads is None else str(options.threads)
    if options.backend == "python":
        return {"runtime": _runtime(options), "precision": hint, "threads": threads or "1"}
    if options.backend == "onnxruntime":
        return {} if threads is None else {"intra_op_thread_count": threads}
    if options.backend == "openvino":
        found = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
        return found | ({"HINT_BF16": "YES"} if hint == "bf16" else {})
    return {}


def _precision_name(fused: FusedModel, options: BuildOptions) -> str:
    if fused.precision != "auto":
        return fused.precision
    return "the model's own" if options.precision == "auto" else options.precision


def _notes(options: BuildOptions, fused: FusedModel) -> tuple[str, ...]:
    (taken,) = fused.inputs
    notes = []
    if fused.calibrated_on:
        notes.append(f"calibrated on {fused.calibrated_on}")
    elif options.backend == "tensorrt" and fused.suppression:
        notes.append("EfficientNMS runs in TensorRT alone: the suppression itself was not verified here")
    if taken.dtype != "uint8":
        made = "what sends them, or a model in front of it, makes them of pictures"
        notes.append(f"it takes {taken.dtype} tensors, {taken.name}: {made}")
    return tuple(notes)
