"""From a source model to the graph that is served: pictures in front, precision within, suppression behind."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError
from streamproc.graphs.grid import add_grid_decoding
from streamproc.graphs.intake import add_uint8_intake
from streamproc.graphs.precision import to_fp16, to_int8
from streamproc.graphs.reading import inputs_of, serialise
from streamproc.graphs.suppression import DETECTIONS, Suppression, add_efficient_nms, add_suppression
from streamproc.grids import grids_of
from streamproc.models.heads import Thresholds
from streamproc.models.spec import Head, recognise
from streamproc.repository.calibration import DEFAULT_PICTURES, find_calibration
from streamproc.repository.dependencies import needing_openvino
from streamproc.repository.options import BuildOptions, check_options
from streamproc.repository.output_comparison import EXACT, ROUNDED, OutputComparison, compare_outputs
from streamproc.repository.pictures import Sample, drawn_sample, find_pictures, read_samples
from streamproc.repository.session import Session, as_input
from streamproc.repository.source import OnnxGraph, Source
from streamproc.repository.verification import TOLERANCES, GraphRunner, GraphSession, Runner, Verification, compare
from streamproc.types import UInt8Array

if TYPE_CHECKING:
    from streamproc.graphs.openvino_int8 import OpenVinoGraph

__all__ = ["FusedModel", "fuse", "verify"]

_log = logging.getLogger(__name__)

_DRAWN_CONFIDENCE = 0.01
_VERIFIED_PICTURES = 32  # more tell nothing new, and take a second for every ten


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedModel:
    """A graph to serve, ``serialised``; ``plain`` is the same without suppression behind it. ``openvino`` is served
    instead, where there is one.

    ``inputs`` and ``outputs`` have the batch as their first dimension. ``precision`` is what the graph was turned into,
    "auto" where it is left as it was; ``suppression`` what was fused, if it was. ``is_open``: the graph itself leaves a
    side of its input open. ``calibrated_on``: the pictures of that, for people; None without int8.
    """

    serialised: bytes
    plain: bytes
    openvino: OpenVinoGraph | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    precision: str
    suppression: Suppression | None
    is_open: bool
    calibrated_on: str | None


def fuse(source: Source, options: BuildOptions) -> FusedModel:
    """Change a copy of the source as the options say.

    Raises:
        ConfigError: the options are those of a detector, which this model turned out not to be.
        ModelError: this model cannot be changed so; the message says why, and what to do.
    """
    if not isinstance(source.head, Head):
        check_options(replace(options, head=source.head.kind))
    graph: OnnxGraph = copy.deepcopy(source.graph)
    batch = source.fixed_batch
    if options.fuse_intake:
        add_uint8_intake(
            graph,
            tensor=source.intake.tensor,
            dtype=source.intake.dtype,
            channels_first=source.intake.channels_first,
            size=source.intake.size,
            batch=batch,
            pixels=source.intake.pixels,
        )
    wanted = _precision(source, options)
    calibration = _Calibration.of(source, options) if wanted == "int8" else None
    graph = _converted(graph, wanted, calibration, options)
    plain = _serialise(graph, source)
    openvino = None
    if calibration is not None and options.runs_openvino:
        openvino = _in_openvino(plain, source, calibration)
    suppression = _suppression(source, options)
    serialised, outputs = plain, source.info.outputs
    if suppression:
        serialised = _suppressed(graph, source, options, suppression)
        outputs = (TensorInfo(name=DETECTIONS, dtype="float32", shape=(1, suppression.max_detections, 6)),)
    shape = (batch or -1, *_image_shape(source, options.fuse_intake))
    taken = inputs_of(graph)[0]
    return FusedModel(
        serialised=serialised,
        plain=plain,
        openvino=openvino,
        inputs=(TensorInfo(name=taken.name, dtype=taken.dtype, shape=shape),),
        outputs=tuple(replace(tensor, shape=(batch or -1, *tensor.shape[1:])) for tensor in outputs),
        precision=wanted,
        suppression=suppression,
        is_open=any(side < 0 for side in taken.shape),
        calibrated_on=None if calibration is None else calibration.name,
    )


def verify(
    source: Source, fused: FusedModel, options: BuildOptions
) -> tuple[Verification, ...] | tuple[OutputComparison]:
    """Hold the fused graph against its source: the best boxes first, then what is left after suppression.

    Where there are no boxes, the outputs themselves. EfficientNMS runs in TensorRT alone, so a TensorRT graph is
    compared as it is before suppression.

    Raises:
        ModelError: they differ by more than their precision explains.
    """
    samples, drawn = _samples(source, options)
    what = f"model {source.name}"
    straight = _graph_runner(source, source.serialised, lambda images: as_input(images, source.intake))
    feed = straight.feed if not options.fuse_intake else np.asarray
    changed = _graph_runner(source, fused.plain if fused.openvino is None else fused.openvino, feed)
    if not isinstance(source.head, Head):
        share = ROUNDED if source.quantised or fused.precision == "fp16" else EXACT
        return (compare_outputs(what, straight, changed, samples, tolerance=share, drawn=drawn),)
    reference, plain = (_with_head(source.head, runner) for runner in (straight, changed))
    tolerance = TOLERANCES.get(fused.precision, TOLERANCES["exact"])
    done = [compare(what, reference, plain, samples, thresholds=None, tolerance=tolerance, drawn=drawn)]
    if fused.suppression and options.backend != "tensorrt":
        limits, serialised = fused.suppression, fused.serialised
        if drawn:  # shows no object, but much that is a little like one
            limits = replace(limits, confidence=min(limits.confidence, _DRAWN_CONFIDENCE))
            serialised = _suppressed(type(source.graph).FromString(fused.plain), source, options, limits)
        thresholds = Thresholds(
            confidence=limits.confidence, iou=limits.iou, class_ids=None, max_detections=limits.max_detections
        )
        single = tuple(replace(tensor, shape=(1, *tensor.shape[1:])) for tensor in fused.outputs)
        head = recognise(replace(source.info, outputs=single), source.head.labels)
        built = _with_head(head, _graph_runner(source, serialised, feed))
        exact = TOLERANCES["exact"]
        done.append(compare(what, plain, built, samples, thresholds=thresholds, tolerance=exact, drawn=drawn))
    return tuple(done)


def _samples(source: Source, options: BuildOptions) -> tuple[list[Sample], bool]:
    """The pictures to compare on, and whether that is a drawn one, as there are no others."""
    size, fit = source.intake.size, source.intake.fit
    if options.verify:
        return list(read_samples(find_pictures(options.verify, limit=_VERIFIED_PICTURES), size, fit)), False
    if options.calibration is not None:
        return list(find_calibration(options.calibration, limit=_VERIFIED_PICTURES).samples(size, fit)), False
    return [drawn_sample(size, fit)], True


def _graph_runner(
    source: Source, graph: bytes | OpenVinoGraph, feed: Callable[[UInt8Array], NDArray[Any]]
) -> GraphRunner:
    return GraphRunner(
        session=_session(graph, source),
        feed=feed,
        batch=source.fixed_batch or source.max_batch,
        open_batch=source.fixed_batch is None,
    )


def _with_head(head: Head, runner: GraphRunner) -> Runner:
    return Runner(head=head, session=runner.session, feed=runner.feed, batch=runner.batch, open_batch=runner.open_batch)


def _session(graph: bytes | OpenVinoGraph, source: Source) -> GraphSession:
    if isinstance(graph, bytes):
        return Session(graph, f"model {source.name}")
    from streamproc.graphs.openvino_int8 import OpenVinoSession

    return OpenVinoSession(graph)


def _image_shape(source: Source, fused: bool) -> tuple[int, int, int]:
    width, height = source.intake.size
    return (3, height, width) if source.intake.channels_first and not fused else (height, width, 3)


def _precision(source: Source, options: BuildOptions) -> str:
    """What the graph is to be turned into; ``auto`` leaves it in the model's own."""
    wanted = options.precision
    if wanted == "auto" and options.backend == "tensorrt" and not source.quantised:
        wanted = "fp16"
    if options.backend == "tensorrt" and source.quantised == "dynamic":
        raise _quantised(source, "TensorRT does not know dynamic quantisation")
    if wanted in ("fp16", "int8") and source.quantised:
        raise _quantised(source, f"it cannot be made {wanted}")
    if wanted == "fp32" and source.intake.dtype == "float16":
        raise ModelError(
            f"model {source.name}: the file is float16, and precision asks for fp32. Leave it out, or export in fp32."
        )
    if wanted == "int8" or (wanted == "fp16" and source.intake.dtype != "float16"):
        return wanted
    return "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calibration:
    """Batches of one picture each, repeated where the model takes several; ``name`` is for people."""

    name: str
    batches: Sequence[UInt8Array]

    @classmethod
    def of(cls, source: Source, options: BuildOptions) -> _Calibration:
        assert options.calibration is not None  # or the options would have been refused
        found = find_calibration(options.calibration, limit=options.calibration_pictures or DEFAULT_PICTURES)
        batch = source.fixed_batch or 1
        if found.is_small:
            _log.warning(
                "calibration %s: %s may show too little of what the cameras see. Some %d of their own scenes, at all "
                "times of day, do better.",
                options.calibration,
                found,
                DEFAULT_PICTURES,
            )
        samples = found.samples(source.intake.size, source.intake.fit)
        images = [np.repeat(one.image[None], batch, axis=0) for one in samples]
        return cls(name=str(found), batches=images)


def _converted(graph: OnnxGraph, wanted: str, calibration: _Calibration | None, options: BuildOptions) -> OnnxGraph:
    """The graph in the precision that it is to have; what OpenVINO is to run in int8 is left to its own quantiser."""
    if wanted == "fp16":
        return to_fp16(graph)
    if calibration is not None and not options.runs_openvino:
        # TensorRT runs symmetric int8 alone; elsewhere the other kind keeps more of the accuracy.
        return to_int8(graph, calibration.batches, symmetric=options.backend == "tensorrt")
    return graph


def _in_openvino(plain: bytes, source: Source, calibration: _Calibration) -> OpenVinoGraph:
    with needing_openvino("precision int8 in OpenVINO"):
        from streamproc.graphs.openvino_int8 import to_openvino_int8

    metadata = {**source.info.metadata, **source.head.metadata}
    return to_openvino_int8(plain, calibration.batches, metadata=metadata)


def _suppression(source: Source, options: BuildOptions) -> Suppression | None:
    if source.layout is None and options.fuse_suppression:
        assert isinstance(source.head, Head)  # or the options would have been refused
        reason = "it suppresses overlapping boxes itself"
        if source.head.pose is not None or source.head.decoder.has_corners:
            reason = "fused suppression gives boxes alone, and its keypoints would be lost"
        raise ModelError(f"model {source.name}: {reason} ({source.head.name}). Leave fuse_suppression out.")
    if source.layout is None or not options.suppresses:
        return None
    if source.layout == "grid" and not options.fuse_intake:
        raise ModelError(
            f"model {source.name}: it takes blue, green and red from 0 to 255, which clients see by its own output "
            "alone. Leave fuse_suppression or fuse_intake out."
        )
    return Suppression(
        confidence=_or(options.confidence, 0.25),
        iou=_or(options.iou, 0.45),
        max_detections=options.max_detections or 300,
    )


def _suppressed(graph: OnnxGraph, source: Source, options: BuildOptions, limits: Suppression) -> bytes:
    assert source.layout is not None  # or there is nothing to suppress
    assert source.output is not None
    layout, output = source.layout, source.output
    if layout == "grid":
        add_grid_decoding(graph, output=output.name, grids=grids_of(output.shape[1], source.intake.size))
        layout = "objectness"
    add = add_efficient_nms if options.backend == "tensorrt" else add_suppression
    add(graph, output=output.name, layout=layout, suppression=limits)
    return _serialise(graph, source)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _quantised(source: Source, why: str) -> ModelError:
    return ModelError(
        f"model {source.name} ({source.path}): it is quantised already ({source.quantised}), and {why}. Leave "
        "precision out with another backend, or build from the file in float32."
    )


def _serialise(graph: OnnxGraph, source: Source) -> bytes:
    return serialise(graph, of=f"model {source.name} ({source.path})", remedy="Choose a smaller model.")
