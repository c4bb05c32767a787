"""The files that a configuration names: found, or refused with the places that were looked at."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

from streamproc.config.addresses import file_url_path
from streamproc.config.placeholder import filled_in
from streamproc.config.refusals import RefusedError

__all__ = [
    "Surroundings",
    "check_output_path",
    "find_camera_files",
    "find_directory",
    "find_file",
    "find_model",
]

_GLOB = re.compile(r"[*?\[]")
_MODEL_EXPECTED = {
    "openvino": "an .onnx file, or an OpenVINO .xml file with its .bin beside it",
    "onnxruntime": "an .onnx file",
}
_MODEL_REMEDIES = {
    ".pt": "These are PyTorch weights: export them to ONNX, and name the .onnx file.",
    ".pth": "These are PyTorch weights: export them to ONNX, and name the .onnx file.",
    ".engine": "This is a TensorRT engine, which fits one kind of GPU only: name the ONNX file it was built from.",
    ".plan": "This is a TensorRT engine, which fits one kind of GPU only: name the ONNX file it was built from.",
    ".bin": "These are the weights of an OpenVINO model: name the .xml file beside them.",
    ".xml": "OpenVINO models need engine.kind: openvino; for onnxruntime, name the model's .onnx file.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What validators need to know beyond their own key.

    ``folder`` holds the configuration file; ``engine_kind``, ``has_own_models`` (the engine takes its models from a
    repository, by name), ``needs_model_file`` (it reads one, or a repository is built from it) and ``cameras`` (how
    many) are read before validation, as is ``labels``, the class names where the configuration itself gives them.
    """

    folder: Path
    engine_kind: str
    has_own_models: bool
    needs_model_file: bool
    cameras: int
    labels: tuple[str, ...] | None


def _places(folder: Path) -> list[Path]:
    return list(dict.fromkeys([folder.resolve(), Path.cwd()]))


def _looked_in(text: str, folder: Path) -> str:
    """Where a relative path was searched; never the path itself, which may hold a secret."""
    if os.path.isabs(os.path.expanduser(text)):
        return "Correct the absolute path, or put the file there."
    names = ["next to the configuration ({})", "in the working directory ({})"]
    places = _places(folder)
    looked = [name.format(place) for name, place in zip(names, places, strict=False)]
    return f"Looked {' and '.join(looked)}: correct the path, or put the file there."


def _find(text: str, folder: Path) -> Path | None:
    """The first existing path, absolute: relative ones beside the configuration, then in the working directory."""
    path = os.path.expanduser(text)
    candidates = [os.path.join(place, path) for place in _places(folder)]  # an absolute path wins the join
    # os.path rather than pathlib: it answers False for names the system refuses (too long, a null byte)
    return next((Path(os.path.abspath(candidate)) for candidate in candidates if os.path.exists(candidate)), None)


def find_file(text: str, folder: Path, noun: str) -> Path:
    """An existing regular file, as an absolute path; ``noun`` (``a labels file``) goes into the message."""
    if not text.strip():
        raise RefusedError(expected=noun, remedy="Write a path, or leave the key out.")
    path = _find(text, folder)
    if path is None:
        raise RefusedError(expected=f"{noun} that exists", remedy=_looked_in(text, folder))
    if path.is_dir():
        raise RefusedError(found="a directory", expected=noun, remedy="Name a file inside it.")
    if not path.is_file():
        raise RefusedError(found="something that is no regular file", expected=noun, remedy="Name a regular file.")
    return path


def find_directory(text: str, folder: Path, noun: str) -> Path:
    """An existing directory, as an absolute path."""
    path = _find(text, folder) if text.strip() else None
    if path is None or not path.is_dir():
        found = "a file" if path is not None else None
        remedy = "Name the directory it is in." if path is not None else _looked_in(text, folder)
        raise RefusedError(found=found, expected=f"{noun}, a directory that exists", remedy=remedy)
    return path


def find_model(text: str, around: Surroundings) -> Path:
    """A model file that the configured engine reads."""
    expected = _MODEL_EXPECTED.get(around.engine_kind, _MODEL_EXPECTED["openvino"])
    if text == ".":  # what pathlib makes of empty text
        raise RefusedError(expected=expected, remedy="Write the path of the model's file.")
    suffix = Path(text).suffix.lower()
    if suffix != ".onnx" and not (suffix == ".xml" and around.engine_kind != "onnxruntime"):
        remedy = _MODEL_REMEDIES.get(suffix, "Name the model's .onnx file; the kind of a model is told by its suffix.")
        path = _find(text, around.folder)
        found = "a directory" if path is not None and path.is_dir() else None
        raise RefusedError(found=found, expected=expected, remedy=remedy)
    path = find_file(text, around.folder, "a model file")
    if suffix == ".xml" and not os.path.isfile(path.with_suffix(".bin")):
        remedy = "Copy the .bin file with the weights beside the .xml file; both have the same name."
        raise RefusedError(found="an .xml file without its .bin", expected=expected, remedy=remedy)
    return path


def find_camera_files(url: str, folder: Path) -> tuple[Path, ...]:
    """The video files behind a path, a ``file://`` address or a glob: absolute, sorted by name, at least one."""
    text = file_url_path(url)
    if not _GLOB.search(text) or _find(text, folder) is not None:  # a literal name may hold brackets
        return (_find_video(text, folder),)
    pattern = os.path.expanduser(text)
    for place in _places(folder):
        matches = glob.glob(pattern, root_dir=place, recursive=True)
        files = sorted(path for match in matches if (path := Path(os.path.abspath(place / match))).is_file())
        if files:
            return tuple(files)
    raise RefusedError(expected="a glob that matches at least one file", remedy=_looked_in(text, folder))


def _find_video(text: str, folder: Path) -> Path:
    path = _find(text, folder)
    if path is not None and path.is_dir():
        remedy = "Name one file in it, or all of them by a glob such as DIRECTORY/*.mp4."
        raise RefusedError(found="a directory", expected="a video file or a glob of video files", remedy=remedy)
    return find_file(text, folder, "a video file")


def check_output_path(text: str, *, example: str, suffixes: tuple[str, ...] = ()) -> str:
    """A file that will be written; ``{camera}`` is its one placeholder. Relative to the working directory.

    Directories on the way are made when the file is; what can be known now is refused now.
    """
    bare = filled_in(text, "a path")
    if not bare.strip() or "\0" in bare:
        raise RefusedError(expected="the path of a file to write", remedy=f"Write a path, such as {example}.")
    if suffixes and not bare.lower().endswith(suffixes):
        expected = f"a path that ends in {' or '.join(suffixes)}"
        raise RefusedError(expected=expected, remedy=f"Let the name end in {suffixes[0]}, such as {example}.")
    path = Path(os.path.abspath(os.path.expanduser(bare)))
    if os.path.isdir(path) or bare.endswith("/"):
        raise RefusedError(found="a directory", expected="the path of a file to write", remedy="Add a file name to it.")
    present = next(parent for parent in path.parents if os.path.exists(parent))
    if not present.is_dir():
        remedy = "A file stands where a directory is needed: choose another path, or move that file."
        raise RefusedError(expected="a path whose parents are directories", remedy=remedy)
    return os.path.expanduser(text)
