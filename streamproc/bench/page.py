"""A benchmark's findings as a page for a browser: one file, with nothing to load from anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from streamproc.bench.plots import COLOURS, Plot, Series, as_svg, colour

__all__ = ["Plot", "Series", "Table", "render"]

_LONG = 60  # characters, of what has a line of its own
_NUMBER = re.compile(r"[-+]?[\d,.]+( ?(%|x|×))?|[-–]?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows as long as the header; ``note`` stands beneath them."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"table {self.title!r}: expected {len(self.header)} cells a row, got {len(row)}")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns are of numbers, to be set to the right."""
        return tuple(
            all(_NUMBER.fullmatch(row[index]) for row in self.rows) and any(row[index] for row in self.rows)
            for index in range(len(self.header))
        )


def render(title: str, subject: Mapping[str, str], parts: Sequence[Table | Plot]) -> str:
    """A whole page, also readable as XML. ``subject`` says what was measured: names and values."""
    told = "".join(_fact(name, value) for name, value in subject.items())
    drawn = [_table(one) if isinstance(one, Table) else _plot(one, f"p{index}") for index, one in enumerate(parts)]
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n" + (f"<dl>{told}</dl>\n" if told else "") + "\n".join(drawn) + "\n</main>\n"
        "</body>\n</html>\n"
    )


def _fact(name: str, value: str) -> str:
    kind = ' class="long"' if len(value) > _LONG else ""
    return f"<div{kind}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def _table(table: Table) -> str:
    numeric = table.numeric
    head = _cells("th", table.header, numeric)
    body = "".join(f"<tr>{_cells('td', row, numeric)}</tr>\n" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>\n' if table.note else ""
    return (
        f'<section>\n<h2>{escape(table.title)}</h2>\n<div class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n{note}</section>"
    )


def _cells(tag: str, cells: tuple[str, ...], numeric: tuple[bool, ...]) -> str:
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))


def _plot(plot: Plot, name: str) -> str:
    drawing = '<p class="note">Nothing was measured.</p>' if plot.is_empty else as_svg(plot, name)
    return f"<section>\n<h2>{escape(plot.title)}</h2>\n<figure>\n{_legend(plot)}{drawing}\n</figure>\n</section>"


def _legend(plot: Plot) -> str:
    entries = [(one.name, f"background: {colour(index)}") for index, one in enumerate(plot.series)]
    if len(entries) == 1 and plot.limit is None:
        return ""  # the title and the axes say it
    if plot.limit is not None:
        entries.append(
            (f"limit: {plot.limit:g}", "border-top: 2px dashed var(--limit); height: 0; vertical-align: 0.27rem")
        )
    items = "".join(f'<li><i style="{style}"></i>{escape(name)}</li>' for name, style in entries)
    return f"<ul>{items}</ul>\n"


# Colours that people with any colour vision tell apart, after Wong, Nature Methods 8, 441 (2011); lighter in the dark.
_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#6b7280")
_DARK = ("#5aa9e6", "#ff8c42", "#2ec4a0", "#e5a3c8", "#f2c14e", "#9ad1f5", "#b794d6", "#a3acb9")
assert len(_LIGHT) == len(_DARK) == COLOURS


def _series(colours: tuple[str, ...]) -> str:
    return " ".join(f"--series-{index}: {value};" for index, value in enumerate(colours))


_STYLE = f"""
:root {{
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16202c; --ink-soft: #56616f; --line: #dfe4ea; --limit: #c0392b;
  {_series(_LIGHT)}
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --page: #11161d; --card: #19202a; --ink: #e8edf3; --ink-soft: #9aa6b5; --line: #2c3643; --limit: #ff7b6b;
    {_series(_DARK)}
  }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
h1 {{ margin: 0 0 1.25rem; font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.015em; }}
h2 {{ margin: 0 0 0.9rem; font-size: 1.08rem; line-height: 1.3; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 0.9rem 1.75rem;
  margin: 0 0 1.75rem; }}
.long {{ grid-column: 1 / -1; }}
dt {{ color: var(--ink-soft); font-size: 0.82rem; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
section {{ margin: 0 0 1.25rem; padding: 1.25rem 1.4rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }}
.wide {{ overflow-x: auto; }}
table {{ width: 100%; border-collapse: collapse; font-size: 0.92rem; }}
th, td {{ padding: 0.42rem 0.9rem 0.42rem 0; text-align: left; vertical-align: baseline; }}
th:last-child, td:last-child {{ padding-right: 0; }}
th {{ color: var(--ink-soft); font-weight: 500; }}
tbody tr {{ border-top: 1px solid var(--line); }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.note {{ margin: 0.8rem 0 0; color: var(--ink-soft); font-size: 0.88rem; }}
figure {{ margin: 0; }}
ul {{ display: flex; flex-wrap: wrap; gap: 0.25rem 1.2rem; margin: 0 0 0.6rem; padding: 0; list-style: none;
  font-size: 0.88rem; }}
li i {{ display: inline-block; width: 0.8rem; height: 0.8rem; margin-right: 0.45rem; border-radius: 2px;
  vertical-align: -0.06rem; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font-family: inherit !important; }}
@media print {{ section {{ break-inside: avoid; }} }}
"""
