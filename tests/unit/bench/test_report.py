"""A report as JSON and CSV, and what it compares with what."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

import pytest

from streamproc.bench.load import Latency, Load
from streamproc.bench.report import Comparison, Row, Subject, TransportReport, as_csv, as_json, make_row
from streamproc.bench.server import Counters, ServerTimes

LATENCY = Latency(mean=5.0, p50=4.0, p90=6.0, p95=7.0, p99=9.0)
SUBJECT = Subject(
    processor="a processor",
    cores=2,
    server="Triton 2.51.0",
    device="CPU",
    backend="python openvino",
    precision="auto",
    models={"net": "uint8"},
    picture="street.jpg, 64x32",
)


def row(client: Literal["streamproc", "tutorial"] = "streamproc", **changes: Any) -> Row:
    values: dict[str, Any] = {
        "transport": "system",
        "input": "uint8",
        "output": "raw",
        "batch": 2,
        "concurrency": 1,
        "images_per_s": 80.0,
        "requests_per_s": 40.0,
        "latency_ms": LATENCY,
        "server": ServerTimes(queue_ms=0.1, input_ms=0.2, infer_ms=20.0, output_ms=0.3),
        "cpu_ms_per_image": 1.0,
        "requests": 120,
        "failed": 0,
        "seconds": 3.0,
    }
    return Row(client=client, **(values | changes))


TUTORIAL = row("tutorial", transport="none", input="float32", batch=1, images_per_s=20.0, cpu_ms_per_image=24.0)


def report(*rows: Row) -> TransportReport:
    compared = Comparison(rounds=((row(), TUTORIAL),))
    notes = ("one was left out",)
    return TransportReport(subject=SUBJECT, rows=rows, comparisons=(compared,), agreed=5, notes=notes)


def test_rows_count_pictures_where_a_load_counts_requests() -> None:
    before = Counters(((0, 10),) * 4)
    after = Counters(((5_000_000, 20), (10_000_000, 20), (200_000_000, 20), (20_000_000, 20)))
    load = Load(requests=30, failed=1, wall_s=3.0, cpu_s=0.24, latency=LATENCY, before=before, after=after)
    made = make_row(load, client="streamproc", transport="system", input="uint8", output="raw", batch=8, concurrency=2)
    assert (made.requests_per_s, made.images_per_s) == (10.0, 80.0)
    assert made.cpu_ms_per_image == pytest.approx(1.0)
    assert made.server == ServerTimes(queue_ms=0.5, input_ms=1.0, infer_ms=20.0, output_ms=2.0)


def test_a_server_that_counts_nothing_tells_nothing() -> None:
    same = Counters(((7, 3),) * 4)
    assert same.since(same) is None


def test_json_has_everything() -> None:
    told = json.loads(as_json(report(TUTORIAL, row())))
    assert told["schema"] == "streamproc.bench.transport/1"
    assert told["processor"] == "a processor"
    assert told["models"] == {"net": "uint8"}
    assert told["notes"] == ["one was left out"]
    assert [one["client"] for one in told["rows"]] == ["tutorial", "streamproc"]
    assert told["rows"][1]["latency_ms"] == {"mean": 5.0, "p50": 4.0, "p90": 6.0, "p95": 7.0, "p99": 9.0}
    assert told["rows"][1]["server"] == {"queue_ms": 0.1, "input_ms": 0.2, "infer_ms": 20.0, "output_ms": 0.3}
    assert told["comparisons"] == [
        {
            "transport": "system",
            "input": "uint8",
            "output": "raw",
            "batch": 2,
            "concurrency": 1,
            "speedup": 4.0,
            "cpu_saving": 24.0,
            "rounds": [{"images_per_s": [80.0, 20.0], "cpu_ms_per_image": [1.0, 24.0]}],
        }
    ]
    assert told["agreed"] == 5


def test_csv_has_a_line_a_row() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(report(TUTORIAL, row(server=None))))))
    assert [line["client"] for line in lines] == ["tutorial", "streamproc"]
    assert lines[0]["latency_p99_ms"] == "9.0"
    assert lines[0]["server_queue_ms"] == "0.1"
    assert lines[1]["server_queue_ms"] == ""
    assert set(lines[0]) == set(lines[1])
    assert not any("{" in value for line in lines for value in line.values())


def test_a_comparison_is_the_median_of_its_rounds() -> None:
    """One round in which the machine did other things changes nothing."""
    disturbed = row(images_per_s=10.0, cpu_ms_per_image=3.0)
    compared = Comparison(rounds=((disturbed, TUTORIAL), (row(), TUTORIAL), (row(images_per_s=90.0), TUTORIAL)))
    assert compared.speedup == 4.0
    assert compared.cpu_saving == 24.0
