"""What can be known of the images and compose files without a Docker engine: that they name what exists and fits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from streamproc import __version__
from streamproc.config import RtspConfig, load_config
from streamproc.sinks.endpoint import Endpoint
from streamproc.sinks.mqtt import connect
from tests.brokers import free_port
from tests.e2e.harness import streamproc

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
CONFIGS = ("triton-gpu.yaml", "triton-jetson.yaml", "cpu.yaml")
OVERRIDES = ("compose.jetson.yaml", "compose.jetpack6.yaml", "compose.cuda.yaml")
ADDITIONS = ("compose.mediamtx.yaml",)
COMPOSE_FILES = ("compose.yaml", *OVERRIDES, *ADDITIONS)
PASSWORD = 'p:a$s "word'


class ComposeLoader(yaml.SafeLoader):
    """YAML with compose's own tag."""


ComposeLoader.add_constructor("!reset", lambda loader, node: None)


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """A compose file, its variables at their defaults."""
    text = re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda match: match[1] or "set", (DOCKER / name).read_text())
    loaded: dict[str, Any] = yaml.load(text, ComposeLoader)
    return loaded


def instructions() -> list[tuple[str, str]]:
    """Every instruction of the Dockerfile with its arguments."""
    lines = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines.splitlines()) if name
    ]


SERVICES: dict[str, dict[str, Any]] = compose()["services"]


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_a_service_restarts_tells_its_health_and_has_no_privileges(service: dict[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not {"privileged", "network_mode", "ipc", "pid"} & service.keys()


def test_nobody_is_root_and_roots_are_read_only_where_nothing_writes_to_them() -> None:
    (user,) = (arguments for name, arguments in instructions() if name == "USER")
    assert user == SERVICES["triton"]["user"] == "1000:1000", "segments in /dev/shm are for their own user only"
    assert SERVICES["mosquitto"]["user"] == "1883:1883"
    assert SERVICES["streamproc"]["read_only"] is True
    assert SERVICES["mosquitto"]["read_only"] is True


def test_triton_and_streamproc_share_memory() -> None:
    shared = {"type": "volume", "source": "shm", "target": "/dev/shm", "volume": {"nocopy": True}}
    assert shared in SERVICES["triton"]["volumes"]
    assert shared in SERVICES["streamproc"]["volumes"]
    assert compose()["volumes"]["shm"]["driver_opts"]["type"] == "tmpfs"
    assert "--allow-client-shm=true" in SERVICES["triton"]["command"]


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_images_are_pinned(name: str) -> None:
    for service in compose(name)["services"].values():
        assert re.search(r":\d+\.\d+", service.get("image", ":0.0"))


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_changes_services_that_exist(name: str) -> None:
    assert compose(name)["services"].keys() <= SERVICES.keys()


def test_the_media_server_is_as_confined_as_the_others_and_takes_what_is_pushed_to_it() -> None:
    added = compose("compose.mediamtx.yaml")
    ((name, service),) = added["services"].items()
    assert name not in SERVICES
    for key in ("restart", "init", "cap_drop", "security_opt", "logging"):
        assert service[key] == SERVICES["streamproc"][key]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    settings = yaml.safe_load(added["configs"][service["configs"][0]["source"]]["content"])
    (publisher,) = (user for user in settings["authInternalUsers"] if {"action": "publish"} in user["permissions"])
    for text in ((DOCKER / "README.md").read_text(), (DOCKER / "compose.mediamtx.yaml").read_text()):
        (written,) = re.findall(r"rtsp: (\{listen: null, push: .*\})", text)
        rtsp = RtspConfig(**yaml.safe_load(written.replace("${MEDIA_PASSWORD}", publisher["pass"])))
        assert rtsp.listen is None
        there = urlsplit(rtsp.push_url("gate"))
        assert (there.hostname, there.port, there.path) == (name, 8554, "/gate")
        assert (there.username, there.password) == (publisher["user"], publisher["pass"])
    assert settings["paths"] == {"all_others": {}}
    documented = (DOCKER / ".env.example").read_text()
    assert all(f"#{variable}=" in documented for variable in ("MEDIA_PASSWORD", "MEDIA_ADDRESS"))


def test_every_file_that_is_mounted_exists_and_cannot_be_written() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"] if isinstance(mount, dict)]
    binds = [mount for mount in mounts if mount["type"] == "bind"]
    assert all(mount["read_only"] for mount in binds)
    (models,) = (mount for mount in binds if mount["target"] == "/models")
    assert models["bind"] == {"create_host_path": False}, "the user's: compose says when it is not there"
    for mount in binds:
        assert mount is models or (DOCKER / mount["source"]).exists()


def test_the_jetpack_6_server_has_every_option_but_the_one_it_does_not_know() -> None:
    expected = [part for part in SERVICES["triton"]["command"] if part != "--allow-client-shm=true"]
    assert compose("compose.jetpack6.yaml")["services"]["triton"]["command"] == expected


def test_the_image_is_built_from_files_that_the_builder_is_given() -> None:
    given = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from=")
        for source in arguments.split()[:-1]
    ]
    assert sorted(copied) == sorted(given)
    assert all((ROOT / source).exists() for source in copied)
    assert not {"docker", "configs", "."} & set(given), "passwords and recordings stay here"


def test_the_image_has_extras_that_exist_and_the_packages_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = (value for name, value in instructions() if name == "ARG" and value.startswith("EXTRAS="))
    assert set(extras.removeprefix("EXTRAS=").split(",")) <= project["optional-dependencies"].keys()
    assert f'org.opencontainers.image.version="{__version__}"' in dict(instructions())["LABEL"]
    assert SERVICES["streamproc"]["image"] == f"streamproc:{__version__}"


@pytest.mark.parametrize("name", ["compose.yaml", "compose.jetson.yaml"])
def test_streamproc_is_started_and_examined_with_the_same_configuration(name: str) -> None:
    service = compose(name)["services"]["streamproc"]
    command, examined = service["command"], service["healthcheck"]["test"][-1]
    assert command[-1] == examined
    assert (ROOT / "configs" / Path(examined).relative_to("/config")).is_file()
    assert streamproc(*command, "--help").code == 0


def test_the_image_alone_starts_and_examines_one_configuration_too() -> None:
    found = dict(instructions())
    assert yaml.safe_load(found["ENTRYPOINT"]) == ["streamproc"]
    command = yaml.safe_load(found["CMD"])
    assert found["HEALTHCHECK"].endswith(f'"{command[-1]}"]')
    assert streamproc(*command, "--help").code == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_name_services_and_variables_that_exist(name: str, tmp_path: Path) -> None:
    copy = tmp_path / name
    copy.write_bytes((ROOT / "configs" / name).read_bytes())
    (tmp_path / "yolov8n.onnx").touch()
    names = re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE)
    config = load_config(copy, environ=dict.fromkeys(names, "set"))
    assert config.mqtt is not None
    assert config.mqtt.url == "mqtt://mosquitto:1883"
    assert f"-u {config.mqtt.username} " in SERVICES["mosquitto"]["healthcheck"]["test"][1]
    if config.engine.kind == "triton":
        assert config.engine.servers == ("grpc://triton:8001",)


@pytest.mark.parametrize("script", sorted(DOCKER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_can_be_parsed(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """The port of the broker as its container starts it, but for paths, port and user."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.fail("this test needs mosquitto_passwd, which is not installed (apt-get install mosquitto)")
    port = free_port()
    moved = {"/mosquitto/mosquitto.conf": f"{tmp_path}/mosquitto.conf", "/tmp/passwords": f"{tmp_path}/passwords"}
    for name in ("mosquitto.conf", "mosquitto.sh"):
        text = (DOCKER / name).read_text()
        for old, new in {**moved, "listener 1883": f"listener {port} 127.0.0.1\nuser root"}.items():
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "MQTT_PASSWORD": PASSWORD, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    process = subprocess.Popen(
        ["sh", tmp_path / "mosquitto.sh"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        assert any(line.rstrip().endswith(" running") for line in process.stdout), "mosquitto did not start"
        yield port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def config(broker: int, tmp_path: Path) -> Path:
    """A configuration for that broker."""
    path = tmp_path / "cameras.yaml"
    path.write_text(
        f"mqtt: {{url: 'mqtt://127.0.0.1:{broker}', username: streamproc, password: '${{MQTT_PASSWORD}}'}}\n"
        "site: depot\nengine: {kind: triton}\nmodel: {name: yolov8n}\ncameras: {gate: {url: 'rtsp://10.0.0.5/stream1'}}\n"
    )
    return path


def examined(config: Path, *, password: str = PASSWORD) -> tuple[int, str]:
    """Exit code and message of the health check."""
    done = subprocess.run(
        [sys.executable, DOCKER / "healthcheck.py", config],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MQTT_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr.strip()


async def test_the_health_is_what_the_broker_knows_of_the_site(broker: int, config: Path) -> None:
    endpoint = Endpoint(host="127.0.0.1", port=broker, username="streamproc", password=PASSWORD)
    async with connect(endpoint) as connection:
        await connection.retain("streamproc/depot/status", b'{"state": "online"}')
        assert examined(config) == (0, "")
        await connection.retain("streamproc/depot/status", b'{"state": "offline"}')
        assert examined(config) == (1, "site depot is offline")


def test_a_broker_that_refuses_or_is_away_is_no_health(broker: int, config: Path) -> None:
    code, message = examined(config, password="wrong")
    assert (code, "Not authorized" in message) == (1, True)
    config.write_text(config.read_text().replace(f":{broker}", f":{free_port()}"))
    code, message = examined(config)
    assert (code, "Connection refused" in message) == (1, True)


def test_without_a_broker_a_running_container_is_healthy(tmp_path: Path) -> None:
    config = tmp_path / "cameras.yaml"
    config.write_text(
        "engine: {kind: triton}\nmodel: {name: yolov8n}\ncameras: {gate: {url: 'rtsp://10.0.0.5/stream1'}}\n"
    )
    assert examined(config) == (0, "")
