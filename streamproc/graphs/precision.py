"""Half the bytes, or a quarter: a model's arithmetic in float16, or its convolutions in int8."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from streamproc.errors import ModelError
from streamproc.graphs.editing import PREFIX, opset_of
from streamproc.graphs.reading import inputs_of, serialise
from streamproc.types import UInt8Array

__all__ = ["to_fp16", "to_int8"]

_QUANTISED = {"DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
# ONNX Runtime's own error classes have no common base but Exception.
_ERRORS = tuple(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception))
_CONTROL_FLOW = {"If", "Loop", "Scan"}
_PER_CHANNEL_OPSET = 13  # gave DequantizeLinear its axis
_FLOAT32_ONLY = {"NonMaxSuppression", "Range"}  # by ONNX, or by ONNX Runtime's kernels
_FLOAT32_INPUTS = {("Resize", 2), ("Upsample", 1)}  # scales


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model that computes in float16; what it takes and gives keeps its types.

    Intake and suppression of ours stay in float32: a coordinate of 640 is 0.5 px coarse in float16. Weights beyond
    its range (65504) become the nearest that it has, but for variances, which go into the scales beside them.

    Raises:
        ModelError: the model is quantised, has branches or loops, or operators that are not ONNX's own.
    """
    _refuse(model, "fp16")
    foreign = {f"{node.domain}.{node.op_type}" for node in model.graph.node if _is_foreign(node)}
    if foreign:
        raise ModelError(
            f"precision fp16: the model has operators whose types are not known: {', '.join(sorted(foreign))}. "
            "Export it again in ONNX's own operators."
        )
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    _scale_by_variances(converted.graph)
    _HalfPrecision(converted).convert()
    return converted


def to_int8(model: onnx.ModelProto, samples: Iterable[UInt8Array], *, symmetric: bool = False) -> onnx.ModelProto:
    """A copy of a model whose convolutions are int8 (static, QuantizeLinear/DequantizeLinear, weights per channel).

    ``samples`` calibrate it: batches (n, height, width, 3) uint8 RGB as the model will see them, letterboxed; 30
    pictures of the real scenes do. The model takes them as its only input (:func:`add_uint8_intake`), and must run in
    ONNX Runtime: TensorRT's plugin comes after. Boxes and scores are made in float32 from the last convolutions on,
    since one scale for coordinates and probabilities would leave nothing of the latter.

    ``symmetric``: activations signed around 0, which is all that TensorRT runs; for others leave it out. yolov8n
    scored an mAP50-95 of 0.413 without and 0.398 with it on 128 pictures of COCO, where float32 scores 0.416 (ONNX
    Runtime 1.31); OpenVINO 2026.4 scored 0.410 without and next to nothing with it.

    Raises:
        ModelError: the model is quantised already, float16 or larger than 2 GiB, has branches or loops, or fails to
            run.
        ValueError: no sample, or a model that does not take uint8.
    """
    _refuse(model, "int8")
    if any(weight.data_type == TensorProto.FLOAT16 for weight in model.graph.initializer):
        raise ModelError("precision int8: the model's weights are float16. Start from a float32 file.")
    inputs = inputs_of(model)
    if [tensor.dtype for tensor in inputs] != ["uint8"]:
        found = ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in inputs)
        raise ValueError(f"model: expected one uint8 input, which add_uint8_intake gives; got {found}")
    batches = iter(samples)
    first = next(batches, None)
    if first is None:
        raise ValueError("samples: expected at least one batch")
    serialised = serialise(model, of="precision int8: the model", remedy="Use fp16, or leave the precision out.")
    try:
        quantised = _quantised(serialised, _Samples(inputs[0].name, chain([first], batches)), symmetric)
    except _ERRORS as exc:
        raise ModelError(
            f"precision int8: ONNX Runtime cannot run the model on the samples: {exc}. Export it again, or leave the "
            "precision out."
        ) from exc
    del quantised.metadata_props[:]  # the library adds marks of its own
    quantised.metadata_props.extend(model.metadata_props)
    return quantised


class _Samples(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Batches as the library asks for them."""

    def __init__(self, tensor: str, batches: Iterable[UInt8Array]) -> None:
        self._tensor = tensor
        self._batches = iter(batches)

    def get_next(self) -> dict[str, UInt8Array] | None:
        """The next batch by the input's name, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._tensor: batch}


def _quantised(serialised: bytes, samples: _Samples, symmetric: bool) -> onnx.ModelProto:
    with TemporaryDirectory(prefix="streamproc-int8-") as folder:
        plain, quantised = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        prepared = _simplified(serialised, plain)
        if opset_of(prepared) < _PER_CHANNEL_OPSET:
            prepared = onnx.version_converter.convert_version(prepared, _PER_CHANNEL_OPSET)
        add_pre_process_metadata(prepared)
        onnx.save_model(prepared, plain)
        quantize_static(
            plain,
            quantised,
            samples,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_last_convolutions(prepared),
            per_channel=True,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": symmetric},
        )
        return onnx.load(quantised)


def _simplified(serialised: bytes, path: Path) -> onnx.ModelProto:
    """The model with constants folded and each bias inside its convolution, as runtimes know quantised ones; OpenVINO
    2026.4 fails on others."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    domains = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in domains]
    del model.opset_import[:]  # ONNX Runtime lists every set of operators that it knows
    model.opset_import.extend(imports)
    return model


def _last_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions with nothing but other operators between them and an output.

    One of a single output channel does not end the way back: it is the weighted sum that makes a distance from a
    distribution (Li et al., Generalized Focal Loss, 2020, equation 6).
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    channels = {weight.name: weight.dims[0] for weight in model.graph.initializer if weight.dims}
    names: list[str] = []
    seen: set[str] = set()
    waiting = [output.name for output in model.graph.output]
    while waiting:
        tensor = waiting.pop()
        if tensor in seen or tensor not in makers:
            continue
        seen.add(tensor)
        node = makers[tensor]
        if node.op_type == "Conv":
            names.append(node.name)
        if node.op_type != "Conv" or channels.get(node.input[1]) == 1:
            waiting.extend(node.input)
    return names


def _refuse(model: onnx.ModelProto, wanted: str) -> None:
    kinds = {node.op_type for node in model.graph.node}
    if kinds & _QUANTISED:
        raise ModelError(
            f"precision {wanted}: the model is quantised already ({', '.join(sorted(kinds & _QUANTISED))}). "
            "Leave the precision out, or start from a float32 file."
        )
    if kinds & _CONTROL_FLOW:
        raise ModelError(
            f"precision {wanted}: the model has branches or loops ({', '.join(sorted(kinds & _CONTROL_FLOW))}), which "
            "are not converted. Export a plain detection model."
        )


def _scale_by_variances(graph: onnx.GraphProto) -> None:
    """Make every variance of batch normalisation 1, and the scale what it has to be then: scale / sqrt(variance + e).

    Large features have variances beyond float16 though all that is computed from them is within: PP-OCR's text
    detector has one of 4.8e7.
    """
    known = {weight.name: weight for weight in graph.initializer}
    constants = ((node.output[0], one) for node in graph.node if node.op_type == "Constant" for one in node.attribute)
    known |= {name: one.t for name, one in constants if one.name == "value"}
    for node in graph.node:
        if node.op_type != "BatchNormalization" or not {node.input[1], node.input[4]} <= known.keys():
            continue
        epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
        scale, variance = (numpy_helper.to_array(known[node.input[index]]) for index in (1, 4))
        scaled = scale / np.sqrt(variance.astype(np.float64) + epsilon)
        for index, values in ((1, scaled), (4, np.full_like(scaled, 1 - epsilon))):
            name = f"{PREFIX}normalised/{node.output[0]}/{index}"
            graph.initializer.append(numpy_helper.from_array(values.astype(scale.dtype), name))
            node.input[index] = name


class _HalfPrecision:
    """Rewrites a graph node by node, casting where the two types meet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        self._float32 = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._float32 |= {name for name, weight in self._weights.items() if weight.data_type == TensorProto.FLOAT}
        self._halved: set[str] = set()  # of these, what the new graph makes in float16
        self._made: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []

    def convert(self) -> None:
        """Rewrite the whole graph."""
        for node in self._graph.node:
            self._convert_node(node)
        for output in self._graph.output:
            if output.name in self._halved:
                self._restore(output.name)
        used = {name for node in self._nodes for name in node.input}
        weights = [weight for weight in self._graph.initializer if weight.name in used]
        for field, values in (("node", self._nodes), ("initializer", weights), ("value_info", [])):
            self._graph.ClearField(field)
            getattr(self._graph, field).extend(values)

    def _convert_node(self, node: onnx.NodeProto) -> None:
        halved = node.op_type not in _FLOAT32_ONLY and not node.name.startswith(PREFIX)
        for index, name in enumerate(node.input):
            if name in self._float32:
                node.input[index] = self._as(name, half=halved and (node.op_type, index) not in _FLOAT32_INPUTS)
        if halved:
            self._halved.update(name for name in node.output if name in self._float32)
            _halve_attributes(node)
        self._nodes.append(node)

    def _as(self, name: str, *, half: bool) -> str:
        """A float32 tensor of the old graph in the type that is wanted; cast once where it is not of that type."""
        if (name in self._halved) == half:
            return name
        wanted = f"{PREFIX}{'fp16' if half else 'fp32'}/{name}"
        if wanted not in self._made:
            self._made.add(wanted)
            if name in self._weights:
                values = numpy_helper.to_array(self._weights[name])
                self._graph.initializer.append(numpy_helper.from_array(_halve(values), wanted))
            else:
                kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                self._nodes.append(helper.make_node("Cast", [name], [wanted], f"{wanted}/Cast", to=kind))
        return wanted

    def _restore(self, output: str) -> None:
        """Give an output of the graph its type back, under its own name."""
        halved = f"{PREFIX}halved/{output}"
        for node in self._nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == output:
                        names[index] = halved
        self._nodes.append(helper.make_node("Cast", [halved], [output], f"{halved}/Cast", to=TensorProto.FLOAT))


def _is_foreign(node: onnx.NodeProto) -> bool:
    return node.domain not in ("", "ai.onnx") and not node.name.startswith(PREFIX)


def _halve(values: NDArray[np.float32]) -> NDArray[np.float16]:
    most = np.finfo(np.float16).max
    return np.clip(values, -most, most).astype(np.float16)


def _halve_attributes(node: onnx.NodeProto) -> None:
    """Make a node give float16 where an attribute of it says float32."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(_halve(numpy_helper.to_array(attribute.t)), attribute.t.name))
