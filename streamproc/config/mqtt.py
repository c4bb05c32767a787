"""The broker's section of ``cameras.yaml``."""

from __future__ import annotations

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from streamproc.config.fields import BrokerUrl, Levels, Section, Text
from streamproc.config.refusals import RefusedError
from streamproc.config.tls import TlsConfig

__all__ = ["MqttConfig"]


class MqttConfig(Section):
    """The broker that detections and states go to. ``url`` always carries its port."""

    url: BrokerUrl = Field(
        description="The broker, mqtt://HOST:1883, mqtts://HOST:8883 with TLS, or embedded://127.0.0.1:1883 for a "
        "broker of its own on this machine.",
        examples=["mqtt://127.0.0.1:1883"],
    )
    prefix: Levels = Field(default="streamproc", description="First levels of every topic, separated by '/'.")
    username: Text | None = Field(default=None, description="User name at the broker.", examples=["streamproc"])
    password: SecretStr | None = Field(
        default=None, description="Password at the broker; needs username.", examples=["${MQTT_PASSWORD}"]
    )
    tls: TlsConfig | None = Field(
        default=None, description="Certificates; only with mqtts://.", examples=[{"ca": "certs/ca.pem"}]
    )
    keepalive_s: int = Field(default=30, ge=1, le=65_535, description="Seconds between signs of life.")
    client_id: Text | None = Field(
        default=None, description="Client id, unique at the broker; left out, one is made.", examples=["depot-1"]
    )

    @field_validator("username")
    @classmethod
    def _broker_has_users(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("url", "").startswith("embedded://"):
            remedy = "Remove username and password: the embedded broker serves this machine only, and asks for none."
            raise RefusedError(expected="no user name with embedded://", remedy=remedy)
        return value

    @field_validator("password")
    @classmethod
    def _has_username(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and info.data.get("username", "") is None:
            raise RefusedError(expected="a password only together with mqtt.username", remedy="Add username: to mqtt.")
        return value

    @field_validator("tls")
    @classmethod
    def _is_encrypted(cls, value: TlsConfig | None, info: ValidationInfo) -> TlsConfig | None:
        if value is not None and not info.data.get("url", "mqtts://").startswith("mqtts://"):
            remedy = "Write mqtts:// in mqtt.url, usually with port 8883, or remove the tls section."
            raise RefusedError(expected="a tls section only with mqtts://", remedy=remedy)
        return value
