"""What a transport benchmark found, in words, tables and plots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from streamproc.bench.page import Plot, Series, Table, render
from streamproc.bench.report import Comparison, Row, TransportReport

__all__ = ["agreement", "as_html", "comparison", "rows_table"]

_HEADER = (
    *("client", "transport", "input", "output", "batch", "conc.", "images/s", "req./s"),
    *("mean ms", "p50", "p90", "p95", "p99", "queue ms", "input", "infer", "output", "CPU ms", "failed"),
)


def rows_table(report: TransportReport) -> Table:
    """A row a measurement; ``-`` where the server counted nothing."""
    return Table(title="Every measurement", header=_HEADER, rows=tuple(map(_cells, report.rows)))


def comparison(one: Comparison) -> str:
    """How one way compares with a tutorial's client."""
    row = one.row
    return (
        f"{row.transport}, {row.input} to {row.output}, batch {row.batch}, concurrency {row.concurrency}: "
        f"{one.speedup:.2f} x the images/s of the tutorial's client, and 1/{one.cpu_saving:.1f} of its CPU an image"
    )


def agreement(found: int) -> str:
    """That both clients did the same work."""
    return f"both clients found the same {found} object(s) in the picture"


def as_html(report: TransportReport) -> str:
    """The report as a page."""
    subject = report.subject
    told = {
        "processor": f"{subject.processor}, {subject.cores} cores",
        "server": f"{subject.server}, {subject.device}, {subject.backend}",
        "models": ", ".join(f"{name} ({taken})" for name, taken in subject.models.items()),
        "precision": subject.precision,
        "picture": subject.picture,
    }
    best = _best(report.rows)
    parts: list[Table | Plot] = [
        *_compared(report),
        _bars("Images a second, the most of each way", "images/s", {name: row.images_per_s for name, row in best}),
        _bars("CPU time of the client", "ms an image", {name: row.cpu_ms_per_image for name, row in best}),
        _latencies(best),
        replace(rows_table(report), note="; ".join(report.notes)),
    ]
    return render("The way to the inference server", told, parts)


def _compared(report: TransportReport) -> list[Table]:
    rows = tuple(
        (
            *(one.row.transport, one.row.input, one.row.output, str(one.row.batch), str(one.row.concurrency)),
            *(f"{one.speedup:.2f}", f"{one.cpu_saving:.1f}"),
        )
        for one in report.comparisons
    )
    header = ("transport", "input", "output", "batch", "conc.", "times the images/s", "its CPU an image, times ours")
    note = "" if report.agreed is None else agreement(report.agreed)
    return [Table(title="Against a tutorial's client", header=header, rows=rows, note=note)] if rows else []


def _best(rows: Iterable[Row]) -> list[tuple[str, Row]]:
    """The fastest row of each way, under its name."""
    best: dict[str, Row] = {}
    for row in rows:
        name = "tutorial" if row.client == "tutorial" else f"{row.transport}\n{row.input} to {row.output}"
        if name not in best or row.images_per_s > best[name].images_per_s:
            best[name] = row
    return list(best.items())


def _bars(title: str, label: str, values: dict[str, float]) -> Plot:
    series = Series(name=label, x=tuple(map(float, range(len(values)))), y=tuple(values.values()))
    return Plot(title=title, x_label="", y_label=label, series=(series,), kind="bars", places=tuple(values))


def _latencies(best: list[tuple[str, Row]]) -> Plot:
    percentiles = (50.0, 90.0, 95.0, 99.0)
    series = tuple(
        Series(
            name=name.replace("\n", ", "),
            x=percentiles,
            y=(row.latency_ms.p50, row.latency_ms.p90, row.latency_ms.p95, row.latency_ms.p99),
        )
        for name, row in best
    )
    return Plot(title="Latency, of the fastest of each way", x_label="percentile", y_label="ms", series=series)


def _cells(row: Row) -> tuple[str, ...]:
    latency, server = row.latency_ms, row.server
    parts = None if server is None else (server.queue_ms, server.input_ms, server.infer_ms, server.output_ms)
    return (
        row.client,
        row.transport,
        row.input,
        row.output,
        str(row.batch),
        str(row.concurrency),
        f"{row.images_per_s:.1f}",
        f"{row.requests_per_s:.1f}",
        *(f"{value:.1f}" for value in (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99)),
        *(("-",) * 4 if parts is None else tuple(f"{value:.2f}" for value in parts)),
        f"{row.cpu_ms_per_image:.2f}",
        str(row.failed),
    )
