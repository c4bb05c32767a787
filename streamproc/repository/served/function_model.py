"""A Triton model that calls a plain Python function: copied into a model repository as ``<version>/model.py``.

``function.json`` beside it names the module and the function, whose files are in ``function/``. The function takes one
array for each input of config.pbtxt, in their order, and returns one array, a tuple of arrays, or a mapping of arrays
by output name; with batching, each begins with a batch axis. It stands alone: Triton's Python imports no streamproc.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils  # within Triton only
from numpy.typing import NDArray

__all__ = ["TritonPythonModel"]

_SOURCES = "function"
_DTYPES: Mapping[str, Any] = {
    "TYPE_STRING": np.object_,
    "TYPE_BOOL": np.bool_,
    **{f"TYPE_{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("U", "") for bits in (8, 16, 32, 64)},
    **{f"TYPE_FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
}


class _ShapeError(ValueError):
    """An array that is not what config.pbtxt declares."""


class _Declared(NamedTuple):
    """A tensor of config.pbtxt; ``dims`` are those of one item, -1 for an open one."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...]

    @property
    def is_text(self) -> bool:
        return self.dtype.kind == "O"


class _Asked(NamedTuple):
    """One request: its place among those of one call of execute(), and its arrays."""

    place: int
    arrays: list[NDArray[Any]]


class TritonPythonModel:
    """One instance: a function, called once for all requests that come together."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Import the function; called by Triton once."""
        config = json.loads(args["model_config"])
        self._batches: bool = config["max_batch_size"] > 0
        self._inputs = [_declared(tensor) for tensor in config["input"]]
        self._outputs = [_declared(tensor) for tensor in config["output"]]
        self._folder = Path(args["model_repository"]) / args["model_version"]
        self._name, self._function = _load(self._folder)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; what fails in one is that one's answer."""
        responses: list[Any] = [None] * len(requests)
        batches: dict[Any, list[_Asked]] = {}
        for place, request in enumerate(requests):
            try:
                arrays = [self._read(request, declared) for declared in self._inputs]
            except _ShapeError as exc:
                responses[place] = self._refusal(exc)
                continue
            # Open sizes may differ from request to request: only equal ones make a batch.
            alike = tuple(array.shape[1:] for array in arrays) if self._batches else place
            batches.setdefault(alike, []).append(_Asked(place, arrays))
        for batch in batches.values():
            for place, response in self._answers(batch, several=len(batches) > 1):
                responses[place] = response
        return responses

    def _read(self, request: Any, declared: _Declared) -> NDArray[Any]:
        array: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, declared.name).as_numpy()
        rows = array.shape[0] if self._batches and array.ndim else None
        _check(array, declared, rows, f"input {declared.name}")
        return array

    def _answers(self, batch: list[_Asked], *, several: bool) -> Iterator[tuple[int, Any]]:
        """All of them by one call; if that fails, each by its own, so that only those that are bad fail.

        Triton copies what is answered when execute() has returned: where there are ``several`` calls before that, a
        function may use an array of its own again.
        """
        outputs = self._together(batch) if len(batch) > 1 else None
        if outputs is None:
            for asked in batch:
                yield asked.place, self._alone(asked, copied=several or len(batch) > 1)
            return
        start = 0
        for asked in batch:
            stop = start + len(asked.arrays[0])
            yield asked.place, self._response([array[start:stop] for array in outputs], copied=several)
            start = stop

    def _together(self, batch: list[_Asked]) -> list[NDArray[Any]] | None:
        columns = zip(*(asked.arrays for asked in batch), strict=True)
        try:
            return self._call([np.concatenate(column) for column in columns])
        except (Exception, SystemExit):  # noqa: BLE001 - whatever a stranger's function does; told when called alone
            return None

    def _alone(self, asked: _Asked, *, copied: bool) -> Any:
        try:
            return self._response(self._call(asked.arrays), copied=copied)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - the same; the instance lives on
            return self._refusal(exc)

    def _call(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The function's outputs in the order of config.pbtxt, each checked."""
        given = _in_order(self._function(*arrays), [declared.name for declared in self._outputs])
        rows = len(arrays[0]) if self._batches else None
        return [_output(value, declared, rows) for value, declared in zip(given, self._outputs, strict=True)]

    def _response(self, arrays: list[NDArray[Any]], *, copied: bool) -> Any:
        kept = [array.copy() for array in arrays] if copied else arrays
        tensors = [pb_utils.Tensor(out.name, array) for out, array in zip(self._outputs, kept, strict=True)]
        return pb_utils.InferenceResponse(tensors)

    def _refusal(self, exc: BaseException) -> Any:
        if isinstance(exc, _ShapeError):
            said = str(exc)
        else:
            said = f"{type(exc).__name__}: {exc}{_where(exc, self._folder / _SOURCES)}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{self._name}: {said}"))


def _declared(tensor: Mapping[str, Any]) -> _Declared:
    dims = tuple(int(side) for side in tensor["dims"])
    return _Declared(tensor["name"], np.dtype(_DTYPES[tensor["data_type"]]), dims)


def _load(folder: Path) -> tuple[str, Callable[..., Any]]:
    """The function that function.json names, and what it is called in messages."""
    named = json.loads((folder / "function.json").read_text(encoding="utf-8"))
    name = f"{named['module']}:{named['function']}"
    sys.dont_write_bytecode = True  # the repository is not ours to write into
    sys.path.insert(0, str(folder / _SOURCES))
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(named["module"]), named["function"])
    except (Exception, SystemExit) as exc:
        place = _where(exc, folder / _SOURCES)
        raise pb_utils.TritonModelException(
            f"{name} cannot be imported in Triton's Python: {type(exc).__name__}: {exc}{place}"
        ) from exc
    return name, function


def _where(exc: BaseException, sources: Path) -> str:
    """The last line of the user's own files on the way to an error."""
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if frame.filename.startswith(f"{sources}/")]
    return f" ({Path(frames[-1].filename).relative_to(sources)}, line {frames[-1].lineno})" if frames else ""


def _in_order(given: Any, names: Sequence[str]) -> Sequence[Any]:
    """What a function has returned as one value for each output."""
    if isinstance(given, Mapping):
        if set(given) != set(names):
            found = ", ".join(map(str, given)) or "nothing"
            raise _ShapeError(f"it returned {found}; expected the outputs {', '.join(names)}")
        return [given[name] for name in names]
    values = given if isinstance(given, tuple) else (given,)
    if len(values) != len(names):
        count = "1 array" if len(values) == 1 else f"{len(values)} arrays"
        raise _ShapeError(f"it returned {count}; expected {len(names)}, for the outputs {', '.join(names)}")
    return values


def _output(value: Any, declared: _Declared, rows: int | None) -> NDArray[Any]:
    what = f"output {declared.name}"
    if value is None:
        raise _ShapeError(f"{what}: expected an array, found None")
    array = np.asarray(value)
    if declared.is_text:
        array = _as_bytes(array, what)
    _check(array, declared, rows, what)
    return np.ascontiguousarray(array)


def _as_bytes(array: NDArray[Any], what: str) -> NDArray[np.object_]:
    """Text of any kind as objects of bytes, which is what Triton passes on."""
    result = np.empty(array.shape, np.object_)
    for place, item in np.ndenumerate(array):
        if not isinstance(item, str | bytes):
            raise _ShapeError(f"{what}: expected bytes or text, found {type(item).__name__}")
        result[place] = item.encode() if isinstance(item, str) else bytes(item)
    return result


def _check(array: NDArray[Any], declared: _Declared, rows: int | None, what: str) -> None:
    """Hold an array against what is declared; ``rows`` items, None without batching."""
    shape = declared.dims if rows is None else (rows, *declared.dims)
    fits = array.ndim == len(shape) and all(side in (-1, own) for side, own in zip(shape, array.shape, strict=True))
    if array.dtype != declared.dtype or not fits:
        expected = _told(declared.is_text, declared.dtype, shape)
        found = _told(array.dtype.kind in "OSU", array.dtype, array.shape)
        raise _ShapeError(f"{what}: expected {expected}, found {found}")


def _told(is_text: bool, dtype: np.dtype[Any], shape: Sequence[int]) -> str:
    sides = ", ".join("any" if side < 0 else str(side) for side in shape)
    return f"{'string' if is_text else dtype} ({sides})"
