"""A page with tables and plots: well-formed, with nothing to load, and whatever names say is text."""

from __future__ import annotations

import math
import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.bench.page import Plot, Series, Table, render

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>alert('1')</script> & $x^2$ \"quoted\" _{_"
LINE = Series(name="p95", x=(1.0, 2.0, 3.0), y=(20.0, 30.0, 90.0))
TABLE = Table(title="Rows", header=("model", "ms"), rows=(("yolov8n", "12.05"), ("yolov8s", "30.1")), note="A note.")


def plot(*series: Series, **changes: object) -> Plot:
    values: dict[str, object] = {"title": "Ages", "x_label": "cameras", "y_label": "ms", "series": series}
    return Plot(**(values | changes))  # type: ignore[arg-type]


def page(*parts: Table | Plot, title: str = "A page") -> ElementTree.Element:
    return ElementTree.fromstring(render(title, {"processor": "AMD & sons"}, parts))


def words(root: ElementTree.Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def test_everything_is_on_the_page() -> None:
    found = page(TABLE, plot(LINE, limit=100.0))
    assert [heading.text for heading in found.iter(f"{HTML}h2")] == ["Rows", "Ages"]
    assert len(list(found.iter(f"{SVG}svg"))) == 1
    for text in ("A page", "AMD & sons", "yolov8n", "12.05", "A note.", "p95", "limit: 100", "cameras"):
        assert text in words(found)


def test_nothing_is_loaded_from_anywhere() -> None:
    text = render("A page", {}, [TABLE, plot(LINE), plot(LINE, kind="bars")])
    assert not re.findall(r"<(script|link|img|iframe|object)\b", text)
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert "url(http" not in text
    assert "@import" not in text


@pytest.mark.parametrize("kind", ["line", "bars"])
def test_names_are_text(kind: str) -> None:
    series = Series(name=NASTY, x=(0.0, 1.0), y=(1.0, 2.0))
    found = page(
        Table(title=NASTY, header=(NASTY,), rows=((NASTY,),), note=NASTY),
        plot(series, LINE, title=NASTY, x_label=NASTY, y_label=NASTY, places=(NASTY, "second"), kind=kind),
        title=NASTY,
    )
    assert not list(found.iter(f"{HTML}script"))
    assert words(found).count(" ".join(NASTY.split())) == 11  # the page's title also stands in its head


def test_ids_are_those_of_one_page() -> None:
    found = page(plot(LINE, kind="bars"), plot(LINE), plot(LINE))
    ids = Counter(name for element in found.iter() if (name := element.get("id")))
    assert ids
    assert max(ids.values()) == 1
    links = [value for element in found.iter() for key, value in element.items() if key.endswith("href")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", ElementTree.tostring(found, "unicode"))) <= set(ids)


def test_colours_are_the_pages() -> None:
    """Those that hold the places of colours are gone, and each series has its own, as in the legend."""
    text = render("A page", {}, [plot(*(LINE,) * 3, limit=50.0)])
    assert "#0101" not in text
    assert "#01020" not in text
    drawn = text[text.index("<svg") :]
    assert {f"var(--series-{index})" in drawn for index in range(3)} == {True}
    assert "var(--limit)" in drawn


@pytest.mark.parametrize(
    "series",
    [
        (),
        (Series(name="nothing", x=(), y=()),),
        (Series(name="unknown", x=(1.0,), y=(math.nan,)),),
    ],
)
def test_a_plot_of_nothing_says_so(series: tuple[Series, ...]) -> None:
    found = page(plot(*series))
    assert not list(found.iter(f"{SVG}svg"))
    assert "Nothing was measured." in words(found)


@pytest.mark.parametrize("kind", ["line", "bars"])
def test_an_empty_series_beside_a_full_one(kind: str) -> None:
    found = page(plot(Series(name="nothing", x=(), y=()), LINE, kind=kind))
    assert len(list(found.iter(f"{SVG}svg"))) == 1


def test_numbers_stand_to_the_right() -> None:
    table = Table(title="", header=("a", "b", "c", "d"), rows=(("1.5", "x", "-", "1,000"), ("12 %", "2", "0.3", "")))
    assert table.numeric == (True, False, True, True)


def test_an_empty_table_has_no_numbers() -> None:
    assert Table(title="", header=("a",), rows=()).numeric == (False,)


def test_rows_and_series_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="table 'T': expected 2 cells a row, got 1"):
        Table(title="T", header=("a", "b"), rows=(("1",),))
    with pytest.raises(ValueError, match="series 'S': expected as many y as x, got 1 and 2"):
        Series(name="S", x=(1.0, 2.0), y=(1.0,))


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40))
def test_any_text_is_kept(text: str) -> None:
    table = Table(title=text, header=(text,), rows=((text,),), note="")
    assert page(table).findtext(f".//{HTML}td") == text
