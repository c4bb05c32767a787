"""Plots of a benchmark's page, as SVG that takes its colours and fonts from the page around it."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "Plot", "Series", "as_svg", "colour"]

COLOURS = 8
"""Series that differ in colour; the page's style sheet says which, as ``--series-0`` and so on."""

_SIZE_IN = (9.2, 3.6)
_FEW_POINTS = 60  # up to which each is marked
_BARS_SHARE, _SLIM_SHARE = 0.8, 0.11  # of the way from one place to the next, and of the whole plot at most
# Nobody sees these: they stand for the page's own colours in what matplotlib writes.
_INK, _GRID, _LIMIT = "#010201", "#010202", "#010203"
_SERIES = tuple(f"#0101{index:02x}" for index in range(COLOURS))
_IN_THE_PAGE = {_INK: "var(--ink-soft)", _GRID: "var(--line)", _LIMIT: "var(--limit)"} | {
    hidden: f"var(--series-{index})" for index, hidden in enumerate(_SERIES)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one colour: as many ``y`` as ``x``, and maybe none. What is not finite is a gap."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r}: expected as many y as x, got {len(self.y)} and {len(self.x)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Series over a common x.

    ``limit`` is a dashed horizontal line, such as a budget. ``places`` names x = 0, 1, ... where bars stand for things
    rather than for numbers.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    kind: Literal["line", "bars"] = "line"
    limit: float | None = None
    places: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(math.isfinite(y) for one in self.series for y in one.y)


def colour(index: int) -> str:
    """The page's colour of a plot's series, in CSS."""
    return f"var(--series-{index % COLOURS})"


def as_svg(plot: Plot, name: str) -> str:
    """An ``<svg>`` element without title and legend, which are the page's.

    ``name`` comes before every id in it: ids are those of a whole page.
    """
    import matplotlib as mpl  # takes half a second
    from matplotlib.figure import Figure

    written = io.StringIO()
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    axes = figure.subplots()
    _draw_frame(axes, plot)
    (_draw_bars if plot.kind == "bars" else _draw_lines)(axes, plot.series)
    if plot.limit is not None:
        axes.axhline(plot.limit, color=_LIMIT, linestyle=(0, (5, 4)), linewidth=1.4)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(written.getvalue(), name)


def _draw_frame(axes: Axes, plot: Plot) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6, colors=_INK)
    # Names are text: what is between dollars would be taken for a formula.
    axes.set_xlabel(plot.x_label, color=_INK, parse_math=False)
    axes.set_ylabel(plot.y_label, color=_INK, parse_math=False)
    if plot.places:
        axes.set_xticks(range(len(plot.places)), plot.places, parse_math=False)
        axes.set_xlim(-0.5, len(plot.places) - 0.5)


def _draw_lines(axes: Axes, series: Sequence[Series]) -> None:
    for index, one in enumerate(series):
        axes.plot(
            one.x,
            one.y,
            color=_SERIES[index % COLOURS],
            linestyle="-" if index < COLOURS else "--",
            linewidth=1.8,
            marker="o" if len(one.x) <= _FEW_POINTS else "",
            markersize=4,
        )


def _draw_bars(axes: Axes, series: Sequence[Series]) -> None:
    """Side by side where several series have one at the same place."""
    sharing = {x: [index for index, one in enumerate(series) if x in one.x] for one in series for x in one.x}
    places = sorted(sharing)
    gap = min((right - left for left, right in itertools.pairwise(places)), default=1.0)
    beside = max(map(len, sharing.values()))
    width = gap * min(_BARS_SHARE / beside, len(places) * _SLIM_SHARE)
    for index, one in enumerate(series):
        shifts = [(sharing[x].index(index) - (len(sharing[x]) - 1) / 2) * width for x in one.x]
        at = [x + shift for x, shift in zip(one.x, shifts, strict=True)]
        axes.bar(at, one.y, width=width, color=_SERIES[index % COLOURS])


def _for_a_page(svg: str, name: str) -> str:
    """From a file to an element: colours of the page, ids of its own, a size that follows the page's width."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace(' id="', f' id="{name}-').replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    for hidden, shown in _IN_THE_PAGE.items():
        svg = svg.replace(hidden, shown)
    return svg.strip()
