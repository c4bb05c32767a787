"""The command line of every kind of installation."""

from __future__ import annotations

import os
from pathlib import Path

from streamproc.triton_server.command import ServerOptions, ServerTls, server_command
from streamproc.triton_server.installation import Installation

PATH = Installation(kind="path", program="/opt/tritonserver/bin/tritonserver", options=frozenset())
REPOSITORY = Path("/srv/models")
OPTIONS = ServerOptions(repository=REPOSITORY, grpc_port=8001, http_port=8000, metrics_port=8002)


def command(installation: Installation = PATH, options: ServerOptions = OPTIONS) -> list[str]:
    return server_command(installation, options, name="ours")


def test_a_program_on_the_path() -> None:
    program, *arguments = command()
    assert program == "/opt/tritonserver/bin/tritonserver"
    assert "--model-repository=/srv/models" in arguments
    assert arguments[1:3] == ["--model-control-mode=explicit", "--load-model=*"]
    assert {"--grpc-port=8001", "--http-port=8000", "--metrics-port=8002"} <= set(arguments)
    assert {"--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1", "--strict-readiness=true"} <= set(arguments)
    assert "--backend-config=python,shm-region-prefix-name=ours_" in arguments
    assert not any(argument.startswith(("--backend-directory", "--grpc-use-ssl")) for argument in arguments)


def test_only_the_models_asked_for_are_loaded() -> None:
    arguments = command(options=ServerOptions(repository=REPOSITORY, models=("nano", "large")))
    assert [argument for argument in arguments if argument.startswith("--load-model")] == [
        "--load-model=nano",
        "--load-model=large",
    ]


def test_http_serves_this_machine_alone() -> None:
    arguments = command(options=ServerOptions(repository=REPOSITORY, address="0.0.0.0"))
    assert {"--grpc-address=0.0.0.0", "--http-address=127.0.0.1"} <= set(arguments)


def test_client_shared_memory_is_allowed_where_the_server_asks() -> None:
    assert "--allow-client-shm=true" not in command()
    new = Installation(kind="path", program="tritonserver", options=frozenset({"--allow-client-shm"}))
    assert "--allow-client-shm=true" in command(new)


def test_the_wheel_has_backends_of_its_own() -> None:
    wheel = Installation(kind="wheel", program="tritonserver", options=frozenset(), backends=Path("/cache/backends"))
    assert "--backend-directory=/cache/backends" in command(wheel)


def test_tls_tokens_and_the_rest() -> None:
    tls = ServerTls(certificate=Path("/c/server.pem"), key=Path("/c/server.key"))
    arguments = command(options=ServerOptions(repository=REPOSITORY, tls=tls, exit_timeout_s=3, verbose=1))
    assert {"--grpc-use-ssl=true", "--grpc-server-cert=/c/server.pem", "--grpc-server-key=/c/server.key"} <= {
        *arguments
    }
    assert {"--exit-timeout-secs=3", "--log-verbose=1"} <= set(arguments)
    assert not any("mutual" in argument or "root-cert" in argument for argument in arguments)
    mutual = ServerTls(certificate=Path("/c/server.pem"), key=Path("/c/server.key"), client_ca=Path("/c/ca.pem"))
    rule = "inference,health:key=secret"
    arguments = command(options=ServerOptions(repository=REPOSITORY, tls=mutual, restricted=(rule,)))
    assert {"--grpc-use-ssl-mutual=true", "--grpc-root-cert=/c/ca.pem"} <= set(arguments)
    assert f"--grpc-restricted-protocol={rule}" in arguments


def test_docker_runs_the_same_server_in_a_container() -> None:
    docker = Installation(kind="docker", program="tritonserver", options=frozenset(), image="triton:test")
    container, server = (line := command(docker))[: line.index("triton:test")], line[line.index("triton:test") + 1 :]
    assert container[:5] == ["docker", "run", "--rm", "--name=ours", "--network=host"]
    assert {"--ipc=host", "--volume=/srv/models:/srv/models:ro", f"--user={os.getuid()}:{os.getgid()}"} <= {*container}
    assert not {"--gpus=all", "--pid=host"} & set(container)
    assert server == ["tritonserver", *command()[1:]]


def test_docker_with_gpus_and_certificates() -> None:
    docker = Installation(kind="docker", program="tritonserver", options=frozenset(), image="triton:test", gpus=True)
    tls = ServerTls(certificate=Path("/c/server.pem"), key=Path("/c/server.key"), client_ca=Path("/c/ca.pem"))
    line = command(docker, ServerOptions(repository=REPOSITORY, tls=tls))
    assert {"--gpus=all", "--pid=host"} <= set(line)
    assert {f"--volume=/c/{name}:/c/{name}:ro" for name in ("server.pem", "server.key", "ca.pem")} <= set(line)
