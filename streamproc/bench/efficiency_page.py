"""What a pipeline adds to its engine, in words, tables and plots."""

from __future__ import annotations

from collections.abc import Callable

from streamproc.bench.efficiency import EfficiencyReport, Round
from streamproc.bench.page import Plot, Series, Table, render

__all__ = ["as_html", "stages_table", "subject_lines", "summary", "totals_table"]

_NAMES = {"postprocess": "post-process", "draw": "annotate + encode"}


def subject_lines(report: EfficiencyReport) -> dict[str, str]:
    """What was measured: names and values."""
    subject = report.subject
    # A transport also tells at length why it is not a better one.
    told = {key: str(value).partition(", because")[0] for key, value in subject.engine.items() if key != "kind"}
    engine = ", ".join(f"{key} {value}" for key, value in told.items())
    way = subject.way
    return {
        "engine": f"{subject.engine['kind']}: {engine}",
        "processor": f"{subject.processor}, {subject.cores} cores",
        "model": subject.model,
        "bare engine's best way": f"batch {way.batch}, {way.concurrency} under way at every moment",
        "cameras": f"{subject.cameras}, as fast as they go: {', '.join(subject.files)}",
        "rounds": f"{len(report.rounds)}, interleaved; medians",
    }


def totals_table(report: EfficiencyReport) -> Table:
    """A row a part, a column a round, and the medians."""
    parts: dict[str, Callable[[Round], float]] = {
        "decode only, frames/s": lambda one: one.decoding.frames_per_s,
        "bare engine, images/s": lambda one: one.engine.images_per_s,
        "pipeline, frames/s": lambda one: one.pipeline.frames_per_s,
        "pipeline : bare engine": lambda one: one.ratio,
        "decode only, CPU ms a frame": lambda one: one.decoding.cpu_ms,
        "bare engine, CPU ms an image": lambda one: one.engine.cpu_ms,
        "pipeline, CPU ms a frame": lambda one: one.pipeline.cpu_ms,
        "CPU ms a frame beyond both": lambda one: one.beyond_ms,
    }
    if report.rounds[0].annotated is not None:
        parts["with annotated video, frames/s"] = lambda one: one.annotated.frames_per_s if one.annotated else 0.0
    rows = []
    for name, figure in parts.items():
        median, every = report.median(figure), [figure(one) for one in report.rounds]
        digits = 3 if "pipeline :" in name else 2 if "ms" in name else 1
        rows.append((name, *(f"{value:.{digits}f}" for value in every), f"{median:.{digits}f}"))
    header = ("", *(f"round {number + 1}" for number in range(len(report.rounds))), "median")
    return Table(title="Speed and processor time", header=header, rows=tuple(rows))


def stages_table(report: EfficiencyReport) -> Table:
    """Where the pipeline's processor time goes."""
    plain, annotated = _stages(report)
    rows = tuple(
        (_NAMES.get(stage, stage), *(f"{part[stage]:.2f}" if stage in part else "-" for part in (plain, annotated)))
        for stage in annotated or plain
    )
    total = ("together", *(f"{sum(part.values()):.2f}" if part else "-" for part in (plain, annotated)))
    columns = 3 if annotated else 2
    return Table(
        title="Where the pipeline's processor time goes",
        header=("stage", "CPU ms a frame", "with annotated video")[:columns],
        rows=tuple(row[:columns] for row in (*rows, total)),
        note="User and system time. infer: the engine's own threads, which with a server only carry requests. "
        "publish: into a file of JSON lines. the rest: event loop, queues, and waking of threads.",
    )


def summary(report: EfficiencyReport) -> str:
    """The two figures that matter."""
    return (
        f"the pipeline reaches {report.median(lambda one: one.ratio):.3f} of the bare engine's images/s, and takes "
        f"{report.median(lambda one: one.beyond_ms):.2f} ms of processor time a frame beyond it and decoding"
    )


def as_html(report: EfficiencyReport) -> str:
    """The report as a page."""
    speeds = {
        "bare engine": report.median(lambda one: one.engine.images_per_s),
        "pipeline": report.median(lambda one: one.pipeline.frames_per_s),
    }
    speed = Series(name="frames/s", x=(0.0, 1.0), y=tuple(speeds.values()))
    parts = (
        Plot(
            title="Frames a second", x_label="", y_label="frames/s", series=(speed,), kind="bars", places=tuple(speeds)
        ),
        _stages_plot(report),
        totals_table(report),
        stages_table(report),
    )
    return render("What the pipeline adds to its engine", {"result": summary(report)} | subject_lines(report), parts)


def _stages(report: EfficiencyReport) -> tuple[dict[str, float], dict[str, float]]:
    return report.stages(lambda one: one.pipeline), report.stages(lambda one: one.annotated)


def _stages_plot(report: EfficiencyReport) -> Plot:
    plain, annotated = _stages(report)
    stages = list(annotated or plain)
    series = [
        Series(
            name=name,
            x=tuple(float(index) for index, stage in enumerate(stages) if stage in part),
            y=tuple(part[stage] for stage in stages if stage in part),
        )
        for name, part in (("pipeline", plain), ("with annotated video", annotated))
        if part
    ]
    return Plot(
        title="Processor time by stage",
        x_label="",
        y_label="CPU ms a frame",
        series=tuple(series),
        kind="bars",
        places=tuple(_NAMES.get(stage, stage) for stage in stages),
    )
