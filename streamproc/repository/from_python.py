"""The contents of a served model that calls a plain Python function: ``streamproc models build --python``."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

from streamproc.engines.base import TensorInfo
from streamproc.labels import resolve_labels
from streamproc.repository.build import BuiltModel, place
from streamproc.repository.config_pbtxt import MODEL_FILES
from streamproc.repository.contents import Contents, origin_of
from streamproc.repository.function import FUNCTION_FILE, Function, copy_function, find_function, parse_target
from streamproc.repository.options import DEFAULT_BATCH, BuildOptions, check_options

__all__ = ["build_python"]

_FUNCTION_FOLDER = "function"


def build_python(
    target: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], options: BuildOptions
) -> BuiltModel:
    """Build a served model around ``module:function``, with tensors of one item each.

    The function takes one array for each input, in their order, and returns one array, a tuple of arrays, or a mapping
    of arrays by the outputs' names. Unless ``options.max_batch`` is 0, every array begins with a batch axis, and
    requests that wait at the same time come as one batch. Strings are object arrays of bytes; they may be returned as
    bytes or text. One instance calls it, unless ``options.instances`` says otherwise, each in a process of its own.

    Raises:
        ConfigError: the target's form, or options that are of no use for a function.
        ModelError: the function cannot be found or imported, or does not fit; or the repository.
    """
    module, name = parse_target(target)
    options = replace(options, name=options.name or name)
    check_options(options, made_from="function")
    # A delay, though it be 0, asks for a queue: calls for whole batches are what a function gains from.
    queued = replace(options, instances=options.instances or 1, queue_delay_us=options.queue_delay_us or 0)
    return place(queued, lambda _: _contents(find_function(module, name, inputs=len(inputs)), inputs, outputs, queued))


def _contents(
    function: Function, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], options: BuildOptions
) -> Contents:
    labels = resolve_labels(options.labels) or ()
    max_batch = DEFAULT_BATCH if options.max_batch is None else options.max_batch
    parameters = {"names": str(dict(enumerate(labels)))} if labels else {}
    if function.description:
        parameters["description"] = function.description
    return Contents(
        kind=f"function {function}",
        labels=labels,
        inputs=_batched(inputs, max_batch),
        outputs=_batched(outputs, max_batch),
        max_batch=max_batch,
        parameters=parameters,
        origin=origin_of(function.file) | {"source": str(function)},
        warm_up=False,  # open sizes and strings have no black picture
        write=lambda folder, _: _write(folder, function, options.repository),
    )


def _batched(tensors: tuple[TensorInfo, ...], max_batch: int) -> tuple[TensorInfo, ...]:
    return tuple(replace(tensor, shape=(-1, *tensor.shape)) for tensor in tensors) if max_batch else tensors


def _write(folder: Path, function: Function, repository: Path) -> None:
    served = resources.files("streamproc.repository") / "served" / "function_model.py"
    (folder / MODEL_FILES["python"]).write_bytes(served.read_bytes())
    named = {"module": function.module, "function": function.name}
    (folder / FUNCTION_FILE).write_text(json.dumps(named) + "\n", encoding="utf-8")
    copy_function(function, folder / _FUNCTION_FOLDER, leave_out=repository)
