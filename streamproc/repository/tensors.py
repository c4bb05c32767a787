"""Tensors as they are named on a command line: ``text:string:1,image:uint8:-1x-1x3``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from streamproc.engines.base import TensorInfo
from streamproc.errors import ConfigError, Problem

__all__ = ["parse_tensors"]

_DTYPES: Mapping[str, str] = {
    "string": "string",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)},
    **{f"fp{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DIMS = re.compile(r"(?:-1|[1-9][0-9]{0,8})(?:x(?:-1|[1-9][0-9]{0,8}))*")
_FORM = "name:dtype:dims, such as image:uint8:-1x-1x3"


def parse_tensors(text: str, *, key: str) -> tuple[TensorInfo, ...]:
    """The tensors of one item, without a batch; ``key`` names the option in messages.

    Each is name:dtype:dims, with commas between them. Dims are sizes with an ``x`` between them, -1 for an open one.

    Raises:
        ConfigError: all that is wrong, each with its remedy.

    >>> [str(tensor.shape) for tensor in parse_tensors("text:string:1,image:uint8:-1x-1x3", key="inputs")]
    ['(1,)', '(-1, -1, 3)']
    """
    parsed = [_parse(part.strip(), key) for part in text.split(",")]
    tensors = tuple(found for found in parsed if isinstance(found, TensorInfo))
    problems = [found for found in parsed if isinstance(found, Problem)]
    for name, count in Counter(tensor.name for tensor in tensors).items():
        if count > 1:
            found = f"{name} {count} times"
            problems.append(Problem(key=key, found=found, expected="each name once", remedy="Rename all but one."))
    if problems:
        raise ConfigError("models build", problems)
    return tensors


def _parse(part: str, key: str) -> TensorInfo | Problem:
    fields = part.split(":")
    if len(fields) != 3:
        remedy = "Write every tensor like that, with commas between them."
        return Problem(key=key, found=repr(part), expected=_FORM, remedy=remedy)
    name, dtype, dims = fields
    if not _NAME.fullmatch(name):
        expected = "a name of letters, digits, '_', '.' and '-'"
        return Problem(key=key, found=repr(part), expected=expected, remedy="Choose another name.")
    if dtype not in _DTYPES:
        expected = f"a dtype of {', '.join(_DTYPES)}"
        return Problem(key=key, found=repr(part), expected=expected, remedy="Choose one of these.")
    if not _DIMS.fullmatch(dims):
        expected = "dims such as 1, 224x224x3 or -1x4: sizes from 1, -1 for an open one"
        return Problem(key=key, found=repr(part), expected=expected, remedy="Correct the dims; leave the batch out.")
    return TensorInfo(name=name, dtype=_DTYPES[dtype], shape=tuple(map(int, dims.split("x"))))
