"""The section of ``cameras.yaml`` about streams to watch."""

from __future__ import annotations

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from streamproc.config.fields import ListenAddress, Section, Text, check_login

__all__ = ["RtspConfig"]


class RtspConfig(Section):
    """Annotated live streams at rtsp://HOST:PORT/CAMERA, encoded only while somebody watches."""

    listen: ListenAddress = Field(
        default="127.0.0.1:8554",
        description="HOST:PORT to serve at; 0.0.0.0:8554 serves every network that this machine is in.",
        examples=["127.0.0.1:8554", "0.0.0.0:8554"],
    )
    username: Text | None = Field(
        default=None, description="User name that viewers must give; needs password.", examples=["viewer"]
    )
    password: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="Password that viewers must give; needs username.",
        examples=["${RTSP_PASSWORD}"],
    )
    fps: float | None = Field(
        default=None, gt=0, le=240, description="Pictures a second at most; left out, all.", examples=[12]
    )
    height: int | None = Field(
        default=None,
        ge=64,
        le=4320,
        multiple_of=2,
        description="Height of the annotated picture at most, even; left out, the camera's own.",
        examples=[720],
    )
    bitrate_kbps: int | None = Field(
        default=None,
        ge=50,
        le=100_000,
        description="Bit rate of an annotated stream in kbit/s; left out, by the picture's size.",
        examples=[4000],
    )
    raw: bool = Field(
        default=True, description="false serves no rtsp://HOST:PORT/CAMERA/raw, the camera's own stream passed on."
    )

    @field_validator("password")
    @classmethod
    def _is_paired(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return check_login(value, info, "rtsp")
