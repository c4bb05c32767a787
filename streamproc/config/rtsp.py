"""The section of ``cameras.yaml`` about streams to watch."""

from __future__ import annotations

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from streamproc.config.addresses import is_own_server
from streamproc.config.fields import ListenAddress, PushUrl, Section, Text, check_login, surroundings
from streamproc.config.placeholder import check_one_per_camera
from streamproc.config.refusals import RefusedError

__all__ = ["RtspConfig"]


class RtspConfig(Section):
    """Annotated live streams at rtsp://HOST:PORT/CAMERA, encoded only while somebody watches, or at a media server."""

    listen: ListenAddress | None = Field(
        default="127.0.0.1:8554",
        description="HOST:PORT to serve at; 0.0.0.0:8554 serves every network that this machine is in, and null none.",
        examples=["127.0.0.1:8554", "0.0.0.0:8554"],
    )
    push: PushUrl | None = Field(
        default=None,
        validate_default=True,
        description="An rtsp:// or rtsps:// address of a media server, such as MediaMTX, to which each camera's "
        "annotated stream is pushed, whether or not somebody watches it there; {camera} stands for the camera's name, "
        "and is needed with several cameras. In a password, write '@' as %40, '/' as %2F, '#' as %23, '?' as %3F and "
        "'%' as %25; the value of a ${NAME} need not be rewritten.",
        examples=["rtsp://media:8554/{camera}", "rtsps://streamproc:${MEDIA_PASSWORD}@media:8322/{camera}"],
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

    def push_url(self, camera: str) -> str:
        """Where a camera's stream is pushed to; there must be such a place."""
        assert self.push is not None
        return self.push.replace("{camera}", camera)

    @field_validator("push")
    @classmethod
    def _leads_elsewhere(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "listen" not in info.data:
            return value
        listen, around = info.data["listen"], surroundings(info)
        if value is None:
            if listen is None:
                remedy = "Write where to listen or where to push to, or leave the section out."
                raise RefusedError(expected="an address to push to, as rtsp.listen is null", remedy=remedy)
            return None
        if listen is not None and is_own_server(value, listen):
            remedy = "Write listen: null to push only, or give rtsp.listen another port: 8554 is the usual one of both."
            raise RefusedError(found="the address of rtsp.listen", expected="another server's address", remedy=remedy)
        if around is not None:
            need, example = "an address of its own", "rtsp://media:8554/{camera}"
            check_one_per_camera(value, around.cameras, noun="address", need=need, example=example)
        return value

    @field_validator("username", "raw")
    @classmethod
    def _is_served(cls, value: str | bool | None, info: ValidationInfo) -> str | bool | None:
        if info.data.get("listen", "") is None:
            remedy = "Remove the key: it is about the server that rtsp.listen: null turns off."
            raise RefusedError(expected=f"{info.field_name} only with an address in rtsp.listen", remedy=remedy)
        return value

    @field_validator("password")
    @classmethod
    def _is_paired(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return check_login(value, info, "rtsp")
