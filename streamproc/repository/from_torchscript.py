"""The contents of a served classifier, made from a TorchScript file, which the server's own PyTorch runs."""

from __future__ import annotations

import shutil
import zipfile
from importlib import resources
from pathlib import Path

from streamproc.engines.base import UNIT_RGB, TensorInfo
from streamproc.errors import ModelError
from streamproc.labels import resolve_labels
from streamproc.repository.config_pbtxt import MODEL_FILES
from streamproc.repository.contents import Contents, origin_of
from streamproc.repository.heads import PictureHead
from streamproc.repository.options import DEFAULT_BATCH, BuildOptions

__all__ = ["TORCHSCRIPT_SUFFIXES", "check_torchscript", "from_torchscript"]

TORCHSCRIPT_SUFFIXES = (".pt", ".pth", ".torchscript")

_PICTURES, _SCORES = "images", "scores"  # tensors have no names in TorchScript
_WEIGHTS = "model.pt"


def from_torchscript(path: Path, name: str, options: BuildOptions) -> Contents:
    """A served classifier from a TorchScript file; the options tell its size and classes, which the file does not.

    PyTorch is not needed here. What the network gives is held against the classes when a server loads it.

    Raises:
        ModelError: it is no TorchScript file, or too few classes are named.
    """
    check_torchscript(path)
    labels = resolve_labels(options.labels)
    assert labels is not None  # or the options would have been refused
    assert options.size is not None
    if len(labels) < 2:
        raise ModelError(f"model {name}: expected the names of two classes or more, found {', '.join(labels)}.")
    max_batch = DEFAULT_BATCH if options.max_batch is None else options.max_batch
    batch = -1 if max_batch else 1
    width, height = options.size
    return Contents(
        kind="classifier",
        labels=labels,
        inputs=(TensorInfo(name=_PICTURES, dtype="uint8", shape=(batch, height, width, 3)),),
        outputs=(TensorInfo(name=_SCORES, dtype="float32", shape=(batch, len(labels))),),
        max_batch=max_batch,
        parameters=_for_clients(labels, options) | _for_the_model(options),
        origin=origin_of(path, "the model's own"),
        notes=_notes(options),
        write=lambda folder, _: _write(folder, path),
    )


def check_torchscript(path: Path) -> None:
    """Tell a network with its code from bare weights, by what lies in the archive.

    Raises:
        ModelError: there is no such file, or it is not TorchScript.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except OSError as exc:
        raise ModelError(f"model file {path}: it cannot be read: {exc}. Correct the path.") from exc
    except zipfile.BadZipFile:
        names = []
    # torch.jit.save writes NAME/code/ and NAME/constants.pkl, torch.save neither (torch/csrc/jit/serialization).
    if not any(name.partition("/")[2] == "constants.pkl" for name in names):
        raise ModelError(
            f"model file {path}: it is no TorchScript, as it holds no code: weights alone, or another kind. Save the "
            "network with torch.jit.script(network).save(FILE) or torch.jit.trace, or export it to ONNX."
        )


def _for_clients(labels: tuple[str, ...], options: BuildOptions) -> dict[str, str]:
    assert options.size is not None
    width, height = options.size
    fit = "stretch" if options.fit == "auto" else options.fit
    return PictureHead(kind="classifier", labels=labels).metadata | {"imgsz": str([height, width]), "fit": fit}


def _for_the_model(options: BuildOptions) -> dict[str, str]:
    """What the served model reads; see there."""
    pixels = options.pixels
    mean, scale = (pixels.mean, pixels.scale or UNIT_RGB.scale) if pixels else (UNIT_RGB.mean, UNIT_RGB.scale)
    return {
        "color": pixels.color if pixels else UNIT_RGB.color,
        "mean": ",".join(map(str, mean)),
        "scale": ",".join(map(str, scale)),
        "threads": str(options.threads or 1),
    }


def _notes(options: BuildOptions) -> tuple[str, ...]:
    where = (
        "it runs on the GPU"
        if options.instance_kind == "gpu"
        else "it runs on the processor, with instance_kind gpu on a GPU"
    )
    return (f"the server's Python needs PyTorch; {where}",)


def _write(folder: Path, path: Path) -> None:
    served = resources.files("streamproc.repository") / "served" / "torchscript_model.py"
    (folder / MODEL_FILES["python"]).write_bytes(served.read_bytes())
    shutil.copyfile(path, folder / _WEIGHTS)
