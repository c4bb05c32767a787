"""The sinks that a configuration asks for, built."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from streamproc.config import Config, MqttConfig
from streamproc.preprocess import to_bgr
from streamproc.sinks.base import Sink
from streamproc.sinks.broker import EmbeddedBroker
from streamproc.sinks.endpoint import Endpoint, tls_context
from streamproc.sinks.file import FileSink
from streamproc.sinks.live import LiveSink, LiveStyle
from streamproc.sinks.mqtt_sink import MqttSink
from streamproc.sinks.video import VideoSink
from streamproc.streams import Screens
from streamproc.telemetry import StatusBoard

__all__ = ["embedded_broker", "endpoint_of", "file_sinks", "live_sink", "mqtt_sink"]


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


def mqtt_sink(
    config: Config, board: StatusBoard, *, fps_of: Callable[[str], float] | None = None, part: str = ""
) -> MqttSink | None:
    """The broker's sink, not yet started; None where the configuration names none.

    Args:
        fps_of: a camera's present frames per second; None where another process publishes the cameras' states.
        part: is added to a configured client id, where several processes connect.

    Raises:
        FatalError: a certificate file cannot be used.
    """
    mqtt = config.mqtt
    if mqtt is None:
        return None
    return MqttSink(
        endpoint_of(mqtt),
        site=config.site,
        board=board,
        fps_of=fps_of or (lambda camera: 0.0),
        states=fps_of is not None,
        prefix=mqtt.prefix,
        keepalive_s=mqtt.keepalive_s,
        client_id=mqtt.client_id and f"{mqtt.client_id}{part}",
    )


def live_sink(config: Config, screens: Screens, *, spent: Callable[[str, int], None]) -> LiveSink | None:
    """What draws and encodes for live streams; None where the configuration has none."""
    rtsp = config.rtsp
    if rtsp is None:
        return None
    return LiveSink(
        {camera: screens.drawn(camera) for camera in config.cameras},
        style=LiveStyle(fps=rtsp.fps, height=rtsp.height, bitrate_kbps=rtsp.bitrate_kbps),
        to_bgr=to_bgr,
        spent=spent,
    )


def file_sinks(config: Config, *, spent: Callable[[str, int], None]) -> list[Sink]:
    """The sinks that write files, not yet started."""
    sinks: list[Sink] = []
    if config.file is not None:
        sinks.append(FileSink(config.file.path, site=config.site, cameras=config.cameras))
    if config.video is not None:
        sinks.append(VideoSink(config.video.path, list(config.cameras), to_bgr=to_bgr, spent=spent))
    return sinks
