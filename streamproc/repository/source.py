"""The ONNX file that a served model is built from: read, run once, and recognised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from streamproc.config import PixelsConfig
from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.engines.intake import Intake, check_outputs, plan_intake, settle_pictures
from streamproc.errors import ModelError
from streamproc.graphs.batch import add_batch_axis
from streamproc.graphs.reading import inputs_of, metadata_of, outputs_of, read_onnx, serialise
from streamproc.models.spec import Head, recognise
from streamproc.repository.heads import ServedHead, recognise_served
from streamproc.repository.options import DEFAULT_BATCH, BuiltHead
from streamproc.repository.session import Session
from streamproc.types import Fit

__all__ = ["OnnxGraph", "Source", "read_source"]

OnnxGraph: TypeAlias = Any
"""An ``onnx.ModelProto``, which has no types that a checker could use."""

_LAYOUTS: dict[str, Literal["raw", "objectness", "grid"]] = {
    "yolo": "raw",
    "yolo with objectness": "objectness",
    "yolox": "grid",
}
_STATIC = {"QuantizeLinear", "DequantizeLinear", "QLinearConv"}
_DYNAMIC = {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model as its file has it.

    ``head`` reads its ``output``, None where it needs several or finds no objects; ``layout`` is how that lies, None
    where nothing can be fused behind it. ``quantised``: how its weights were made int8, if they were. ``max_batch``:
    the server's, 0 without batching.
    """

    name: str
    path: Path
    graph: OnnxGraph
    serialised: bytes
    intake: Intake
    max_batch: int
    info: ModelInfo
    head: ServedHead
    output: TensorInfo | None
    layout: Literal["raw", "objectness", "grid"] | None
    quantised: Literal["static", "dynamic"] | None

    @property
    def fixed_batch(self) -> int | None:
        """Pictures of every inference where that is fixed; None where the batch stays open."""
        if not self.intake.open_batch:
            return self.intake.max_batch
        return None if self.max_batch else 1


def read_source(
    path: Path,
    *,
    name: str,
    size: tuple[int, int] | None = None,
    max_batch: int | None = None,
    splits_batches: bool = False,
    labels: tuple[str, ...] | None = None,
    kind: BuiltHead = "auto",
    pixels: PixelsConfig | None = None,
    fit: Fit | Literal["auto"] = "auto",
) -> Source:
    """Read a model, and run it once where the file does not tell the shapes of its outputs.

    ``max_batch`` of the server: 0 for no batching, None for the default. ``splits_batches``: what serves it feeds a
    model of a fixed batch piece by piece. ``labels``, ``kind``, ``pixels`` and ``fit`` go before what the file says of
    itself.

    Raises:
        ModelError: it cannot be read or run, it is none of a supported kind, or it cannot take that batch.
    """
    graph = read_onnx(path)
    inputs = inputs_of(graph)
    intake = plan_intake(name, inputs, max_batch="auto", auto_batch=max(1, _or_default(max_batch)), size=size)
    batch = _agree_batch(name, intake, max_batch, splits_batches)
    if not intake.open_batch and intake.max_batch == 1:
        add_batch_axis(graph)
    serialised = serialise(graph, of=f"model {name} ({path})", remedy="Choose a smaller model.")
    outputs = _stated_outputs(graph, inputs) or Session(serialised, f"model {name} ({path})").outputs(intake)
    check_outputs(name, outputs, 1 if intake.open_batch else intake.max_batch)
    single = tuple(replace(tensor, shape=(1, *tensor.shape[1:])) for tensor in outputs)
    metadata = metadata_of(graph)
    intake = settle_pictures(name, intake, single, pixels=pixels, fit=fit, metadata=metadata)
    if fit != "auto" or intake.fit != "letterbox":
        metadata["fit"] = intake.fit  # for readers of what is built, whose outputs may not tell
    info = ModelInfo(name=name, size=intake.size, inputs=inputs, outputs=single, metadata=metadata, fit=intake.fit)
    head = recognise_served(info, labels, kind)
    info = replace(info, metadata={**info.metadata, **head.metadata})
    return Source(
        name=name,
        path=path,
        graph=graph,
        serialised=serialised,
        intake=intake,
        max_batch=batch,
        info=info,
        head=head,
        output=_read_by(head, info) if isinstance(head, Head) else None,
        layout=_LAYOUTS.get(head.name),
        quantised=_quantisation(graph),
    )


def _or_default(max_batch: int | None) -> int:
    return DEFAULT_BATCH if max_batch is None else max_batch


def _agree_batch(name: str, intake: Intake, wanted: int | None, splits_batches: bool) -> int:
    if intake.open_batch or splits_batches:
        return _or_default(wanted)
    if wanted:
        raise ModelError(
            f"model {name}: its batch is fixed at {intake.max_batch}, so the server cannot batch for it; max_batch "
            f"asks for {wanted}. Leave max_batch out, choose backend python, or export the model with an open batch."
        )
    return 0


def _stated_outputs(graph: OnnxGraph, inputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """The outputs as the file states them, for a batch of one where it is open; none where it leaves sizes open."""
    outputs = outputs_of(graph)
    sizes = [side for tensor in (*inputs, *outputs) for side in tensor.shape[1:] or (-1,)]
    if any(side < 1 for side in sizes):
        return ()
    return tuple(replace(tensor, shape=(abs(tensor.shape[0]), *tensor.shape[1:])) for tensor in outputs)


def _read_by(head: Head, info: ModelInfo) -> TensorInfo | None:
    """The one of the outputs that a head reads: the first that is recognised alone; None where it needs several."""
    for tensor in info.outputs:
        try:
            if recognise(replace(info, outputs=(tensor,)), head.labels).name == head.name:
                return tensor
        except ModelError:
            continue
    return None


def _quantisation(graph: OnnxGraph) -> Literal["static", "dynamic"] | None:
    kinds = {node.op_type for node in graph.graph.node}
    if kinds & _DYNAMIC:
        return "dynamic"
    return "static" if kinds & _STATIC else None
