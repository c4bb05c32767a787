"""Certificates, for every section that opens an encrypted connection."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from streamproc.config.fields import Section, Text, surroundings
from streamproc.config.files import find_file
from streamproc.config.refusals import RefusedError

__all__ = ["ClientTlsConfig", "GrpcTlsConfig", "TlsConfig"]


class ClientTlsConfig(Section):
    """Whom to trust, and who we are; without this section the system's authorities are trusted."""

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
            raise RefusedError(expected="the private key of tls.certificate", remedy=remedy)
        if certificate is None and value is not None and "certificate" in info.data:
            remedy = "Add certificate: with the certificate of this key."
            raise RefusedError(expected="no key without tls.certificate", remedy=remedy)
        return value


class TlsConfig(ClientTlsConfig):
    """Certificates for an mqtts:// broker; without this section the system's authorities are trusted."""

    insecure: bool = Field(default=False, description="true accepts any certificate from the broker.")


class GrpcTlsConfig(ClientTlsConfig):
    """Certificates for a grpcs:// server; without this section the system's authorities are trusted."""

    server_name: Text | None = Field(
        default=None,
        description="Name in the server's certificate, where it is not the host in the address.",
        examples=["triton.internal"],
    )
