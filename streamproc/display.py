"""What people see of a run: tables for a terminal, lines for a log. Renders only; the command line prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streamproc.monitor import CameraView
from streamproc.types import CameraState

__all__ = ["live_table", "report_table", "status_lines"]

_STYLES = {CameraState.ONLINE: "green", CameraState.CONNECTING: "yellow", CameraState.OFFLINE: "red"}
_MOST_LINES = 16
_PREDICTED = [("predicted", True)]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _drops(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items())) or "–"


def _table(title: str, columns: Iterable[tuple[str, bool]]) -> Table:
    table = Table(
        title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for name, right in columns:
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    return table


def live_table(views: Sequence[CameraView], *, elapsed_s: float) -> Table:
    """The state of every camera now; frames that were filled in are shown once there are any."""
    filled = any(view.tally.predicted for view in views)
    minutes, seconds = divmod(int(elapsed_s), 60)
    title = f"streamproc  {minutes}:{seconds:02d}"
    table = _table(
        title,
        [
            ("camera", False),
            ("state", False),
            ("in FPS", True),
            ("out FPS", True),
            ("published", True),
            *_PREDICTED[:filled],
            ("age ms p50", True),
            ("p99", True),
            ("dropped", False),
        ],
    )
    for view in views:
        state = view.status.state.value + (f" ({view.status.reason})" if view.status.reason else "")
        table.add_row(
            escape(view.status.camera),
            Text(state, style=_STYLES[view.status.state]),
            _rate(view.decoded_fps),
            _rate(view.published_fps),
            str(view.tally.published),
            *[str(view.tally.predicted)][:filled],
            _ms(view.ages.percentile(50)),
            _ms(view.ages.percentile(99)),
            _drops(view.tally.dropped),
        )
    return table


def status_lines(views: Sequence[CameraView]) -> list[str]:
    """The state of the cameras as plain lines, and of all together where there are more than a screen holds."""
    lines = [
        f"{view.status.camera}: {view.status.state.value}"
        + (f" ({view.status.reason})" if view.status.reason else "")
        + f", {view.decoded_fps:.1f} FPS in, {view.published_fps:.1f} FPS out, {view.tally.published} published, "
        + (f"{view.tally.predicted} predicted, " if view.tally.predicted else "")
        + f"age p50 {_ms(view.ages.percentile(50))} ms p99 {_ms(view.ages.percentile(99))} ms, "
        + f"dropped: {_drops(view.tally.dropped)}"
        for view in views
        if len(views) <= _MOST_LINES or view.status.state is not CameraState.ONLINE
    ]
    if len(views) > _MOST_LINES:
        online = sum(view.status.state is CameraState.ONLINE for view in views)
        total_fps = sum(view.published_fps for view in views)
        lines.append(f"{online} of {len(views)} cameras online, {total_fps:.1f} FPS out in all")
    return lines


def report_table(report: Mapping[str, Any]) -> Table:
    """The end-of-run table: where every frame went, and how many were filled in if any were."""
    filled = report["totals"]["predicted"] > 0
    table = _table(
        f"{report['wall_s']:.1f} s, {report['cpu_s']:.1f} s CPU, {report['batches']['count']} batches",
        [
            ("camera", False),
            ("received", True),
            ("decoded", True),
            ("inferred", True),
            ("published", True),
            *_PREDICTED[:filled],
            ("FPS", True),
            ("age ms p50", True),
            ("p95", True),
            ("p99", True),
            ("dropped", False),
        ],
    )
    rows = dict(report["cameras"])
    if len(rows) > 1:
        rows["all"] = report["totals"]
    for name, row in rows.items():
        if name == "all":
            table.add_section()
        ages = row["age_ms"]
        table.add_row(
            escape(name),
            *(str(row[key]) for key in ("received", "decoded", "inferred", "published")),
            *[str(row["predicted"])][:filled],
            _rate(row["fps"]),
            *(_ms(ages[key]) for key in ("p50", "p95", "p99")),
            _drops(row["dropped"]),
        )
    return table
