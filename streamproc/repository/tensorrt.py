"""TensorRT: how a plan is built from a graph, inside the server's own container."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from streamproc.engines.base import TensorInfo

__all__ = ["SCRIPT_FILE", "PlanInput", "build_script", "trtexec_command"]

SCRIPT_FILE = "build_plan.sh"
_FLAGS = {"fp16": ("--fp16",), "int8": ("--int8", "--fp16")}

_SCRIPT = """\
#!/bin/sh
# Builds model.plan from model.onnx, both in this script's folder. A plan fits one version of TensorRT and one kind of
# GPU: run this inside the container of the server that will load it, on the machine with its GPU. For example:
#   docker exec SERVER /models/{name}/{version}/{script}
# TENSORRT_MAJOR=10 states the version of TensorRT where trtexec does not tell it; TRTEXEC names another trtexec.
set -eu

folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
trtexec=${{TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}}
if [ ! -x "$trtexec" ]; then
    echo "there is no trtexec here ($trtexec): run this inside the Triton container, or set TRTEXEC" >&2
    exit 1
fi

# The banner says, for example, "TensorRT v8603" (8.6.3) or "TensorRT v100300" (10.3.0).
number=$("$trtexec" --help 2>&1 | sed -n 's/.*\\[TensorRT v\\([0-9][0-9]*\\)\\].*/\\1/p' | head -n 1)
if [ -n "$number" ] && [ "$number" -ge 100000 ]; then
    major=$((number / 10000)) minor=$((number / 100 % 100)) patch=$((number % 100))
elif [ -n "$number" ]; then
    major=$((number / 1000)) minor=$((number / 100 % 10)) patch=$((number % 100))
else
    major=${{TENSORRT_MAJOR:?trtexec does not tell its version: set TENSORRT_MAJOR, for example to 10}}
    minor='' patch=''
fi

# From 11 on a network has the types that its graph has, and the flags for precision are gone.
if [ "$major" -le 10 ]; then
    precision='{flags}'
else
    precision=''
fi

new="$folder/.model.plan.$$"
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM
# shellcheck disable=SC2086  # precision holds several flags, or none
"$trtexec" --onnx="$folder/model.onnx" --saveEngine="$new" --skipInference $precision{shapes}
if [ ! -s "$new" ]; then
    echo "trtexec ended without a plan: see what it says above" >&2
    exit 1
fi
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 || true)
printf '{{"tensorrt_version": "%s", "compute_capability": "%s"}}\\n' \\
    "$major${{minor:+.$minor.$patch}}" "$capability" >"$folder/model.plan.json"
chmod 644 "$new"
mv -f "$new" "$folder/model.plan"
echo "$folder/model.plan is built; load or reload the model {name} now"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """What a plan is built for: the graph's ``image`` input, with the batch first (-1 where it is open), pictures of
    the largest batch, and whether the graph leaves any side of its input open. ``precision``: fp16, int8, or another
    word for the graph's own types."""

    image: TensorInfo
    max_batch: int
    is_open: bool
    precision: str


def build_script(name: str, version: int, wanted: PlanInput) -> str:
    """A shell script that builds the plan next to itself; it replaces an older plan only with a whole new one."""
    shapes = "".join(f" \\\n    {shlex.quote(option)}" for option in _shapes(wanted))
    flags = " ".join(_FLAGS.get(wanted.precision, ()))
    return _SCRIPT.format(name=name, version=version, script=SCRIPT_FILE, flags=flags, shapes=shapes)


def trtexec_command(wanted: PlanInput, *, tensorrt_major: int) -> str:
    """The command that builds a plan by hand, in the folder of model.onnx.

    >>> images = TensorInfo(name="images", dtype="uint8", shape=(1, 640, 640, 3))
    >>> wanted = PlanInput(image=images, max_batch=0, is_open=False, precision="fp16")
    >>> trtexec_command(wanted, tensorrt_major=10)
    'trtexec --onnx=model.onnx --saveEngine=model.plan --skipInference --fp16'
    """
    flags = _FLAGS.get(wanted.precision, ()) if tensorrt_major <= 10 else ()
    words = ("trtexec", "--onnx=model.onnx", "--saveEngine=model.plan", "--skipInference", *flags)
    return shlex.join([*words, *_shapes(wanted)])


def _shapes(wanted: PlanInput) -> list[str]:
    """The range of shapes to build for, where the graph leaves any open: trtexec refuses it for others. The best is the
    largest batch, which counts under load; smaller ones have time to spare."""
    if not wanted.is_open:
        return []
    first, *rest = wanted.image.shape
    batches = (1, wanted.max_batch, wanted.max_batch) if first < 0 else (first, first, first)
    return [
        f"--{which}Shapes={wanted.image.name}:{'x'.join(map(str, (batch, *rest)))}"
        for which, batch in zip(("min", "opt", "max"), batches, strict=True)
    ]
