"""Existing TensorRT plans: what their files tell, and whether a server can load them.

TensorRT itself is not asked, as it is hardly ever on the machine that builds a repository. What is read of a plan's
header is what NVIDIA's ``trtexec --getPlanVersionOnly`` reads (TensorRT, samples/common/sampleEngines.cpp): the tag
``ftrt``, the serialization version, and, where that is 0, TensorRT's version in bytes 24 to 27.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamproc.errors import ModelError

__all__ = ["PLAN_SUFFIXES", "Plan", "check_plan", "copy_plan", "read_plan"]

PLAN_SUFFIXES = (".plan", ".engine", ".trt")

_TAG = b"ftrt"
_HEADER_BYTES = 28
_LARGEST_METADATA = 1 << 20  # what exporters write is some kilobytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan file. The plan starts at byte ``start``, after what an exporter may have put in front: ``metadata``.

    ``tensorrt_version`` as "10.3.0.26", None where the header's layout is not known. ``compute_capability`` of the GPU
    that it was built on, as "8.6": only a note of the builder's, beside the file, tells that.
    """

    path: Path
    start: int
    metadata: Mapping[str, Any]
    tensorrt_version: str | None
    compute_capability: str | None


def read_plan(path: Path) -> Plan:
    """Read the head of a plan, with or without the 4-byte length and the JSON that Ultralytics puts in front.

    Raises:
        ModelError: it cannot be read, or it is no TensorRT plan.
    """
    try:
        with path.open("rb") as file:
            start, metadata = 0, {}
            header = file.read(_HEADER_BYTES)
            if not header.startswith(_TAG) and len(header) >= 4:
                (length,) = struct.unpack_from("<I", header)
                if 2 <= length <= _LARGEST_METADATA:
                    file.seek(4)
                    start, metadata = 4 + length, _metadata(file.read(length))
                    header = file.read(_HEADER_BYTES)
    except OSError as exc:
        raise ModelError(f"plan {path}: it cannot be read: {exc}. Check the path.") from exc
    if len(header) < _HEADER_BYTES or not header.startswith(_TAG):
        raise ModelError(
            f"plan {path}: this is no TensorRT plan (it does not begin with 'ftrt', nor with an exporter's header and "
            "then that), or it is cut off. Copy it again, or build it from the ONNX file."
        )
    (layout,) = struct.unpack_from("<I", header, 4)
    version = ".".join(str(number) for number in header[24:28]) if layout == 0 else None
    note = path.with_name(path.name + ".json")
    told = _metadata(note.read_bytes()) if note.is_file() else {}
    return Plan(
        path=path,
        start=start,
        metadata=metadata,
        tensorrt_version=version,
        compute_capability=str(told.get("compute_capability") or "") or None,
    )


def copy_plan(plan: Plan, target: Path) -> None:
    """Write the plan alone, without what stands in front.

    Raises:
        ModelError: it cannot be copied.
    """
    try:
        with plan.path.open("rb") as source, target.open("wb") as copy:
            source.seek(plan.start)
            shutil.copyfileobj(source, copy, 1 << 20)
    except OSError as exc:
        raise ModelError(f"plan {plan.path}: it cannot be copied to {target}: {exc}. Check space and rights.") from exc


def check_plan(
    plan: Plan, *, tensorrt_version: str | None, compute_capability: str | None, built_on: str | None
) -> tuple[str, ...]:
    """Refuse a plan that the server cannot load; what could not be told comes back as notes.

    ``tensorrt_version`` and ``compute_capability`` are the server's, the latter asked of nvidia-smi where it is None;
    ``built_on`` is the capability that the plan was built on, where the user knows it.

    Raises:
        ModelError: another version of TensorRT, or another kind of GPU.
    """
    notes = []
    if tensorrt_version is None or plan.tensorrt_version is None:
        made = f"made by TensorRT {plan.tensorrt_version}" if plan.tensorrt_version else "of a version it does not tell"
        notes.append(f"the plan is {made}; whether the server has the same was not checked (give tensorrt_version)")
    elif not _same(plan.tensorrt_version, tensorrt_version):
        raise _unfit(plan, f"TensorRT {plan.tensorrt_version}", f"TensorRT {tensorrt_version}")
    own, theirs = built_on or plan.compute_capability, compute_capability or _capability_here()
    if own is None or theirs is None:
        unknown = "the plan was built on" if own is None else "the server has"
        notes.append(f"which GPU architecture {unknown} is not known, and was not checked")
    elif own != theirs:
        raise _unfit(plan, f"compute capability {own}", f"compute capability {theirs}")
    return tuple(notes)


def _same(one: str, other: str) -> bool:
    """Whether two versions agree in every part that both tell.

    >>> _same("10.3.0.26", "10.3"), _same("10.3.0.26", "10.5")
    (True, False)
    """
    return all(a == b for a, b in zip(one.split("."), other.split("."), strict=False))


def _unfit(plan: Plan, made: str, server: str) -> ModelError:
    return ModelError(
        f"plan {plan.path}: it was built for {made}, the server has {server}, and a plan fits one version and one kind "
        "of GPU only. Build it from the ONNX file with backend tensorrt, and run the script that this writes inside "
        "the server's own container."
    )


def _capability_here() -> str | None:
    """The first GPU's compute capability, where there is a driver to ask."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.strip().splitlines()[0].strip() if said.strip() else None


def _metadata(raw: bytes) -> dict[str, Any]:
    """A JSON object; empty where it is anything else."""
    try:
        told = json.loads(raw)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
