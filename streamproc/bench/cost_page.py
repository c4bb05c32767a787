"""What images cost, in tables and bars."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from streamproc.bench.cost import CostReport, CostRow
from streamproc.bench.page import Plot, Series, Table, render

__all__ = ["as_html", "cost_table"]


def cost_table(report: CostReport) -> Table:
    """A row a model and precision."""
    through = "the whole pipeline" if report.video else "the bare engine"
    rows = tuple(
        (
            report.machine,
            row.model,
            row.precision,
            f"{row.ms:.2f}",
            *((f"{statistics.median(row.engine_ms):.2f}",) if report.video else ()),
            f"{report.price_per_hour:g}",
            f"{report.million(row):.3f}",
        )
        for row in report.rows
    )
    return Table(
        title="Milliseconds an image, and the price of a million",
        header=(
            *("machine", "model", "precision", "ms an image"),
            *(("ms in the bare engine",) if report.video else ()),
            *(f"{report.currency} an hour", f"{report.currency} a million images"),
        ),
        rows=rows,
        note=f"Through {through}, with as much at once as makes it fastest: the machine's time for an image, not "
        f"how long one takes. Medians of {len(report.rows[0].engine_ms)} round(s).",
    )


def as_html(report: CostReport) -> str:
    """The report as a page."""
    subject = {"machine": report.machine, "price": f"{report.price_per_hour:g} {report.currency} an hour"}
    if report.video:
        subject["video"] = report.video
    prices = _bars(report, "The price of a million images", report.currency, report.million)
    times = _bars(report, "The machine's time for an image", "ms", lambda row: row.ms)
    return render("What images cost", subject, (cost_table(report), prices, times))


def _bars(report: CostReport, title: str, label: str, figure: Callable[[CostRow], float]) -> Plot:
    """A group a model, a colour a precision."""
    models = list(dict.fromkeys(row.model for row in report.rows))
    precisions = dict.fromkeys(row.precision for row in report.rows)
    series = [
        Series(
            name=precision,
            x=tuple(float(models.index(row.model)) for row in report.rows if row.precision == precision),
            y=tuple(figure(row) for row in report.rows if row.precision == precision),
        )
        for precision in precisions
    ]
    return Plot(title=title, x_label="", y_label=label, series=tuple(series), kind="bars", places=tuple(models))
