"""Plots of what trials came to."""

from __future__ import annotations

from collections.abc import Mapping

from streamproc.bench.measured import Figures
from streamproc.bench.page import Plot, Series
from streamproc.bench.samples import Ages

__all__ = ["ages_over_time", "distribution", "memory_over_time"]

_STEPS = 25  # bars of a distribution: wider than the bins that ages are counted in


def ages_over_time(figures: Figures, title: str, max_age_ms: float) -> Plot:
    """Percentiles of the age, second by second, warm-up included."""
    return Plot(
        title=title,
        x_label="seconds",
        y_label="age, ms",
        series=tuple(_percentile(figures, key) for key in ("p50", "p95", "p99")),
        limit=max_age_ms,
    )


def _percentile(figures: Figures, key: str) -> Series:
    points = [(one.at_s, age) for one in figures.timeline if (age := one.age_ms[key]) is not None]
    return Series(name=key, x=tuple(x for x, _ in points), y=tuple(y for _, y in points))


def memory_over_time(figures: Figures) -> Plot:
    """Resident memory, second by second, warm-up included."""
    points = [(one.at_s, one.rss_mb) for one in figures.timeline]
    series = Series(name="resident", x=tuple(x for x, _ in points), y=tuple(y for _, y in points))
    return Plot(title="Memory over time", x_label="seconds", y_label="MB", series=(series,))


def distribution(trials: Mapping[str, Figures]) -> Plot:
    """How the ages of each trial are spread, in per cent of its frames."""
    top_ms = max((ages.percentile(99.9) or 0.0 for ages in (one.ages for one in trials.values())), default=0.0)
    return Plot(
        title="Distribution of ages",
        x_label="age, ms",
        y_label="% of frames",
        series=tuple(_shares(name, figures.ages, top_ms / _STEPS) for name, figures in trials.items()),
        kind="bars" if len(trials) == 1 else "line",
    )


def _shares(name: str, ages: Ages, step_ms: float) -> Series:
    """Shares of ages in steps of equal width; the last holds all that is beyond."""
    counts = [0] * _STEPS
    for age_ms, count in ages.bins:
        counts[min(_STEPS - 1, int(age_ms / step_ms) if step_ms else 0)] += count
    total = max(1, ages.count)
    middles = tuple(round((index + 0.5) * step_ms, 3) for index in range(_STEPS))
    return Series(name=name, x=middles, y=tuple(100 * count / total for count in counts))
