"""OpenVINO IR files, read as the XML that they are: what a model takes and gives, without OpenVINO.

The format is OpenVINO's IR version 10 and later: layers with ports, edges between these, and ``rt_info``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError

__all__ = ["OpenVinoFile", "read_xml"]

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "u8": "uint8",
    "i32": "int32",
    "i64": "int64",
    "fp32": "float32",  # ports spell them otherwise
    "fp16": "float16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoFile:
    """The tensors of a model, -1 for an open dimension, and what its exporter wrote."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str]


def read_xml(path: Path) -> OpenVinoFile:
    """Read the graph's file; the weights beside it are not needed for that.

    Raises:
        ModelError: it cannot be read, or it is no OpenVINO model.
    """
    try:
        net = ElementTree.parse(path).getroot()
        layers = {layer.attrib["id"]: layer for layer in net.iterfind("layers/layer")}
        made_by = {
            edge.attrib["to-layer"]: (edge.attrib["from-layer"], edge.attrib["from-port"])
            for edge in net.iterfind("edges/edge")
        }
        inputs = [_input(layer) for layer in layers.values() if layer.attrib["type"] == "Parameter"]
        outputs = [
            _output(layer, _port_names(layers, *made_by[number]))
            for number, layer in layers.items()
            if layer.attrib["type"] == "Result"
        ]
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as exc:
        raise ModelError(
            f"model file {path}: it cannot be read as an OpenVINO model: {exc!r}. Copy it again, or export it again."
        ) from exc
    if not outputs:
        raise ModelError(f"model file {path}: this XML is no OpenVINO model. Name the .xml file of an export.")
    return OpenVinoFile(inputs=tuple(inputs), outputs=tuple(outputs), metadata=_metadata(net))


def _input(layer: ElementTree.Element) -> TensorInfo:
    data = layer.find("data")
    if data is None:
        raise ValueError(f"the input {layer.attrib['name']} has no data")
    names = _names(layer.find("output/port"))
    shape = tuple(_side(side) for side in data.attrib["shape"].split(","))
    return TensorInfo(name=names or layer.attrib["name"], dtype=_dtype(data.attrib["element_type"]), shape=shape)


def _output(layer: ElementTree.Element, names: str) -> TensorInfo:
    port = layer.find("input/port")
    sides = [] if port is None else [_side(dim.text or "") for dim in port.iterfind("dim")]
    dtype = _dtype("" if port is None else port.attrib.get("precision", ""))
    return TensorInfo(name=names or layer.attrib["name"], dtype=dtype, shape=tuple(sides))


def _port_names(layers: dict[str, ElementTree.Element], layer: str, port: str) -> str:
    return next((_names(found) for found in layers[layer].iterfind("output/port") if found.attrib["id"] == port), "")


def _names(port: ElementTree.Element | None) -> str:
    """The first name in order, as a port may have several."""
    return min(port.attrib.get("names", "").split(",")) if port is not None else ""


def _dtype(word: str) -> str:
    return _DTYPES.get(word.lower(), word.lower() or "unknown")


def _side(text: str) -> int:
    return int(text) if text.strip().lstrip("-").isdigit() else -1


def _metadata(net: ElementTree.Element) -> dict[str, str]:
    found = {}
    for section in ("framework", "model_info"):
        for entry in net.iterfind(f"rt_info/{section}/*"):
            if "value" in entry.attrib:
                found[entry.tag] = entry.attrib["value"]
    return found
