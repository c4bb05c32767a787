"""Tensors on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.engines.base import TensorInfo
from streamproc.errors import ConfigError
from streamproc.repository.tensors import parse_tensors

_SPELLED = {
    "string": "string",
    "bool": "bool",
    "uint8": "uint8",
    "int64": "int64",
    "fp16": "float16",
    "fp64": "float64",
}
_ITEMS = st.tuples(
    st.sampled_from(sorted(_SPELLED)), st.lists(st.just(-1) | st.integers(1, 5000), min_size=1, max_size=4)
)


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True), _ITEMS, min_size=1, max_size=4)
)
def test_whatever_is_spelled_is_read(items: dict[str, tuple[str, list[int]]]) -> None:
    text = ", ".join(f"{name}:{dtype}:{'x'.join(map(str, dims))}" for name, (dtype, dims) in items.items())
    assert parse_tensors(text, key="inputs") == tuple(
        TensorInfo(name=name, dtype=_SPELLED[dtype], shape=tuple(dims)) for name, (dtype, dims) in items.items()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found ''; expected name:dtype:dims"),
        ("text", "found 'text'; expected name:dtype:dims, such as image:uint8:-1x-1x3"),
        ("text:string:1,", "found ''; expected name:dtype:dims"),
        ("a b:bool:1", "found 'a b:bool:1'; expected a name of letters"),
        ("a:float32:1", "expected a dtype of string, bool, uint8, .*fp16, fp32, fp64"),
        ("a:fp32:", "expected dims such as"),
        ("a:fp32:0", "expected dims such as"),
        ("a:fp32:-2x3", "expected dims such as"),
        ("a:fp32:3,b:bool:1,a:bool:1", "found a 2 times; expected each name once"),
    ],
)
def test_what_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"models build: 1 problem\n  outputs: .*{said}"):
        parse_tensors(text, key="outputs")


def test_all_that_is_wrong_is_said() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tensors("a:b:c,d:fp32:0,e", key="inputs")
    assert len(caught.value.problems) == 3
