"""What a model that is to be served tells: where objects are, or something of a whole picture."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, get_args

from streamproc.engines.base import ModelInfo
from streamproc.errors import ModelError
from streamproc.models.heads.classifier import ClassifierReader
from streamproc.models.heads.embedding import EmbeddingReader
from streamproc.models.secondary import WantedHead, recognise_secondary
from streamproc.models.spec import Head, recognise
from streamproc.repository.options import BuiltHead, PictureKind

__all__ = ["PictureHead", "ServedHead", "recognise_served"]

# What the metadata's "task" says: the exporter's own word for classifiers, and ours for what it does not know.
_TASKS: Mapping[PictureKind, str] = {"classifier": "classify", "ctc": "ctc", "embedding": "embedding"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureHead:
    """Of a model that says something of a whole picture, such as an object's crop.

    ``labels`` are a classifier's classes. Others have none: what a text model's outputs stand for, its client knows.
    """

    kind: PictureKind
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The kind of output, for people."""
        return self.kind

    @property
    def metadata(self) -> dict[str, str]:
        """What clients are told of it.

        >>> PictureHead(kind="classifier", labels=("red", "blue")).metadata
        {'task': 'classify', 'names': "{0: 'red', 1: 'blue'}"}
        """
        found = {"task": _TASKS[self.kind]}
        return found | ({"names": str(dict(enumerate(self.labels)))} if self.labels else {})


ServedHead: TypeAlias = Head | PictureHead


def recognise_served(info: ModelInfo, labels: tuple[str, ...] | None, kind: BuiltHead) -> ServedHead:
    """The head of a model: of the ``kind`` asked for, or else as its metadata and its outputs tell.

    Raises:
        ModelError: its outputs do not fit, or do not tell what they are.
    """
    if kind == "auto":
        kind = next((one for one, task in _TASKS.items() if task == info.metadata.get("task")), "auto")
    if kind in get_args(PictureKind):
        return _picture_head(info, labels, kind)  # type: ignore[arg-type]  # narrowed by the line above
    if kind != "auto":
        return recognise(info, labels, kind=kind)  # type: ignore[arg-type]  # what is left is of detectors
    try:
        return recognise(info, labels)
    except ModelError as exc:
        with suppress(ModelError):
            found = recognise_secondary(info, WantedHead(labels=labels))
            if isinstance(found, ClassifierReader):
                return PictureHead(kind="classifier", labels=found.labels)
        remedy = "If it looks at crops, say what it tells with --head classifier, ctc (texts) or embedding."
        raise ModelError(f"{exc} {remedy}") from exc


def _picture_head(info: ModelInfo, labels: tuple[str, ...] | None, kind: PictureKind) -> PictureHead:
    if kind == "ctc":  # whose alphabet its clients have, so that any table of scores will do
        if not any(len(tensor.shape) == 3 for tensor in info.outputs):
            found = ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in info.outputs)
            raise ModelError(
                f"model {info.name}: head: ctc needs an output (batch, symbols, steps) or (batch, steps, symbols), but "
                f"it has outputs {found}. Correct head, or export the model with such an output."
            )
        return PictureHead(kind=kind)
    reader = recognise_secondary(info, WantedHead(kind=kind, labels=labels))
    assert isinstance(reader, ClassifierReader | EmbeddingReader)
    return PictureHead(kind=kind, labels=reader.labels if isinstance(reader, ClassifierReader) else ())
