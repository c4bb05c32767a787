"""What an overload benchmark found, as tables and sentences for people, JSON for programs, and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from streamproc.bench.figures_page import ages_over_time, distribution, memory_over_time
from streamproc.bench.overload import FAIR_SPREAD, OverloadReport, Probe
from streamproc.bench.page import Plot, Series, Table, render

__all__ = ["as_html", "as_json", "probe_line", "promises_table", "sentence", "shares_table"]

SCHEMA = "streamproc.bench.overload/1"


def probe_line(probe: Probe) -> str:
    """One attempt to saturate the machine in one line."""
    came = f"{probe.cameras} cameras: {probe.offered_fps:.1f} frames/s came"
    return f"{came}, {probe.inferred_fps:.1f} images/s were inferred"


def sentence(report: OverloadReport) -> str:
    """What was asked for, and what came of it."""
    ages = report.figures.ages.summary()
    return (
        f"{report.cameras} cameras send {report.offered_fps:.0f} frames/s, {report.plan.times:g} times the "
        f"{report.capacity_fps:.0f} images/s that this machine infers: {report.figures.published_fps:.0f} are "
        f"published, age p50 {_ms(ages['p50'])} ms, p95 {_ms(ages['p95'])} ms, p99 {_ms(ages['p99'])} ms, "
        f"max {_ms(ages['max'])} ms"
    )


def promises_table(report: OverloadReport) -> Table:
    """What was promised, and whether it was kept."""
    growth, p99_ms = report.growth, report.figures.ages.percentile(99)
    spreads = ", ".join(f"{100 * group.spread:.1f} %" for group in report.groups if group.cameras > 1) or "–"
    before, after = growth.age_p95_ms
    rows = (
        (
            "fresh: p99 age within the budget",
            f"{_ms(p99_ms)} of {report.max_age_ms:g} ms",
            report.is_fresh,
        ),
        (f"fair: equal priorities within {100 * FAIR_SPREAD:.0f} %", spreads, report.is_fair),
        (
            "steady: ages do not grow, nor does memory",
            f"p95 {_ms(before)} → {_ms(after)} ms, {growth.rss_mb[0]:.0f} → {growth.rss_mb[1]:.0f} MB",
            growth.is_steady,
        ),
        ("nothing vanishes: the sums of every camera close", _books(report), not report.open_books),
    )
    return Table(
        title="What is promised",
        header=("promise", "found", "kept"),
        rows=tuple((name, found, "yes" if kept else "NO") for name, found, kept in rows),
        note="Steady: the first third of the measured time against the last.",
    )


def _books(report: OverloadReport) -> str:
    if report.open_books:
        return "; ".join(f"{name} lacks {dict(missing)}" for name, missing in report.open_books.items())
    dropped = ", ".join(f"{reason} {count}" for reason, count in report.totals["dropped"].items())
    return f"{report.totals['received']} received, {report.totals['published']} published, {dropped or 'none dropped'}"


def shares_table(report: OverloadReport) -> Table:
    """A row a priority: what its cameras got."""
    lowest = report.groups[0]
    rows = tuple(
        (
            f"{group.priority:g}",
            str(group.cameras),
            f"{group.mean_fps:.2f}",
            f"{100 * group.spread:.1f} %",
            f"{group.priority / lowest.priority:.2f}",
            f"{group.mean_fps / lowest.mean_fps:.2f}" if lowest.mean_fps else "–",
        )
        for group in report.groups
    )
    return Table(
        title="Who got how much",
        header=("priority", "cameras", "FPS each", "spread", "weight ratio", "rate ratio"),
        rows=rows,
        note="Spread: highest less lowest, of the mean. A camera never gets more than it sends.",
    )


def as_json(report: OverloadReport) -> str:
    """The report as JSON, schema ``streamproc.bench.overload/1``.

    ``figures`` are those of :class:`~streamproc.bench.measured.Figures`; ``groups`` has one object a priority;
    ``growth`` pairs of the first and last third; ``totals`` and ``open_books`` are of the whole run; ``kept`` says of
    each promise whether it was.
    """
    content = asdict(report)
    plan, sends = content.pop("plan"), content.pop("sends")
    content["figures"]["ages"] = {"summary_ms": report.figures.ages.summary(), "bins": report.figures.ages.bins}
    kept = {
        "fresh": report.is_fresh,
        "fair": report.is_fair,
        "steady": report.growth.is_steady,
        "closed": not report.open_books,
    }
    content |= {"camera_count": content.pop("cameras"), "cameras": sends, "kept": kept}
    return json.dumps({"schema": SCHEMA, **plan, **content}, indent=2)


def as_html(report: OverloadReport) -> str:
    """The report as a page."""
    figures = report.figures
    parts: list[Table | Plot] = [
        promises_table(report),
        shares_table(report),
        ages_over_time(figures, "Age over time", report.max_age_ms),
        distribution({"published": figures}),
        _rates(report),
        memory_over_time(figures),
    ]
    return render(f"{report.plan.times:g} times the load", subject(report), parts)


def subject(report: OverloadReport) -> Mapping[str, str]:
    """What was measured, for people."""
    told = {
        "Machine": f"{report.processor}, {report.cores} cores",
        "Model": report.model,
        "Engine": ", ".join(f"{key} {value}" for key, value in report.engine.items()),
        "Cameras": f"{report.cameras}: " + ", ".join(dict.fromkeys(report.sends.values())),
        "Load": f"{report.offered_fps:.0f} frames/s, where {report.capacity_fps:.0f} images/s are inferred at most",
        "Trial": f"{report.plan.warm_up} s of warm-up, {report.plan.seconds} s that count; "
        f"workers: {report.plan.workers}",
        "Notes": "; ".join(report.notes),
    }
    return {name: value for name, value in told.items() if value}


def _rates(report: OverloadReport) -> Plot:
    """What every camera published, those of a priority in one colour."""
    names = list(report.figures.cameras)
    series = []
    for group in report.groups:
        members = [name for name in names if report.priorities[name] == group.priority]
        series.append(
            Series(
                name=f"priority {group.priority:g}",
                x=tuple(float(names.index(name) + 1) for name in members),
                y=tuple(report.figures.cameras[name].fps for name in members),
            )
        )
    return Plot(
        title="Rate of every camera", x_label="camera", y_label="FPS published", series=tuple(series), kind="bars"
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
