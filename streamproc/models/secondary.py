"""Which head reads a secondary model: as the configuration says, or as its outputs tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.errors import ModelError
from streamproc.models.heads import Classified, Embedded, Reader, TextRead
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.heads.ctc import Blank, CtcReader
from streamproc.models.heads.embedding import EmbeddingReader
from streamproc.models.metadata import names_in
from streamproc.models.spec import Head, recognise

if TYPE_CHECKING:  # a server that runs this has no configuration
    from streamproc.config.model import HeadKind as DetectorKind

__all__ = ["SecondaryHead", "SecondaryKind", "WantedHead", "recognise_secondary"]

_log = logging.getLogger(__name__)

SecondaryKind: TypeAlias = Literal["detector", "keypoints", "classifier", "ctc", "embedding"]
SecondaryHead: TypeAlias = Head | Reader[Classified] | Reader[TextRead] | Reader[Embedded]

_DETECTORS: Mapping[SecondaryKind, DetectorKind] = {"detector": "detector", "keypoints": "pose"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedHead:
    """What is known of a secondary model beside its tensors.

    ``kind``: None where its outputs are to tell. ``labels``: of a detector or classifier, before those in the model's
    metadata. ``top``: labels that a classifier gives at most. ``alphabet``: a text model's symbols in its own order,
    without the blank, which comes ``first`` or ``last`` of all; ``beam_width``: of its beam search, 1 reads greedily.
    """

    kind: SecondaryKind | None = None
    labels: tuple[str, ...] | None = None
    top: int = 1
    alphabet: Sequence[str] | None = None
    blank: Blank = "last"
    beam_width: int = 1


def recognise_secondary(info: ModelInfo, wanted: WantedHead) -> SecondaryHead:
    """The head that reads a model's outputs; the first output that fits counts.

    Where no kind is asked for, an alphabet makes it a text model; without one, a served model may say what it is, a
    flat output makes it a classifier if its classes have names, and all else is for :func:`.spec.recognise` to tell.

    Raises:
        ModelError: the outputs do not fit, or may be of several kinds.
    """
    kind = wanted.kind or _told_kind(info, wanted)
    if kind == "ctc":
        return _text_reader(info, wanted)
    if kind == "classifier":
        return _classifier(info, wanted)
    if kind == "embedding":
        return EmbeddingReader(_flat_output(info, "head: embedding").name)
    if wanted.kind is not None:
        return recognise(info, wanted.labels, kind=_DETECTORS[wanted.kind])
    try:
        return recognise(info, wanted.labels)
    except ModelError as exc:
        raise ModelError(f"{exc} If it reads text, write head: ctc with its alphabet.") from exc


def _told_kind(info: ModelInfo, wanted: WantedHead) -> SecondaryKind:
    if wanted.alphabet is not None:
        return "ctc"
    task = info.metadata.get("task")
    if task in ("ctc", "embedding"):  # as streamproc itself writes of a model that it has built
        return task  # type: ignore[return-value]  # narrowed by the line above
    flat = [tensor for tensor in info.outputs if _is_flat(tensor)]
    if len(flat) < len(info.outputs) or not flat:
        return "detector"
    if wanted.labels or names_in(info.name, info.metadata) or task == "classify":
        return "classifier"
    raise ModelError(
        f"model {info.name}: it may be a classifier or give embeddings: {_tensors(info)}, and its classes have no "
        "names. Write head: embedding, or head: classifier with labels."
    )


def _classifier(info: ModelInfo, wanted: WantedHead) -> ClassifierReader:
    tensor = _flat_output(info, "head: classifier")
    classes = max(tensor.shape[1:])
    labels = wanted.labels or names_in(info.name, info.metadata)
    if classes < 2:
        raise ModelError(
            f"model {info.name}: its output {tensor.name} {tensor.shape} holds one score, expected one for each of at "
            "least two classes. Export it with an output for the other class, too."
        )
    if labels is None:
        _log.warning("model %s: its %d classes have no names; set labels to name them", info.name, classes)
        labels = tuple(f"class{number}" for number in range(classes))
    if len(labels) != classes:
        raise ModelError(
            f"model {info.name}: its output {tensor.name} {tensor.dtype} {tensor.shape} holds {classes} classes, but "
            f"{len(labels)} are named ({', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''}). Correct labels."
        )
    return ClassifierReader(tensor.name, labels, top=wanted.top)


def _text_reader(info: ModelInfo, wanted: WantedHead) -> CtcReader:
    alphabet = wanted.alphabet
    if not alphabet:
        raise ModelError(
            f"model {info.name}: head: ctc needs to know what its outputs stand for. Write alphabet: with the "
            "characters in the model's order, without the blank."
        )
    symbols = len(alphabet) + 1
    for tensor in info.outputs:
        if len(tensor.shape) == 3 and symbols in tensor.shape[1:]:
            if tensor.shape[1] == tensor.shape[2]:
                _log.warning(
                    "model %s: its output %s is square: %s is taken for (batch, steps, symbols)",
                    *(info.name, tensor.name, tensor.shape),
                )
            return CtcReader(
                tensor.name,
                alphabet,
                blank=wanted.blank,
                symbols_first=tensor.shape[2] != symbols,
                beam_width=wanted.beam_width,
            )
    raise ModelError(
        f"model {info.name}: the alphabet has {len(alphabet)} symbols, so with the blank one side of an output must be "
        f"{symbols}: expected (batch, {symbols}, steps) or (batch, steps, {symbols}), but it has {_tensors(info)}. "
        "Correct alphabet: it has every symbol once, in the model's order, a space if the model has one, but no blank."
    )


def _flat_output(info: ModelInfo, wanted: str) -> TensorInfo:
    for tensor in info.outputs:
        if _is_flat(tensor):
            return tensor
    raise ModelError(
        f"model {info.name}: {wanted} needs an output (batch, n), but it has {_tensors(info)}. Correct head, or export "
        "the model with such an output."
    )


def _is_flat(tensor: TensorInfo) -> bool:
    """Whether it holds one vector a picture: (batch, n), or the same with sides of 1."""
    return len(tensor.shape) >= 2 and sum(side != 1 for side in tensor.shape[1:]) <= 1


def _tensors(info: ModelInfo) -> str:
    return "outputs " + ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in info.outputs)
