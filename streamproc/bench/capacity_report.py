"""What a capacity benchmark found, as tables and sentences for people, JSON for programs, and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from streamproc.bench.capacity import Answer, CapacityReport, Trial
from streamproc.bench.figures_page import ages_over_time, distribution
from streamproc.bench.page import Plot, Series, Table, render

__all__ = ["as_html", "as_json", "remedy", "sentence", "summary_table", "trial_line", "trials_table"]

SCHEMA = "streamproc.bench.capacity/1"


def trial_line(trial: Trial) -> str:
    """One trial in one line."""
    figures, ages = trial.figures, trial.figures.ages
    cameras = f"{trial.cameras} camera{'s' if trial.cameras > 1 else ''} at {trial.fps:g} FPS"
    return (
        f"{cameras}: {trial.verdict} | age p95 {_ms(ages.percentile(95))} ms, p99 {_ms(ages.percentile(99))} ms, "
        f"{100 * figures.share:.1f} % published, {figures.cpu_cores:.2f} cores (others {figures.others_cores:.2f}), "
        f"{figures.rss_mb:.0f} MB"
    )


def sentence(answer: Answer) -> str:
    """The answer for one rate: ``14 cameras at 24 FPS, p95 age 61 ms, p99 78 ms``."""
    if answer.held is None:
        return f"not even one camera at {answer.fps:g} FPS"
    ages = answer.held.figures.ages
    count = f"{answer.cameras} camera{'s' if answer.cameras > 1 else ''}"
    said = f"{count} at {answer.fps:g} FPS, p95 age {_ms(ages.percentile(95))} ms, p99 {_ms(ages.percentile(99))} ms"
    return said if answer.broke is not None else f"{said}; no more were tried"


def remedy(answer: Answer) -> str:
    """Why not even one camera is carried, and what can be done."""
    assert answer.broke is not None
    return (
        f"at {answer.fps:g} FPS with one camera, {answer.broke.verdict}. Use a smaller model or one in INT8, a faster "
        "machine or a GPU, a lower rate (--fps 5), a camera's smaller stream, or raise budget.max_frame_age_ms."
    )


def summary_table(report: CapacityReport) -> Table:
    """A row a rate: what is carried, and what it costs."""
    answers = [(answer, answer.held) for answer in report.answers]
    rows = tuple(_summary_row(answer, trial, report) for answer, trial in answers if trial is not None)
    gpu = ("GPU", "GPU a camera") if report.gpus else ()
    header = ("FPS", "cameras", "age ms p50", "p95", "p99", "max", "published", "cores", "cores a camera")
    memory = report.memory
    note = (
        ""
        if memory is None
        else f"Memory: {memory.base_mb:.0f} MB and {memory.per_camera_mb:.1f} MB for each camera, over all trials."
    )
    return Table(title="Cameras within the budget", header=(*header, "MB", "MB a camera", *gpu), rows=rows, note=note)


def _summary_row(answer: Answer, trial: Trial, report: CapacityReport) -> tuple[str, ...]:
    figures, ages = trial.figures, trial.figures.ages.summary()
    count = trial.cameras
    gpu: tuple[str, ...] = ()
    if report.gpus:
        busy = figures.gpu.busy if figures.gpu is not None else 0.0
        gpu = (f"{100 * busy:.0f} %", f"{100 * busy / count:.1f} %")
    return (
        f"{answer.fps:g}",
        str(count),
        *(_ms(ages[key]) for key in ("p50", "p95", "p99", "max")),
        f"{100 * figures.share:.1f} %",
        f"{figures.cpu_cores:.2f}",
        f"{figures.cpu_cores / count:.3f}",
        f"{figures.rss_mb:.0f}",
        f"{figures.rss_mb / count:.1f}",
        *gpu,
    )


def trials_table(report: CapacityReport) -> Table:
    """A row a trial, in the order in which they were made."""
    return Table(
        title="Trials",
        header=("FPS", "cameras", "age ms p50", "p95", "p99", "published", "cores", "others", "MB", "verdict"),
        rows=tuple(_trial_row(trial) for trial in report.trials),
        note="Others: cores that other work on this machine kept busy meanwhile. The less the better.",
    )


def _trial_row(trial: Trial) -> tuple[str, ...]:
    figures, ages = trial.figures, trial.figures.ages.summary()
    return (
        f"{trial.fps:g}",
        str(trial.cameras),
        *(_ms(ages[key]) for key in ("p50", "p95", "p99")),
        f"{100 * figures.share:.1f} %",
        f"{figures.cpu_cores:.2f}",
        f"{figures.others_cores:.2f}",
        f"{figures.rss_mb:.0f}",
        str(trial.verdict),
    )


def as_json(report: CapacityReport) -> str:
    """The report as JSON, schema ``streamproc.bench.capacity/1``.

    ``answers`` holds one object a rate: ``fps``, ``cameras`` (0: not even one), ``limited`` (no more were tried), and
    the trials ``held`` and ``broke``, or null. A trial has ``cameras``, ``fps``, ``holds``, ``reasons`` and
    ``figures``, those of :class:`~streamproc.bench.measured.Figures`. ``trials`` are all, in order.
    """
    content = {
        "schema": SCHEMA,
        "processor": report.processor,
        "cores": report.cores,
        "gpus": report.gpus,
        "model": report.model,
        "engine": dict(report.engine),
        "cameras": dict(report.sends),
        "max_age_ms": report.max_age_ms,
        **asdict(report.plan),
        "answers": [
            {
                "fps": answer.fps,
                "cameras": answer.cameras,
                "limited": answer.broke is None,
                "held": None if answer.held is None else _trial(answer.held),
                "broke": None if answer.broke is None else _trial(answer.broke),
            }
            for answer in report.answers
        ],
        "trials": [_trial(trial) for trial in report.trials],
        "memory": None if report.memory is None else asdict(report.memory),
        "notes": report.notes,
    }
    return json.dumps(content, indent=2)


def _trial(trial: Trial) -> dict[str, Any]:
    figures = asdict(trial.figures)
    figures["ages"] = {"summary_ms": trial.figures.ages.summary(), "bins": trial.figures.ages.bins}
    derived = {"published_fps": round(trial.figures.published_fps, 2), "share": round(trial.figures.share, 4)}
    return {
        "cameras": trial.cameras,
        "fps": trial.fps,
        "holds": trial.verdict.holds,
        "reasons": trial.verdict.reasons,
        "figures": figures | derived,
    }


def as_html(report: CapacityReport) -> str:
    """The report as a page."""
    held = [answer.held for answer in report.answers if answer.held is not None]
    parts: list[Table | Plot] = [summary_table(report), _against_cameras(report)]
    parts += [ages_over_time(one.figures, f"{_name(one)}: age over time", report.max_age_ms) for one in held[:1]]
    parts += [distribution({_name(one): one.figures for one in held}), trials_table(report)] if held else []
    return render("Cameras within the budget", subject(report), parts)


def subject(report: CapacityReport) -> Mapping[str, str]:
    """What was measured, for people."""
    engine = ", ".join(f"{key} {value}" for key, value in report.engine.items())
    sends = ", ".join(dict.fromkeys(report.sends.values()))
    told = {
        "Machine": f"{report.processor}, {report.cores} cores",
        "GPU": ", ".join(report.gpus),
        "Model": report.model,
        "Engine": engine,
        "Cameras": sends,
        "Budget": f"{report.max_age_ms:g} ms from capture to publishing, for 95 of 100 frames; at least 98 of 100 "
        "frames of every camera published",
        "Trials": f"{report.plan.warm_up} s of warm-up, {report.plan.seconds} s that count; "
        f"workers: {report.plan.workers}",
        "Notes": "; ".join(report.notes),
    }
    return {name: value for name, value in told.items() if value}


def _name(trial: Trial) -> str:
    return f"{trial.cameras} at {trial.fps:g} FPS"


def _against_cameras(report: CapacityReport) -> Plot:
    """p95 of the age against cameras, a line a rate; of several trials of as many cameras, each is a point."""
    return Plot(
        title="Age against cameras",
        x_label="cameras",
        y_label="age, p95, ms",
        series=tuple(
            _points(f"{answer.fps:g} FPS", [trial for trial in report.trials if trial.fps == answer.fps])
            for answer in report.answers
        ),
        limit=report.max_age_ms,
    )


def _points(name: str, trials: Sequence[Trial]) -> Series:
    points = sorted((trial.cameras, age) for trial in trials if (age := trial.figures.ages.percentile(95)) is not None)
    return Series(name=name, x=tuple(float(x) for x, _ in points), y=tuple(y for _, y in points))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
