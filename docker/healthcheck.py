"""Is the streamproc beside us alive? Exit code 0 if so, 1 with the reason if not.

Asks the configured broker for the retained state of the site. streamproc sets it to online, and the broker sets it to
offline (the will) when streamproc dies or when its event loop stands still for one and a half ``mqtt.keepalive_s``.
Without an ``mqtt`` section there is nobody to ask, and a running container counts as a healthy one.

Run as: python healthcheck.py CONFIG
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from urllib.parse import urlsplit

from paho.mqtt import MQTTException
from paho.mqtt.subscribe import simple

from streamproc.config import MqttConfig, load_config

__all__ = ["site_state"]


def site_state(mqtt: MqttConfig, site: str) -> str:
    """The retained state of a site, ``online`` or ``offline``; where there is none yet, waits until it is killed.

    Raises:
        OSError: the broker cannot be reached.
        MQTTException: it refuses us.
    """
    url = urlsplit(mqtt.url)
    tls = None
    if url.scheme == "mqtts":
        names = {"ca_certs": "ca", "certfile": "certificate", "keyfile": "key", "insecure": "insecure"}
        tls = {name: getattr(mqtt.tls, key) for name, key in names.items()} if mqtt.tls is not None else {}
    auth = {"username": mqtt.username, "password": mqtt.password and mqtt.password.get_secret_value()}
    message = simple(  # type: ignore[no-untyped-call]
        f"{mqtt.prefix}/{site}/status",
        hostname=url.hostname,
        port=url.port,
        auth=auth if mqtt.username is not None else None,
        tls=tls,
    )
    return str(json.loads(message.payload)["state"])


def _main() -> None:
    logging.disable()  # the library's farewell warns of a connection that it has closed itself
    config = load_config(Path(sys.argv[1]))
    if config.mqtt is None:
        return
    try:
        state = site_state(config.mqtt, config.site)
    except (OSError, MQTTException) as error:
        sys.exit(f"{config.mqtt.url}: {error}")
    if state != "online":
        sys.exit(f"site {config.site} is {state}")


if __name__ == "__main__":
    _main()
