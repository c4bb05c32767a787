"""``streamproc bench``: figures of this machine, beside what they are to be compared with."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table

from streamproc.cli.terminal import EXIT_BAD_CONFIG, EXIT_FAILED, err, errors, fail, out, set_up_logging
from streamproc.config import EngineConfig

if TYPE_CHECKING:
    from streamproc.bench.report import Row, TransportReport
    from streamproc.bench.serving import Fused
    from streamproc.bench.transport import Plan, Transport
    from streamproc.triton_server.installation import ServerChoice

__all__ = ["bench"]

bench = typer.Typer(help="Measure what this machine does, and what it costs.", no_args_is_help=True)

_FILE, _SERVER, _OUTPUT = "A model file, with a server of its own", "A server that runs", "Output"
_TRANSPORTS = ("cuda", "system", "none")
_FUSED = ("none", "input", "all")
_MOST = 256
_LEFT = ("client", "transport", "input", "output")
_RIGHT = (
    "batch",
    "conc.",
    "images/s",
    "req./s",
    "mean ms",
    "p50",
    "p90",
    "p95",
    "p99",
    "queue ms",
    "input",
    "infer",
    "output",
    "CPU ms",
    "failed",
)


@bench.callback()
def _bench() -> None:
    pass  # with a callback, the only command keeps its name


@bench.command()
def transport(
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A YOLO model in ONNX, to build and to serve.",
            exists=True,
            dir_okay=False,
            rich_help_panel=_FILE,
        ),
    ] = None,
    use: Annotated[
        Literal["auto", "path", "docker", "wheel"],
        typer.Option(help="Which server; auto takes the first there is.", rich_help_panel=_FILE),
    ] = "auto",
    fused: Annotated[
        str,
        typer.Option(
            help="Of none (the model as it is), input (takes uint8 pictures), all (suppresses boxes as well).",
            rich_help_panel=_FILE,
        ),
    ] = "input,all",
    url: Annotated[str | None, typer.Option(help="grpc://HOST:8001", rich_help_panel=_SERVER)] = None,
    model: Annotated[str | None, typer.Option(help="The model's name there.", rich_help_panel=_SERVER)] = None,
    baseline_model: Annotated[
        str | None,
        typer.Option(
            help="The same network with FP32 input and raw output, for the tutorial's client; left out, --model.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="gRPC header; may be repeated.", rich_help_panel=_SERVER),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of authorities to trust, for grpcs://.",
            exists=True,
            dir_okay=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    transports: Annotated[
        str, typer.Option(help="Of cuda, system and none (within the requests); auto takes all that work.")
    ] = "auto",
    batch_sizes: Annotated[str, typer.Option(help="Pictures in one request.")] = "1,2,4,8,16",
    concurrency: Annotated[str, typer.Option(help="Requests under way at every moment.")] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(help="Of each measurement, after a warm-up.", min=0.1)] = 3.0,
    baseline: Annotated[bool, typer.Option(help="Measure a tutorial's client too.")] = True,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to look at; left out, a drawn 1920x1080 picture.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows here.", rich_help_panel=_OUTPUT)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything here.", rich_help_panel=_OUTPUT)
    ] = None,
) -> None:
    """Compare the ways in which pictures reach a Triton server: shared memory, or within the requests.

    Each row is the whole way from a decoded picture to its detections. The tutorial's client does the same with the
    same network: float letterbox, FP32 tensor within the request, raw output within the answer, a Python loop over it.
    """
    set_up_logging(logging.WARNING)
    if (onnx is None) == (url is None) or (url is None) != (model is None):
        fail("give either --onnx FILE, or --url and --model of a server that runs", EXIT_BAD_CONFIG)
    for option, path in (("--csv", csv), ("--json", json)):
        if path is not None and not path.absolute().parent.is_dir():
            fail(f"{option}: the folder of {path} does not exist; make it first", EXIT_BAD_CONFIG)
    variants = _words("--fused", fused, _FUSED)
    sizes, concurrencies = _numbers("--batch-sizes", batch_sizes), _numbers("--concurrency", concurrency)
    ways = None if transports == "auto" else _words("--transports", transports, _TRANSPORTS)
    engine = None if url is None else _engine(url, header, ca)
    with errors():
        from streamproc.bench.pictures import drawn_picture, read_picture
        from streamproc.bench.report import as_csv, as_json
        from streamproc.bench.transport import Plan, Target, measure_transport

        plan = Plan(
            transports=cast("tuple[Transport, ...] | None", ways),
            batch_sizes=sizes,
            concurrencies=concurrencies,
            seconds=seconds,
            picture=drawn_picture() if picture is None else read_picture(picture),
        )
        if onnx is not None:
            work = _measure_file(onnx, use, cast("tuple[Fused, ...]", variants), plan, baseline=baseline)
        else:
            assert engine is not None
            assert model is not None
            target = Target(engine=engine, models=(model,), baseline=(baseline_model or model) if baseline else None)
            work = measure_transport(target, plan, on_progress=_progress)
        report = asyncio.run(work)
    _show(report)
    _write("--csv", csv, as_csv(report))
    _write("--json", json, as_json(report))


async def _measure_file(
    path: Path, use: ServerChoice, variants: tuple[Fused, ...], plan: Plan, *, baseline: bool
) -> TransportReport:
    from streamproc.bench.serving import serve_file
    from streamproc.bench.transport import Target, measure_transport

    built: set[Fused] = {*variants, "none"} if baseline else set(variants)
    async with serve_file(
        path, sorted(built), max_batch=max(plan.batch_sizes), choice=use, on_progress=_progress
    ) as served:
        target = Target(
            engine=EngineConfig(kind="triton", url=served.url),
            models=tuple(served.names[variant] for variant in variants),
            baseline=served.names["none"] if baseline else None,
        )
        return await measure_transport(target, plan, on_progress=_progress)


def _engine(url: str, header: list[str] | None, ca: Path | None) -> EngineConfig:
    """The server as an engine's configuration has it; its own checks are those of the command line."""
    section = {"kind": "triton", "url": url, "headers": dict(_header(text) for text in header or ())}
    try:
        return EngineConfig.model_validate(section | ({} if ca is None else {"tls": {"ca": ca}}))
    except ValueError as error:
        said = str(error).partition("Value error, ")[2].partition(" [type=")[0]
        fail(f"--url, --header or --ca: {said}", EXIT_BAD_CONFIG, cause=error)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        fail("--header: expected NAME=VALUE, such as authorization='Bearer ...'", EXIT_BAD_CONFIG)
    return name.lower(), value


def _words(option: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Words separated by commas, each once."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in allowed:
            fail(
                f"{option}: found {word!r}; expected some of {', '.join(allowed)}, with commas between", EXIT_BAD_CONFIG
            )
    return words


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas, ascending, each once."""
    words = {word.strip() for word in text.split(",")}
    for word in words:
        if not (word.isascii() and word.isdigit() and 1 <= int(word) <= _MOST):
            fail(f"{option}: found {word!r}; expected numbers from 1 to {_MOST}, with commas between", EXIT_BAD_CONFIG)
    return tuple(sorted(map(int, words)))


def _write(option: str, path: Path | None, content: str) -> None:
    if path is None:
        return
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        fail(f"{option}: cannot write {path}: {error.strerror}", EXIT_FAILED, cause=error)


def _progress(text: str) -> None:
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _print(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _show(report: TransportReport) -> None:
    subject = report.subject
    models = ", ".join(f"{name} ({taken})" for name, taken in subject.models.items())
    _print(f"{subject.processor}, {subject.cores} cores; {subject.server}, {subject.device}, {subject.backend}")
    _print(f"{models}, precision {subject.precision}; {subject.picture}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _LEFT:
        table.add_column(column)
    for column in _RIGHT:
        table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(*_cells(row))
    out.print(table)
    for one in report.comparisons:
        row = one.row
        _print(
            f"{row.transport}, {row.input} to {row.output}, batch {row.batch}, concurrency {row.concurrency}: "
            f"{one.speedup:.2f} x the images/s of the tutorial's client, and 1/{one.cpu_saving:.1f} of its CPU an image"
        )
    if report.agreed is not None:
        _print(f"both clients found the same {report.agreed} object(s) in the picture")
    for note in report.notes:
        _print(f"note: {note}")


def _cells(row: Row) -> list[str]:
    latency, server = row.latency_ms, row.server
    parts = None if server is None else (server.queue_ms, server.input_ms, server.infer_ms, server.output_ms)
    return [
        row.client,
        row.transport,
        row.input,
        row.output,
        str(row.batch),
        str(row.concurrency),
        f"{row.images_per_s:.1f}",
        f"{row.requests_per_s:.1f}",
        *(f"{value:.1f}" for value in (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99)),
        *(("-",) * 4 if parts is None else (f"{value:.2f}" for value in parts)),
        f"{row.cpu_ms_per_image:.2f}",
        str(row.failed),
    ]
