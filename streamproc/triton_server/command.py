"""The command line that starts a Triton, the same for every kind of installation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from streamproc.triton_server.installation import Installation

__all__ = ["ServerOptions", "ServerTls", "server_command"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """PEM files of a gRPC port with TLS; with ``client_ca``, clients must show a certificate signed by it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server is to run.

    ``models``: the ones to load at the start, all of the repository if empty. ``address``: what gRPC and metrics listen
    on; HTTP, which has neither TLS nor restrictions, serves this machine alone. A port of 0 is picked.
    ``restricted``: each ``<protocol>,...:<header>=<value>``, gRPC protocols that only calls with this header may use,
    as in ``model-repository,shared-memory:admin-key=...``; it is on Triton's command line, which every user of this
    machine can read. ``verbose``: Triton's log level, 0 for none.
    """

    repository: Path
    models: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    tls: ServerTls | None = None
    restricted: tuple[str, ...] = ()
    exit_timeout_s: int = 10
    verbose: int = 0


def server_command(installation: Installation, options: ServerOptions, *, name: str) -> list[str]:
    """The program and its arguments; ``name`` begins the names of its shared memory, and is a container's name."""
    server = [installation.program, *_arguments(installation, options, name)]
    return [*_container(installation, options, name), *server] if installation.kind == "docker" else server


def _arguments(installation: Installation, options: ServerOptions, name: str) -> list[str]:
    arguments = [
        f"--model-repository={options.repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in options.models or ("*",)),
        f"--grpc-address={options.address}",
        f"--grpc-port={options.grpc_port}",
        "--http-address=127.0.0.1",
        f"--http-port={options.http_port}",
        f"--metrics-address={options.address}",
        f"--metrics-port={options.metrics_port}",
        "--strict-readiness=true",
        f"--exit-timeout-secs={options.exit_timeout_s}",
        f"--log-verbose={options.verbose}",
        f"--backend-config=python,shm-region-prefix-name={name}_",
    ]
    if installation.backends is not None:
        arguments.append(f"--backend-directory={installation.backends}")
    # Releases since 2026 refuse clients' shared memory without it; the ones before refuse to start with it.
    if "--allow-client-shm" in installation.options:
        arguments.append("--allow-client-shm=true")
    if (tls := options.tls) is not None:
        arguments += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={tls.certificate}",
            f"--grpc-server-key={tls.key}",
        ]
        if tls.client_ca is not None:
            arguments += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.client_ca}"]
    arguments += [f"--grpc-restricted-protocol={rule}" for rule in options.restricted]
    return arguments


def _container(installation: Installation, options: ServerOptions, name: str) -> list[str]:
    """In the foreground, so that the container's log is the process's, and a signal to it reaches the server.

    The user is ours, as shared memory is readable by its owner alone. CUDA shared memory needs the process namespace.
    """
    assert installation.image is not None
    files = [options.repository]
    if options.tls is not None:
        files += [file for file in (options.tls.certificate, options.tls.key, options.tls.client_ca) if file]
    return [
        "docker", "run", "--rm", f"--name={name}", "--network=host", "--ipc=host",
        *(("--pid=host", "--gpus=all") if installation.gpus else ()),
        f"--user={os.getuid()}:{os.getgid()}",
        *(f"--volume={file}:{file}:ro" for file in files),
        installation.image,
    ]  # fmt: skip
