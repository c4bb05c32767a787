"""The broker's section of ``cameras.yaml``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from streamproc.config.fields import BrokerUrl, Levels, Section, Text, surroundings
from streamproc.config.files import find_file
from streamproc.config.refusals import RefusedError

__all__ = ["MqttConfig", "TlsConfig"]


class TlsConfig(Section):
    """Certificates for an mqtts:// broker; without this section the system's authorities are trusted."""

    ca: Path | None = Field(default=None, description="PEM file of authorities to trust.", examples=["certs/ca.pem"])
    certificate: Path | None = Field(
        default=None, description="PEM file of our own certificate; needs key.", examples=["certs/client.pem"]
    )
    key: Path | None = Field(
        default=None,
        validate_default=True,
        description="PEM file of our own private key; needs certificate.",
        examples=["certs/client.key"],
    )
    insecure: bool = Field(default=False, description="true accepts any certificate from the broker.")

    @field_validator("ca", "certificate", "key")
    @classmethod
    def _exists(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        around = surroundings(info)
        return find_file(str(value), around.folder, "a PEM file") if around and value is not None else value

    @field_validator("key")
    @classmethod
    def _is_paired(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("certificate")
        if certificate is not None and value is None:
            remedy = "Add key: with the private key of that certificate."
            raise RefusedError(expected="the private key of mqtt.tls.certificate", remedy=remedy)
        if certificate is None and value is not None and "certificate" in info.data:
            remedy = "Add certificate: with the certificate of this key."
            raise RefusedError(expected="no key without mqtt.tls.certificate", remedy=remedy)
        return value


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
