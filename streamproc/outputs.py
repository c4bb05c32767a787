"""The sinks that a configuration asks for, built and wired."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from streamproc.config import Config, MqttConfig
from streamproc.preprocess import to_bgr
from streamproc.sinks.base import Sink
from streamproc.sinks.broker import EmbeddedBroker
from streamproc.sinks.endpoint import Endpoint, tls_context
from streamproc.sinks.file import FileSink
from streamproc.sinks.mqtt_sink import MqttSink
from streamproc.sinks.video import VideoSink
from streamproc.telemetry import StatusBoard

__all__ = ["embedded_broker", "endpoint_of", "open_sinks"]


def endpoint_of(mqtt: MqttConfig) -> Endpoint:
    """Where the configured broker is and how to be let in.

    Raises:
        FatalError: a certificate file cannot be used.
    """
    url = urlsplit(mqtt.url)
    assert url.hostname is not None
    assert url.port is not None
    tls = mqtt.tls
    context = None
    if url.scheme == "mqtts":
        context = (
            tls_context()
            if tls is None
            else tls_context(ca=tls.ca, certificate=tls.certificate, key=tls.key, insecure=tls.insecure)
        )
    return Endpoint(
        host=url.hostname,
        port=url.port,
        tls=context,
        ca=tls.ca if tls is not None else None,
        username=mqtt.username,
        password=mqtt.password.get_secret_value() if mqtt.password is not None else None,
    )


def embedded_broker(mqtt: MqttConfig) -> EmbeddedBroker | None:
    """The broker to run for this configuration, not yet started; None where it names one that runs elsewhere."""
    url = urlsplit(mqtt.url)
    if url.scheme != "embedded":
        return None
    assert url.hostname is not None
    assert url.port is not None
    return EmbeddedBroker(url.hostname, url.port)


def open_sinks(
    config: Config, board: StatusBoard, *, fps_of: Callable[[str], float], spent: Callable[[str, int], None]
) -> list[Sink]:
    """Every sink of the configuration, not yet started.

    Raises:
        FatalError: a certificate file cannot be used.
    """
    sinks: list[Sink] = []
    if config.mqtt is not None:
        sinks.append(
            MqttSink(
                endpoint_of(config.mqtt),
                site=config.site,
                board=board,
                fps_of=fps_of,
                prefix=config.mqtt.prefix,
                keepalive_s=config.mqtt.keepalive_s,
                client_id=config.mqtt.client_id,
            )
        )
    if config.file is not None:
        sinks.append(FileSink(config.file.path, site=config.site, cameras=config.cameras))
    if config.video is not None:
        sinks.append(VideoSink(config.video.path, list(config.cameras), to_bgr=to_bgr, spent=spent))
    return sinks
