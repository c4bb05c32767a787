"""A model's convolutions in int8 as OpenVINO runs them fastest: post-training quantisation by NNCF."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.discretion import without_telemetry
from streamproc.errors import DependencyError, ModelError
from streamproc.types import UInt8Array

with without_telemetry():
    import openvino as ov
    from openvino import opset13

__all__ = ["OpenVinoGraph", "OpenVinoSession", "to_openvino_int8"]

_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}  # of these, the ones with weights
_NO_OPERATORS = {"Parameter", "Constant", "Result"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoGraph:
    """What the two files of an OpenVINO model hold: ``xml``, the graph, and ``weights``, of the .bin file."""

    xml: bytes
    weights: bytes

    def write(self, path: Path) -> None:
        """Write both, ``path`` being the .xml file; raises :class:`OSError`."""
        path.with_suffix(".bin").write_bytes(self.weights)
        path.write_bytes(self.xml)


def to_openvino_int8(serialised: bytes, samples: Sequence[UInt8Array], *, metadata: Mapping[str, str]) -> OpenVinoGraph:
    """An ONNX model as an OpenVINO one whose layers compute in int8, but for the last ones of each output.

    ``samples`` calibrate it: batches (n, height, width, 3) uint8 RGB, letterboxed; the model takes them as its only
    input. ``metadata`` goes into the file, where the engine looks for the names of classes.

    Weights are quantised per channel and symmetric, activations per tensor and asymmetric. From the last layers on,
    boxes and scores are made in floats, since one scale for coordinates and probabilities leaves nothing of the latter:
    without that, yolov8n scored an mAP50-95 of 0.372 on 128 pictures of COCO, where bfloat16 scores 0.414. Bias
    correction is off: it fits the means of the calibration pictures, and other scenes suffer (yolov5n, calibrated on
    frames of street and hall cameras: 0.326 with it, 0.333 without, 0.335 in bfloat16). Weights of the first layer keep
    to half their range, as processors without VNNI instructions need (nncf.OverflowFix).

    Raises:
        DependencyError: NNCF is not installed.
        ModelError: OpenVINO cannot read the model, or there is nothing in it to quantise.
        ValueError: no sample.
    """
    if not samples:
        raise ValueError("samples: expected at least one batch")
    nncf = _nncf()
    try:
        model = ov.Core().read_model(serialised)
    except RuntimeError as exc:
        cause = _first_line(exc)
        raise ModelError(f"precision int8: OpenVINO cannot read the model: {cause}. Export it again.") from exc
    _fuse_swish(model)
    tail, layers = _tail(model)
    if not layers:
        raise ModelError("precision int8: the model has no layers but the last ones. Leave the precision out.")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars, and a line for every layer left alone
            quantised = nncf.quantize(
                model,
                nncf.Dataset(samples),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(samples),
                ignored_scope=nncf.IgnoredScope(names=tail),
                advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
            )
    except (RuntimeError, nncf.ValidationError, nncf.InternalError, nncf.UnsupportedModelError) as exc:
        raise ModelError(
            f"precision int8: NNCF cannot quantise the model: {_first_line(exc)}. Choose another precision."
        ) from exc
    for key, value in metadata.items():
        quantised.set_rt_info(value, ["model_info", key])
    return _saved(quantised)


class OpenVinoSession:
    """A graph on the CPU in float32, where it is not int8: to hold one against another."""

    def __init__(self, graph: OpenVinoGraph) -> None:
        core = ov.Core()
        self._compiled = core.compile_model(
            core.read_model(graph.xml, graph.weights), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )

    def run(self, values: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """The outputs for the graph's one input; the first dimension is the batch."""
        results = self._compiled([values])
        return {min(port.get_names()): np.array(results[port]) for port in self._compiled.outputs}


def _nncf() -> ModuleType:
    """The library, without its messages; it sets the class of everybody's loggers, which is set back."""
    loggers = logging.getLoggerClass()
    try:
        with without_telemetry():
            library = importlib.import_module("nncf")
    except ModuleNotFoundError as exc:
        raise DependencyError(
            "precision int8 in OpenVINO needs the Python package nncf, which is not installed. "
            "Run: pip install 'streamproc[int8]'"
        ) from exc
    finally:
        logging.setLoggerClass(loggers)
    logging.getLogger("nncf").setLevel(logging.ERROR)  # and not the levels of handlers that others may have added
    return library


def _fuse_swish(model: ov.Model) -> None:
    """Write x * sigmoid(x) as one operator, in place.

    Exporters write two, which OpenVINO 2026.4 fuses into the convolution before them in floats, but not in int8:
    yolov8n then spent a third of its time in them, and ran at 1.2 to 1.3 instead of 1.5 times the speed of bfloat16.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Multiply":
            continue
        first, second = node.input_value(0), node.input_value(1)
        for value, gate in ((first, second), (second, first)):
            source = gate.get_node()
            if source.get_type_name() == "Sigmoid" and source.input_value(0) == value:
                fused = opset13.swish(value)
                fused.set_friendly_name(node.get_friendly_name())
                for reader in list(node.output(0).get_target_inputs()):
                    reader.replace_source_output(fused.output(0))
                break


def _tail(model: ov.Model) -> tuple[list[str], int]:
    """Names of the last layers before each output and of everything behind them; how many layers there are besides.

    A convolution of a single output channel does not end the way back: it is the weighted sum that makes a distance
    from a distribution (Li et al., Generalized Focal Loss, 2020, equation 6).
    """
    tail: dict[str, bool] = {}
    waiting = [port.get_node() for port in model.outputs]
    while waiting:
        node = waiting.pop()
        name, kind = node.get_friendly_name(), node.get_type_name()
        if name in tail or kind in ("Parameter", "Constant"):
            continue
        tail[name] = kind not in _NO_OPERATORS
        if kind != "ShapeOf" and not (_is_layer(node) and not _is_sum(node)):
            waiting.extend(port.get_source_output().get_node() for port in node.inputs())
    others = [node for node in model.get_ops() if _is_layer(node) and node.get_friendly_name() not in tail]
    return sorted(name for name, is_operator in tail.items() if is_operator), len(others)


def _is_layer(node: Any) -> bool:
    """Whether it multiplies with weights of its own; a product of two activations does not."""
    if node.get_type_name() not in _LAYERS:
        return False
    weights = node.input_value(1).get_node()
    while weights.get_type_name() in ("Convert", "Reshape"):
        weights = weights.input_value(0).get_node()
    return bool(weights.get_type_name() == "Constant")


def _is_sum(node: Any) -> bool:
    channels = node.output(0).get_partial_shape()[1] if node.get_type_name() == "Convolution" else None
    return channels is not None and channels.is_static and channels.get_length() == 1


def _saved(model: ov.Model) -> OpenVinoGraph:
    with TemporaryDirectory(prefix="streamproc-int8-") as folder:
        path = Path(folder, "model.xml")
        # The layers that stay floats are few, and halving them would round what int8 has left alone.
        ov.save_model(model, path, compress_to_fp16=False)
        return OpenVinoGraph(xml=path.read_bytes(), weights=path.with_suffix(".bin").read_bytes())


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return (telling or lines or [type(exc).__name__])[0].rstrip(". ")[:300]
