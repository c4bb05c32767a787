"""Class names as exporters write them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import ModelError
from streamproc.models.metadata import names_in


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'person', 1: 'traffic light'}", ("person", "traffic light")),
        ("{1: 'b', 0: 'a'}", ("a", "b")),
        ('{"0": "person", "1": "car"}', ("person", "car")),
        ("['a', 'b']", ("a", "b")),
        ('["it\'s"]', ("it's",)),
        ("{}", None),
    ],
)
def test_names(text: str, names: tuple[str, ...] | None) -> None:
    assert names_in("m", {"names": text}) == names


@pytest.mark.parametrize(("text", "names"), [("person traffic_light", ("person", "traffic light")), ("", None)])
def test_labels_of_openvino(text: str, names: tuple[str, ...] | None) -> None:
    assert names_in("m", {"labels": text}) == names


def test_no_names() -> None:
    assert names_in("m", {"task": "detect"}) is None


@pytest.mark.parametrize(
    "text",
    ["", "person", "{0: 'a', 2: 'b'}", "{'x': 'a'}", "[1, 2]", "5", "{0: 'a'", "(" * 10_000, "__import__('os')"],
)
def test_names_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ModelError, match=r"model m: the class names in its metadata cannot be read.*Set model\.labels"):
        names_in("m", {"names": text})


@given(st.lists(st.text(max_size=20), min_size=1, max_size=20))
def test_round_trip(names: list[str]) -> None:
    assert names_in("m", {"names": repr(dict(enumerate(names)))}) == tuple(names)
