"""What `streamproc check` does: probe everything that a configuration names, and say what is wrong and the remedy."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from streamproc.config import CameraConfig, Config, MqttConfig
from streamproc.detector import open_detector
from streamproc.errors import ConfigError, FatalError, StreamprocError
from streamproc.outputs import embedded_broker, endpoint_of
from streamproc.rtsp import probe_server
from streamproc.sinks.mqtt import probe_broker
from streamproc.sources.probe import probe
from streamproc.streams import host_and_port

__all__ = ["Finding", "check"]

_READY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was probed: ``camera gate``, ``model`` (on each server), ``broker``, ``output file``; what was
    found, or what is wrong and the remedy."""

    subject: str
    ok: bool
    message: str


async def check(config: Config) -> list[Finding]:
    """Probe cameras, model and engine, broker, ports and outputs, all at once; findings in that order."""
    probes = [_finding(f"camera {name}", _camera(name, camera)) for name, camera in config.cameras.items()]
    probes += [_finding(subject, _model(one)) for subject, one in _models(config)]
    if config.mqtt is not None:
        probes.append(_finding("broker", _broker(config.mqtt)))
    if config.rtsp is not None and config.rtsp.listen is not None:
        probes.append(_finding("rtsp", _listening(config.rtsp.listen)))
    if config.rtsp is not None and config.rtsp.push is not None:
        probes.append(_finding("rtsp push", probe_server(config.rtsp.push_url(next(iter(config.cameras))))))
    for key, output in (("file", config.file), ("video", config.video)):
        if output is not None:
            probes.append(_finding(f"output {key}", _output(output.path)))
    return await asyncio.gather(*probes)


async def _finding(subject: str, message: Awaitable[str]) -> Finding:
    try:
        return Finding(subject=subject, ok=True, message=await message)
    except StreamprocError as error:
        return Finding(subject=subject, ok=False, message=str(error).removeprefix(f"{subject}: "))


async def _camera(name: str, camera: CameraConfig) -> str:
    username, password = camera.login
    look = await asyncio.to_thread(
        probe,
        name,
        files=camera.files,
        url=camera.url,
        transport=camera.transport,
        username=username,
        password=password,
    )
    return str(look)


def _models(config: Config) -> list[tuple[str, Config]]:
    """The model in each place where it is to run; a server that is not ready by now is not waited for as in a run."""
    engine = config.engine
    engine = engine.model_copy(update={"ready_timeout_s": min(engine.ready_timeout_s, _READY_S)})
    if engine.urls is None:
        return [("model", config.model_copy(update={"engine": engine}))]
    alone = {url: engine.model_copy(update={"urls": None, "url": url}) for url in engine.urls}
    return [(f"model at {url}", config.model_copy(update={"engine": one})) for url, one in alone.items()]


async def _model(config: Config) -> str:
    try:
        async with open_detector(config) as detector:
            on_it = ", ".join(f"{name} ({one.head.name})" for name, one in detector.secondaries.items())
            return str(detector) + (f"; and on what it finds: {on_it}" if on_it else "")
    except ConfigError as error:
        raise FatalError("; ".join(map(str, error.problems))) from error


async def _broker(mqtt: MqttConfig) -> str:
    broker = embedded_broker(mqtt)
    if broker is None:
        await probe_broker(endpoint_of(mqtt))
        return f"{mqtt.url} takes us"
    try:
        socket.create_server((broker.host, broker.port), backlog=1).close()
    except OSError as error:
        raise FatalError(
            f"the embedded broker cannot listen on {broker.host}:{broker.port}: {error.strerror}. "
            "Stop what listens there, or choose another port in mqtt.url"
        ) from error
    return f"{broker.host}:{broker.port} is free for the embedded broker"


async def _listening(listen: str) -> str:
    host, port = host_and_port(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family, backlog=1).close()
    except OSError as error:
        raise FatalError(
            f"cannot listen on {listen}: {error.strerror}. Stop what listens there, or change rtsp.listen"
        ) from error
    return f"{listen} is free for live streams"


async def _output(path: str) -> str:
    return await asyncio.to_thread(_writable, Path(path))


def _writable(path: Path) -> str:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FatalError(
            f"{path}: cannot write in {folder}: {error.strerror}. Choose another path, or change its owner"
        ) from error
    return f"{path} can be written"
