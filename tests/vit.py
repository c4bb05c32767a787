"""A small vision transformer as Hugging Face's tools export one, with random weights, and a slow double of it.

The layers, their order and the weights' names are those of ``ViTForImageClassification`` (Dosovitskiy et al.,
arXiv:2010.11929): patches by a convolution, a class token, positions, pre-norm encoder layers, and a linear classifier
on the class token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tests.tiny_models import Side, save

__all__ = ["CLASSES", "SIZE", "Weights", "random_weights", "save_vit", "slow_logits"]

SIZE = (64, 32)
"""Width and height of its pictures."""

CLASSES = ("cat", "dog", "fox", "owl", "pike")
Weights: TypeAlias = Mapping[str, NDArray[np.float32]]

_PATCH, _HIDDEN, _HEADS, _LAYERS, _INNER = 8, 32, 4, 2, 64
_PATCHES = (SIZE[0] // _PATCH) * (SIZE[1] // _PATCH)
_EPSILON = 1e-12  # of Hugging Face's configuration, layer_norm_eps


def random_weights(seed: int = 0) -> Weights:
    """Weights by the names of Hugging Face's state dict; linear layers are (out, in)."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, deviation: float | None = None) -> NDArray[np.float32]:
        scale = 1 / math.sqrt(math.prod(shape[1:])) if deviation is None else deviation
        return random.normal(0, scale, shape).astype(np.float32)

    embeddings = "vit.embeddings"
    found = {
        f"{embeddings}.cls_token": normal(1, 1, _HIDDEN, deviation=0.5),
        f"{embeddings}.position_embeddings": normal(1, _PATCHES + 1, _HIDDEN, deviation=0.5),
        f"{embeddings}.patch_embeddings.projection.weight": normal(_HIDDEN, 3, _PATCH, _PATCH, deviation=0.2),
        f"{embeddings}.patch_embeddings.projection.bias": normal(_HIDDEN, deviation=0.1),
    }
    shapes = {"classifier": (len(CLASSES), _HIDDEN)}
    for layer in _layers():
        shapes |= {f"{layer}.attention.attention.{part}": (_HIDDEN, _HIDDEN) for part in ("query", "key", "value")}
        shapes[f"{layer}.attention.output.dense"] = (_HIDDEN, _HIDDEN)
        shapes[f"{layer}.intermediate.dense"] = (_INNER, _HIDDEN)
        shapes[f"{layer}.output.dense"] = (_HIDDEN, _INNER)
    for name, shape in shapes.items():
        found |= {f"{name}.weight": normal(*shape), f"{name}.bias": normal(shape[0], deviation=0.1)}
    for name in ("vit.layernorm", *(f"{layer}.layernorm_{end}" for layer in _layers() for end in ("before", "after"))):
        found |= {f"{name}.weight": 1 + normal(_HIDDEN, deviation=0.1), f"{name}.bias": normal(_HIDDEN, deviation=0.1)}
    return found


def _layers() -> list[str]:
    return [f"vit.encoder.layer.{number}" for number in range(_LAYERS)]


def save_vit(path: Path, weights: Weights, *, all_open: bool = False) -> Path:
    """Write it: ``pixel_values`` (batch, 3, height, width) in, ``logits`` (batch, classes) out, no metadata.

    ``all_open``: the file leaves every side of its input open, as Optimum's exports do, though one size alone fits.
    """
    graph = _Graph(weights)
    states = graph.embedded("pixel_values")
    for layer in _layers():
        normed = graph.normed(states, f"{layer}.layernorm_before")
        states = graph.add("Add", states, graph.attended(normed, f"{layer}.attention"))
        inner = graph.linear(graph.normed(states, f"{layer}.layernorm_after"), f"{layer}.intermediate.dense")
        states = graph.add("Add", states, graph.linear(graph.gelu(inner), f"{layer}.output.dense"))
    token = graph.add("Gather", graph.normed(states, "vit.layernorm"), graph.constant(0), axis=1)
    graph.linear(token, "classifier", output="logits")
    fixed: tuple[Side, ...] = (3, SIZE[1], SIZE[0])
    sides = ("num_channels", "height", "width") if all_open else fixed
    inputs = {"pixel_values": ("float32", ("batch_size", *sides))}
    return save(path, graph.nodes, inputs, {"logits": ("batch_size", len(CLASSES))}, graph.constants)


class _Graph:
    """Nodes that follow one another; every method gives the name of what it adds."""

    def __init__(self, weights: Weights) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._weights = weights

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: object) -> str:
        """A number or several, whole ones as 64-bit integers and others as float32."""
        array = np.array(value)
        name = f"/constant_{len(self.constants)}"
        self.constants[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return name

    def weight(self, name: str) -> str:
        self.constants[name] = self._weights[name]
        return name

    def linear(self, states: str, name: str, output: str | None = None) -> str:
        turned = f"{name}.weight.T"  # exporters fold the transposition
        self.constants[turned] = np.ascontiguousarray(self._weights[f"{name}.weight"].T)
        return self.add("Add", self.add("MatMul", states, turned), self.weight(f"{name}.bias"), output=output)

    def normed(self, states: str, name: str) -> str:
        parts = (self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))
        return self.add("LayerNormalization", states, *parts, axis=-1, epsilon=_EPSILON)

    def gelu(self, states: str) -> str:
        """x / 2 (1 + erf(x / sqrt(2)))."""
        share = self.add("Erf", self.add("Mul", states, self.constant(math.sqrt(0.5))))
        half = self.add("Mul", states, self.constant(0.5))
        return self.add("Mul", half, self.add("Add", share, self.constant(1.0)))

    def embedded(self, pictures: str) -> str:
        """(batch, 1 + patches, hidden): the class token and the patches, with their positions."""
        name = "vit.embeddings.patch_embeddings.projection"
        parts = (self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))
        cells = self.add("Conv", pictures, *parts, strides=[_PATCH, _PATCH])
        rows = self.add("Reshape", cells, self.constant([0, _HIDDEN, -1]))
        patches = self.add("Transpose", rows, perm=[0, 2, 1])
        batch = self.add("Shape", patches, start=0, end=1)
        shape = self.add("Concat", batch, self.constant([1, _HIDDEN]), axis=0)
        tokens = self.add("Expand", self.weight("vit.embeddings.cls_token"), shape)
        both = self.add("Concat", tokens, patches, axis=1)
        return self.add("Add", both, self.weight("vit.embeddings.position_embeddings"))

    def attended(self, states: str, name: str) -> str:
        """Multi-head self-attention, with its output layer."""
        apart = self.constant([0, -1, _HEADS, _HIDDEN // _HEADS])
        query, key, value = (
            self.add("Transpose", self.add("Reshape", self.linear(states, part), apart), perm=order)
            for part, order in (
                (f"{name}.attention.query", [0, 2, 1, 3]),
                (f"{name}.attention.key", [0, 2, 3, 1]),
                (f"{name}.attention.value", [0, 2, 1, 3]),
            )
        )
        scale = self.constant(1 / math.sqrt(_HIDDEN // _HEADS))
        shares = self.add("Softmax", self.add("Mul", self.add("MatMul", query, key), scale), axis=-1)
        mixed = self.add("Transpose", self.add("MatMul", shares, value), perm=[0, 2, 1, 3])
        together = self.add("Reshape", mixed, self.constant([0, -1, _HIDDEN]))
        return self.linear(together, f"{name}.output.dense")


def slow_logits(weights: Weights, pixel_values: NDArray[Any]) -> NDArray[np.float64]:
    """What it gives for (batch, 3, height, width), patch by patch and head by head."""
    return np.stack([_picture_logits(weights, picture.astype(np.float64)) for picture in pixel_values])


def _picture_logits(weights: Weights, picture: NDArray[np.float64]) -> NDArray[np.float64]:
    name = "vit.embeddings.patch_embeddings.projection"
    tokens = [weights["vit.embeddings.cls_token"][0, 0].astype(np.float64)]
    for top in range(0, SIZE[1], _PATCH):
        for left in range(0, SIZE[0], _PATCH):
            patch = picture[:, top : top + _PATCH, left : left + _PATCH]
            tokens.append((weights[f"{name}.weight"] * patch).sum(axis=(1, 2, 3)) + weights[f"{name}.bias"])
    states = np.stack(tokens) + weights["vit.embeddings.position_embeddings"][0]
    for layer in _layers():
        states = states + _attention(weights, f"{layer}.attention", _norm(weights, f"{layer}.layernorm_before", states))
        inner = _linear(weights, f"{layer}.intermediate.dense", _norm(weights, f"{layer}.layernorm_after", states))
        gelu = np.array([value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in inner.ravel()])
        states = states + _linear(weights, f"{layer}.output.dense", gelu.reshape(inner.shape))
    return _linear(weights, "classifier", _norm(weights, "vit.layernorm", states)[0])


def _attention(weights: Weights, name: str, states: NDArray[np.float64]) -> NDArray[np.float64]:
    query, key, value = (_linear(weights, f"{name}.attention.{part}", states) for part in ("query", "key", "value"))
    side = _HIDDEN // _HEADS
    heads = []
    for start in range(0, _HIDDEN, side):
        part = np.s_[:, start : start + side]
        likeness = np.exp(query[part] @ key[part].T / math.sqrt(side))
        heads.append(likeness / likeness.sum(axis=1, keepdims=True) @ value[part])
    return _linear(weights, f"{name}.output.dense", np.concatenate(heads, axis=1))


def _linear(weights: Weights, name: str, states: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return found


def _norm(weights: Weights, name: str, states: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = states - states.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON)
    found: NDArray[np.float64] = centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return found
