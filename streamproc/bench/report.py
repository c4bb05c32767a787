"""What a transport benchmark found, for people, spreadsheets and programs."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from streamproc.bench.load import Latency, Load
from streamproc.bench.server import Counters, ServerTimes

__all__ = ["Comparison", "Row", "Subject", "TransportReport", "as_csv", "as_json", "make_row"]

SCHEMA = "streamproc.bench.transport/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement. ``client``: streamproc's, or a tutorial's.

    ``transport`` and ``input`` (the type of the model's input) say how pictures travelled, ``output`` whether the model
    gives raw values or the boxes that are left after suppression. A request is one batch, and ``concurrency`` of them
    were under way at every moment. ``latency_ms`` is from a decoded picture to its detections. ``cpu_ms_per_image`` is
    of the client's process alone, user + system. ``failed``: requests that the server turned away.
    """

    client: Literal["streamproc", "tutorial"]
    transport: str
    input: str
    output: Literal["raw", "boxes"]
    batch: int
    concurrency: int
    images_per_s: float
    requests_per_s: float
    latency_ms: Latency
    server: ServerTimes | None
    cpu_ms_per_image: float
    requests: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was measured: this machine, the server, and the models with the types of their inputs."""

    processor: str
    cores: int
    server: str
    device: str
    backend: str
    precision: str
    models: Mapping[str, str]
    picture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The fastest way of its kind against a tutorial's client with one request at a time.

    ``rounds``: (ours, theirs), measured anew and in turns, as one measurement on a machine that does other things as
    well tells little. The figures are medians of the rounds' ratios.
    """

    rounds: tuple[tuple[Row, Row], ...]

    @property
    def row(self) -> Row:
        """One of ours, for what was measured."""
        return self.rounds[0][0]

    @property
    def speedup(self) -> float:
        """Times the images a second."""
        return statistics.median(ours.images_per_s / theirs.images_per_s for ours, theirs in self.rounds)

    @property
    def cpu_saving(self) -> float:
        """The tutorial's CPU time an image, as times of ours."""
        return statistics.median(theirs.cpu_ms_per_image / ours.cpu_ms_per_image for ours, theirs in self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportReport:
    """All of it; ``notes`` says what was left out, and why. ``agreed``: detections that both clients found, None
    without a baseline."""

    subject: Subject
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    agreed: int | None
    notes: tuple[str, ...]


def make_row(
    load: Load[Counters],
    *,
    client: Literal["streamproc", "tutorial"],
    transport: str,
    input: str,
    output: Literal["raw", "boxes"],
    batch: int,
    concurrency: int,
) -> Row:
    """A measurement of requests of ``batch`` pictures."""
    images = load.requests * batch
    return Row(
        client=client,
        transport=transport,
        input=input,
        output=output,
        batch=batch,
        concurrency=concurrency,
        images_per_s=images / load.wall_s,
        requests_per_s=load.requests / load.wall_s,
        latency_ms=load.latency,
        server=load.after.since(load.before),
        cpu_ms_per_image=load.cpu_s * 1e3 / images,
        requests=load.requests,
        failed=load.failed,
        seconds=load.wall_s,
    )


def as_json(report: TransportReport) -> str:
    """The report as JSON, schema ``streamproc.bench.transport/1``."""
    comparisons = [
        {
            "transport": one.row.transport,
            "input": one.row.input,
            "output": one.row.output,
            "batch": one.row.batch,
            "concurrency": one.row.concurrency,
            "speedup": one.speedup,
            "cpu_saving": one.cpu_saving,
            "rounds": [
                {
                    "images_per_s": [ours.images_per_s, theirs.images_per_s],
                    "cpu_ms_per_image": [ours.cpu_ms_per_image, theirs.cpu_ms_per_image],
                }
                for ours, theirs in one.rounds
            ],
        }
        for one in report.comparisons
    ]
    content = {
        "schema": SCHEMA,
        **asdict(report.subject),
        "rows": [asdict(row) for row in report.rows],
        "comparisons": comparisons,
        "agreed": report.agreed,
        "notes": report.notes,
    }
    return json.dumps(content, indent=2)


def as_csv(report: TransportReport) -> str:
    """The rows as CSV with a header; empty where the server counted nothing."""
    rows = [_flat(row) for row in report.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    flat = asdict(row)
    latency, server = flat.pop("latency_ms"), flat.pop("server")
    parts = ServerTimes.__slots__
    return (
        flat
        | {f"latency_{name}_ms": value for name, value in latency.items()}
        | {f"server_{part}": None if server is None else server[part] for part in parts}
    )
