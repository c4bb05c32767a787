"""``streamproc bench transport``."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from streamproc.cli.bench.output import OUTPUT, HtmlFile, JsonFile, check_folders, progress, say, show_table, write
from streamproc.cli.terminal import EXIT_BAD_CONFIG, errors, fail, set_up_logging
from streamproc.config import EngineConfig

if TYPE_CHECKING:
    from streamproc.bench.report import TransportReport
    from streamproc.bench.serving import Fused
    from streamproc.bench.transport import Plan, Transport
    from streamproc.triton_server.installation import ServerChoice

__all__ = ["transport"]

_FILE, _SERVER = "A model file, with a server of its own", "A server that runs"
_TRANSPORTS = ("cuda", "system", "none")
_FUSED = ("none", "input", "all")
_MOST = 256

_Onnx = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A YOLO model in ONNX, to build and to serve.",
        exists=True,
        dir_okay=False,
        rich_help_panel=_FILE,
    ),
]
_Use = Annotated[
    Literal["auto", "path", "docker", "wheel"],
    typer.Option(help="Which server; auto takes the first there is.", rich_help_panel=_FILE),
]
_FusedWords = Annotated[
    str,
    typer.Option(
        help="Of none (the model as it is), input (takes uint8 pictures), all (suppresses boxes as well).",
        rich_help_panel=_FILE,
    ),
]
_Url = Annotated[str | None, typer.Option(help="grpc://HOST:8001", rich_help_panel=_SERVER)]
_Model = Annotated[str | None, typer.Option(help="The model's name there.", rich_help_panel=_SERVER)]
_BaselineModel = Annotated[
    str | None,
    typer.Option(
        help="The same network with FP32 input and raw output, for the tutorial's client; left out, --model.",
        rich_help_panel=_SERVER,
    ),
]
_Header = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="gRPC header; may be repeated.", rich_help_panel=_SERVER),
]
_Authorities = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of authorities to trust, for grpcs://.", exists=True, dir_okay=False, rich_help_panel=_SERVER
    ),
]
_TransportWords = Annotated[
    str, typer.Option(help="Of cuda, system and none (within the requests); auto takes all that work.")
]
_Picture = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What to look at; left out, a drawn 1920x1080 picture.")
]
_CsvFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the rows here.", rich_help_panel=OUTPUT)]


def transport(
    onnx: _Onnx = None,
    use: _Use = "auto",
    fused: _FusedWords = "input,all",
    url: _Url = None,
    model: _Model = None,
    baseline_model: _BaselineModel = None,
    header: _Header = None,
    ca: _Authorities = None,
    transports: _TransportWords = "auto",
    batch_sizes: Annotated[str, typer.Option(help="Pictures in one request.")] = "1,2,4,8,16",
    concurrency: Annotated[str, typer.Option(help="Requests under way at every moment.")] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(help="Of each measurement, after a warm-up.", min=0.1)] = 3.0,
    baseline: Annotated[bool, typer.Option(help="Measure a tutorial's client too.")] = True,
    picture: _Picture = None,
    csv: _CsvFile = None,
    json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Compare the ways in which pictures reach a Triton server: shared memory, or within the requests.

    Each row is the whole way from a decoded picture to its detections. The tutorial's client does the same with the
    same network: float letterbox, FP32 tensor within the request, raw output within the answer, a Python loop over it.
    """
    set_up_logging(logging.WARNING)
    if (onnx is None) == (url is None) or (url is None) != (model is None):
        fail("give either --onnx FILE, or --url and --model of a server that runs", EXIT_BAD_CONFIG)
    check_folders(csv=csv, json=json, html=html)
    variants = _words("--fused", fused, _FUSED)
    sizes, concurrencies = _numbers("--batch-sizes", batch_sizes), _numbers("--concurrency", concurrency)
    ways = None if transports == "auto" else _words("--transports", transports, _TRANSPORTS)
    engine = None if url is None else _engine(url, header, ca)
    with errors():
        plan = _plan(ways, sizes, concurrencies, seconds, picture)
        if onnx is not None:
            work = _measure_file(onnx, use, cast("tuple[Fused, ...]", variants), plan, baseline=baseline)
        else:
            assert engine is not None
            assert model is not None
            work = _measure_server(engine, model, (baseline_model or model) if baseline else None, plan)
        report = asyncio.run(work)
    _show(report)
    _write(report, csv=csv, json=json, html=html)


def _plan(
    ways: tuple[str, ...] | None,
    sizes: tuple[int, ...],
    concurrencies: tuple[int, ...],
    seconds: float,
    picture: Path | None,
) -> Plan:
    from streamproc.bench.pictures import drawn_picture, read_picture
    from streamproc.bench.transport import Plan

    return Plan(
        transports=cast("tuple[Transport, ...] | None", ways),
        batch_sizes=sizes,
        concurrencies=concurrencies,
        seconds=seconds,
        picture=drawn_picture() if picture is None else read_picture(picture),
    )


async def _measure_file(
    path: Path, use: ServerChoice, variants: tuple[Fused, ...], plan: Plan, *, baseline: bool
) -> TransportReport:
    from streamproc.bench.serving import serve_file
    from streamproc.bench.transport import Target, measure_transport

    built: set[Fused] = {*variants, "none"} if baseline else set(variants)
    async with serve_file(
        path, sorted(built), max_batch=max(plan.batch_sizes), choice=use, on_progress=progress
    ) as served:
        target = Target(
            engine=EngineConfig(kind="triton", url=served.url),
            models=tuple(served.names[variant] for variant in variants),
            baseline=served.names["none"] if baseline else None,
        )
        return await measure_transport(target, plan, on_progress=progress)


async def _measure_server(engine: EngineConfig, model: str, baseline: str | None, plan: Plan) -> TransportReport:
    from streamproc.bench.transport import Target, measure_transport

    target = Target(engine=engine, models=(model,), baseline=baseline)
    return await measure_transport(target, plan, on_progress=progress)


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


def _show(report: TransportReport) -> None:
    from streamproc.bench.transport_page import agreement, comparison, rows_table

    subject = report.subject
    models = ", ".join(f"{name} ({taken})" for name, taken in subject.models.items())
    say(f"{subject.processor}, {subject.cores} cores; {subject.server}, {subject.device}, {subject.backend}")
    say(f"{models}, precision {subject.precision}; {subject.picture}")
    show_table(rows_table(report))
    for one in report.comparisons:
        say(comparison(one))
    if report.agreed is not None:
        say(agreement(report.agreed))
    for note in report.notes:
        say(f"note: {note}")


def _write(report: TransportReport, *, csv: Path | None, json: Path | None, html: Path | None) -> None:
    from streamproc.bench.report import as_csv, as_json
    from streamproc.bench.transport_page import as_html

    if csv is not None:
        write("csv", csv, as_csv(report))
    if json is not None:
        write("json", json, as_json(report))
    if html is not None:
        write("html", html, as_html(report))
