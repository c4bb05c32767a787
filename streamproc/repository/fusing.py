"""From a source model to the graph that is served: pictures in front, precision within, suppression behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError
from streamproc.graphs.intake import add_uint8_intake
from streamproc.graphs.precision import to_fp16, to_int8
from streamproc.graphs.reading import inputs_of, serialise
from streamproc.graphs.suppression import DETECTIONS, Suppression, add_efficient_nms, add_suppression
from streamproc.models.heads import Thresholds
from streamproc.models.spec import recognise
from streamproc.repository.options import BuildOptions
from streamproc.repository.pictures import drawn_sample, find_pictures, read_samples
from streamproc.repository.session import Session, as_input
from streamproc.repository.source import OnnxGraph, Source
from streamproc.repository.verification import TOLERANCES, Runner, Verification, compare
from streamproc.types import UInt8Array

__all__ = ["FusedModel", "fuse", "verify"]

_CALIBRATION_PICTURES = 100  # 30 of the real scenes do; each takes an inference
_DRAWN_CONFIDENCE = 0.01
_VERIFIED_PICTURES = 32  # more tell nothing new, and take a second for every ten


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedModel:
    """A graph to serve, ``serialised``; ``plain`` is the same without suppression behind it.

    ``inputs`` and ``outputs`` have the batch as their first dimension. ``precision`` is what the graph was turned into,
    "auto" where it is left as it was; ``suppression`` what was fused, if it was. ``is_open``: the graph itself leaves a
    side of its input open.
    """

    serialised: bytes
    plain: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    precision: str
    suppression: Suppression | None
    is_open: bool


def fuse(source: Source, options: BuildOptions) -> FusedModel:
    """Change a copy of the source as the options say.

    Raises:
        ModelError: this model cannot be changed so; the message says why, and what to do.
    """
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
        )
    graph, precision = _converted(graph, source, options)
    plain = _serialise(graph, source)
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
        inputs=(TensorInfo(name=taken.name, dtype=taken.dtype, shape=shape),),
        outputs=tuple(replace(tensor, shape=(batch or -1, *tensor.shape[1:])) for tensor in outputs),
        precision=precision,
        suppression=suppression,
        is_open=any(side < 0 for side in taken.shape),
    )


def verify(source: Source, fused: FusedModel, options: BuildOptions) -> tuple[Verification, ...]:
    """Hold the fused graph against its source: the best boxes first, then what is left after suppression.

    EfficientNMS runs in TensorRT alone, so a TensorRT graph is compared as it is before suppression.

    Raises:
        ModelError: they differ by more than their precision explains.
    """
    if options.verify:
        paths = find_pictures(options.verify, limit=_VERIFIED_PICTURES)
        samples = list(read_samples(paths, source.intake.size))
    else:
        samples = [drawn_sample(source.intake.size)]
    what, drawn = f"model {source.name}", not options.verify
    reference = _runner(source, source.serialised, None, lambda images: as_input(images, source.intake))
    feed = reference.feed if not options.fuse_intake else np.asarray
    plain = _runner(source, fused.plain, None, feed)
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
        built = _runner(source, serialised, fused.outputs, feed)
        exact = TOLERANCES["exact"]
        done.append(compare(what, plain, built, samples, thresholds=thresholds, tolerance=exact, drawn=drawn))
    return tuple(done)


def _runner(
    source: Source,
    serialised: bytes,
    outputs: tuple[TensorInfo, ...] | None,
    feed: Callable[[UInt8Array], NDArray[Any]],
) -> Runner:
    head = source.head
    if outputs is not None:
        single = tuple(replace(tensor, shape=(1, *tensor.shape[1:])) for tensor in outputs)
        head = recognise(replace(source.info, outputs=single), head.labels)
    return Runner(
        session=Session(serialised, f"model {source.name}"),
        head=head,
        feed=feed,
        batch=source.fixed_batch or source.max_batch,
        open_batch=source.fixed_batch is None,
    )


def _image_shape(source: Source, fused: bool) -> tuple[int, int, int]:
    width, height = source.intake.size
    return (3, height, width) if source.intake.channels_first and not fused else (height, width, 3)


def _converted(graph: OnnxGraph, source: Source, options: BuildOptions) -> tuple[OnnxGraph, str]:
    """The graph in the precision that it is to have; ``auto`` names the model's own."""
    wanted = options.precision
    if wanted == "auto" and options.backend == "tensorrt" and not source.quantised:
        wanted = "fp16"
    if options.backend == "tensorrt" and source.quantised == "dynamic":
        raise _quantised(source, "TensorRT does not know dynamic quantisation")
    if wanted in ("fp16", "int8") and source.quantised:
        raise _quantised(source, f"it cannot be made {wanted}")
    if wanted == "fp16" and source.intake.dtype != "float16":
        return to_fp16(graph), "fp16"
    if wanted == "int8":
        # TensorRT runs symmetric int8 alone; elsewhere the other kind keeps more of the accuracy.
        symmetric = options.backend == "tensorrt"
        return to_int8(graph, _calibration(source, options), symmetric=symmetric), "int8"
    if wanted == "fp32" and source.intake.dtype == "float16":
        raise ModelError(
            f"model {source.name}: the file is float16, and precision asks for fp32. Leave it out, or export in fp32."
        )
    return graph, "auto"


def _calibration(source: Source, options: BuildOptions) -> Iterator[UInt8Array]:
    """Batches of one picture each, repeated where the model takes several."""
    assert options.calibration is not None  # or the options would have been refused
    paths = find_pictures([options.calibration], limit=_CALIBRATION_PICTURES)
    for sample in read_samples(paths, source.intake.size):
        yield np.repeat(sample.image[None], source.fixed_batch or 1, axis=0)


def _suppression(source: Source, options: BuildOptions) -> Suppression | None:
    if source.layout is None and options.fuse_suppression:
        raise ModelError(
            f"model {source.name}: it suppresses overlapping boxes itself ({source.head.name}). "
            "Leave fuse_suppression out."
        )
    if source.layout is None or not options.suppresses:
        return None
    return Suppression(
        confidence=_or(options.confidence, 0.25),
        iou=_or(options.iou, 0.45),
        max_detections=options.max_detections or 300,
    )


def _suppressed(graph: OnnxGraph, source: Source, options: BuildOptions, limits: Suppression) -> bytes:
    assert source.layout is not None  # or there is nothing to suppress
    add = add_efficient_nms if options.backend == "tensorrt" else add_suppression
    add(graph, output=source.output.name, layout=source.layout, suppression=limits)
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
