"""``streamproc triton``: a Triton server on this machine, and a look at any."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from streamproc.cli.terminal import EXIT_BAD_CONFIG, EXIT_FAILED, err, errors, fail, out, set_up_logging

if TYPE_CHECKING:
    from streamproc.triton_server.status import ServerStatus

__all__ = ["triton"]

triton = typer.Typer(help="Start, look at and stop a Triton server on this machine.", no_args_is_help=True)

_TLS = "TLS"


@triton.command()
def start(
    repository: Annotated[Path, typer.Argument(metavar="DIR", help="The model repository.")] = Path("models"),
    model: Annotated[list[str] | None, typer.Option(help="Load only this; may be repeated.")] = None,
    use: Annotated[
        Literal["auto", "path", "docker", "wheel"], typer.Option(help="Which server; auto takes the first there is.")
    ] = "auto",
    image: Annotated[str | None, typer.Option(help="The docker image, if not the tried one.")] = None,
    address: Annotated[str, typer.Option(help="What gRPC and metrics listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="0 picks a free one.", min=0, max=65535)] = 8001,
    http_port: Annotated[int, typer.Option(help="0 picks a free one.", min=0, max=65535)] = 8000,
    metrics_port: Annotated[int, typer.Option(help="0 picks a free one.", min=0, max=65535)] = 8002,
    restrict: Annotated[
        list[str] | None,
        typer.Option(metavar="PROTOCOLS:HEADER=VALUE", help="gRPC protocols for calls with this header only."),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds to wait until it is ready.", min=1)] = 300.0,
    verbose: Annotated[int, typer.Option(help="Triton's log level.", min=0)] = 0,
    certificate: Annotated[Path | None, typer.Option(help="PEM file.", rich_help_panel=_TLS)] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file.", rich_help_panel=_TLS)] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="PEM file; clients must then show a certificate.", rich_help_panel=_TLS)
    ] = None,
) -> None:
    """Start a server over a model repository, and wait until its models are ready.

    Where there is neither tritonserver nor docker, the server of the nvidia-pytriton wheel is set up in the cache
    directory; it runs models built with --backend python.
    """
    from streamproc.triton_server.command import ServerOptions, ServerTls
    from streamproc.triton_server.installation import DEFAULT_IMAGE, find_server
    from streamproc.triton_server.process import start_server

    set_up_logging()
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        fail("--certificate and --key go together, and --client-ca needs both", EXIT_BAD_CONFIG)
    options = ServerOptions(
        repository=repository,
        models=tuple(model or ()),
        address=address,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        tls=ServerTls(certificate=certificate, key=key, client_ca=client_ca) if certificate and key else None,
        restricted=tuple(restrict or ()),
        verbose=verbose,
    )

    async def start_it() -> None:
        found = await find_server(use, image=image or DEFAULT_IMAGE, on_progress=_progress)
        record = await start_server(found, options, on_progress=_progress, ready_timeout_s=timeout)
        _print(f"ready at {record.url} (pid {record.pid}, {record.kind}); log: {record.log}")

    with errors():
        asyncio.run(start_it())


@triton.command()
def status(
    url: Annotated[str | None, typer.Option(help="The server, grpc://HOST:8001; left out, those started here.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="gRPC header; may be repeated.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of authorities to trust.", rich_help_panel=_TLS)] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file of our own.", rich_help_panel=_TLS)] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of our own.", rich_help_panel=_TLS)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell a server's models, versions, states, times and registered shared memory."""
    from streamproc.config import GrpcTlsConfig
    from streamproc.triton_server.state import started_servers
    from streamproc.triton_server.status import server_status

    set_up_logging()
    tls = GrpcTlsConfig(ca=ca, certificate=certificate, key=key) if ca or certificate else None
    urls = [url] if url else [record.url for record in started_servers()]
    if not urls:
        fail("no server was started here. Name one with --url grpc://HOST:8001", EXIT_FAILED)
    with errors():
        found = [asyncio.run(server_status(one, headers=_headers(header), tls=tls)) for one in urls]
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        for one in found:
            _show(one)
    raise typer.Exit(0 if all(one.ready for one in found) else EXIT_FAILED)


@triton.command()
def stop(
    port: Annotated[int | None, typer.Option(help="gRPC port of the server; left out, the only one.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Stop all that were started here.")] = False,
) -> None:
    """Stop servers that were started here."""
    from streamproc.triton_server.process import stop_server
    from streamproc.triton_server.state import started_servers

    set_up_logging()
    # A managed server is its run's: stopped, it would be started again.
    servers = [one for one in started_servers() if port in (None, one.grpc_port) and not one.owner_pid]
    if not servers:
        fail(f"no server started here {'runs' if port is None else f'has the gRPC port {port}'}", EXIT_FAILED)
    if len(servers) > 1 and not every:
        ports = ", ".join(str(record.grpc_port) for record in servers)
        fail(f"several servers run, with the gRPC ports {ports}: name one with --port, or give --all", EXIT_BAD_CONFIG)
    with errors():
        for record in servers:
            asyncio.run(stop_server(record))
            _print(f"stopped {record.url} (pid {record.pid})")


def _headers(given: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    for name, equals, value in pairs:
        if not (name and equals and value):
            fail("--header: expected NAME=VALUE, such as authorization='Bearer ...'", EXIT_BAD_CONFIG)
    return {name.lower(): value for name, _, value in pairs}


def _progress(text: str) -> None:
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _print(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _show(found: ServerStatus) -> None:
    _print(f"{found.url}: Triton {found.version}, {'ready' if found.ready else 'live' if found.live else 'not live'}")
    table = Table("model", "version", "state", "pictures", "batches", "failed", "queue ms", "compute ms", "in/out ms")
    for one in found.models:
        table.add_row(
            one.name,
            one.version,
            f"{one.state or 'not loaded'}{f' ({one.reason})' if one.reason else ''}",
            str(one.inferences),
            str(one.executions),
            str(one.failures),
            _ms(one.queue_ms),
            _ms(one.infer_ms),
            f"{_ms(one.input_ms)}/{_ms(one.output_ms)}",
        )
    out.print(table)
    for region in found.regions:
        _print(f"shared memory, {region.kind}: {region.name} ({region.key}), {region.nbytes / 1e6:.1f} MB")
    for refused in found.refused:
        _print(f"not told: {refused}")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
