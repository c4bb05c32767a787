"""What `streamproc watch` shows: every detection and state on a broker as a line that people can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote, urlsplit

from streamproc.errors import FatalError
from streamproc.messages import CameraStatusMessage, DetectionsMessage, decode_detections, decode_status
from streamproc.sinks import mqtt
from streamproc.sinks.endpoint import Endpoint, tls_context
from streamproc.telemetry import redact

__all__ = ["follow"]

_PORTS = {"mqtt": 1883, "mqtts": 8883, "embedded": 1883}


async def follow(url: str, *, prefix: str, site: str, camera: str) -> AsyncIterator[str]:
    """Lines for everything that is published below ``prefix``; ``+`` stands for every site or camera.

    Raises:
        FatalError: the address cannot be used.
        SinkError: the broker cannot be reached at first; later outages are waited out.
    """
    endpoint = _endpoint(url)
    await mqtt.probe_broker(endpoint)
    topics = [f"{prefix}/{site}/{camera}/detections", f"{prefix}/{site}/{camera}/status", f"{prefix}/{site}/status"]
    async for topic, payload in mqtt.watch(endpoint, topics):
        yield _line(topic, payload)


def _endpoint(url: str) -> Endpoint:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise _unusable(url) from error
    if parts.scheme not in _PORTS or not parts.hostname or port is None:
        raise _unusable(url)
    return Endpoint(
        host=parts.hostname,
        port=port,
        tls=tls_context() if parts.scheme == "mqtts" else None,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def _unusable(url: str) -> FatalError:
    return FatalError(f"{redact(url)}: expected an address such as mqtt://127.0.0.1:1883 or mqtts://HOST:8883")


def _line(topic: str, payload: bytes) -> str:
    try:
        message: Any = decode_detections(payload) if topic.endswith("/detections") else decode_status(payload)
    except ValueError as error:
        return f"{topic}: {error}"
    if isinstance(message, DetectionsMessage):
        return _detections(message)
    if isinstance(message, CameraStatusMessage):
        reason = f" ({message.reason})" if message.reason else ""
        return f"{message.site}/{message.camera} is {message.state}{reason} since {message.since}, {message.fps} FPS"
    return f"{message.site} is {message.state}"


def _detections(message: DetectionsMessage) -> str:
    counts = Counter(found.label for found in message.detections)
    tracks = sorted({found.track_id for found in message.detections if found.track_id is not None})
    seen = ", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing"
    ids = f" (tracks {' '.join(map(str, tracks))})" if tracks else ""
    clock = message.captured_at[11:23]
    how = ", predicted" if message.predicted else ""
    return f"{message.site}/{message.camera} #{message.seq} {clock} {message.age_ms:.0f} ms{how}: {seen}{ids}"
