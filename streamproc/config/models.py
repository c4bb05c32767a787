"""The sections of ``cameras.yaml`` as frozen models; :mod:`streamproc.config` loads them from a file.

Models made in code check the same values, but look at no file: that happens only while a configuration is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from streamproc.config.addresses import is_rtsp
from streamproc.config.engine import EngineConfig
from streamproc.config.fields import (
    CameraName,
    CameraUrl,
    ClassName,
    Limit,
    Name,
    Ratio,
    Section,
    Text,
    check_login,
    surroundings,
)
from streamproc.config.files import check_output_path, find_camera_files
from streamproc.config.model import ModelConfig
from streamproc.config.mqtt import MqttConfig
from streamproc.config.placeholder import check_one_per_camera
from streamproc.config.refusals import RefusedError
from streamproc.config.rtsp import RtspConfig
from streamproc.config.secondary import DETECTOR, SecondaryConfig, check_graph

__all__ = [
    "BudgetConfig",
    "CameraConfig",
    "Config",
    "FileConfig",
    "ReidConfig",
    "TrackingConfig",
    "VideoConfig",
]


class BudgetConfig(Section):
    """How many frames, and how fresh."""

    fps: float = Field(
        default=24.0,
        gt=0,
        le=240,
        description="The cameras' nominal frame rate: no batch waits longer for company than one frame takes.",
    )
    max_frame_age_ms: float = Field(
        default=100.0, gt=0, le=60_000, description="Live frames that would be published later than this are dropped."
    )


class ReidConfig(Section):
    """How objects that come back are known again."""

    model: Name = Field(description="Which of the models gives embeddings of them.", examples=["osnet"])
    similarity: Ratio = Field(
        default=0.85, description="Least cosine between the embeddings of what is one object, 0 to 1."
    )
    within_s: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds after which an object that comes back is a new one."
    )


class TrackingConfig(Section):
    """How objects keep their identity from frame to frame."""

    algorithm: Literal["bytetrack", "ocsort", "botsort", "none"] = Field(
        default="bytetrack", description="Tracker; with none, track_id is null."
    )
    fill: bool = Field(
        default=False,
        description="true also publishes, for the frames of live cameras that inference has no room for, where tracks "
        "should be by then, as predicted.",
    )

    reid: ReidConfig | None = Field(
        default=None,
        description="Gives objects that were lost their ids again, by what they look like.",
        examples=[{"model": "osnet"}],
    )

    @field_validator("fill", "reid")
    @classmethod
    def _has_tracks(cls, value: object, info: ValidationInfo) -> object:
        if value and info.data.get("algorithm") == "none":
            remedy = "Choose a tracker, for example tracking.algorithm: bytetrack, or remove the key."
            raise RefusedError(expected=f"{info.field_name} only with a tracker", remedy=remedy)
        return value


class FileConfig(Section):
    """Detections as JSON lines, the same objects as on MQTT."""

    path: str = Field(
        description="The file to append to; {camera} stands for the camera's name. Relative to the working directory.",
        examples=["out/{camera}.jsonl"],
    )

    @field_validator("path")
    @classmethod
    def _can_be_written(cls, value: str) -> str:
        return check_output_path(value, example="out/detections.jsonl")


class VideoConfig(Section):
    """Annotated video, one file a camera."""

    path: str = Field(
        description="The file to write, .mp4 or .mkv; {camera} stands for the camera's name, and is needed with "
        "several cameras. Relative to the working directory.",
        examples=["out/{camera}.mp4"],
    )

    @field_validator("path")
    @classmethod
    def _can_be_written(cls, value: str, info: ValidationInfo) -> str:
        around = surroundings(info)
        path = check_output_path(value, example="out/{camera}.mp4", suffixes=(".mp4", ".mkv"))
        if around is not None:
            need, example = "a file of its own", "out/{camera}.mp4"
            check_one_per_camera(value, around.cameras, noun="path", need=need, example=example)
        return path


class CameraConfig(Section):
    """One camera: a live RTSP stream, or files that stand for one."""

    url: CameraUrl = Field(
        description="An rtsp:// or rtsps:// address, a video file, a file:// address, or a glob of files. Relative "
        "paths are looked up next to the configuration file, then in the working directory. In a password, write '@' "
        "as %40, '/' as %2F, '#' as %23, '?' as %3F and '%' as %25; the value of a ${NAME} need not be rewritten.",
        examples=["rtsp://user:${GATE_PASSWORD}@10.0.0.5/stream1", "samples/yard.mp4"],
    )
    username: Text | None = Field(
        default=None, description="User name at the camera, as it is; needs password. RTSP only.", examples=["viewer"]
    )
    password: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="Password at the camera, as it is; needs username.",
        examples=["${GATE_PASSWORD}"],
    )
    transport: Literal["auto", "tcp", "udp"] = Field(default="auto", description="How RTSP media travels; RTSP only.")
    decode: Literal["all", "nonref", "keyframes"] = Field(
        default="all",
        description="Which pictures are decoded: nonref leaves out those that no other depends on, keyframes all but "
        "the keyframes. Cheaper; what is left out counts as skipped.",
    )
    sample_fps: float | None = Field(
        default=None,
        gt=0,
        le=240,
        description="Frames a second to infer at most, evenly spread; left out, all. The others count as skipped.",
        examples=[5],
    )
    hwaccel: Literal["none", "auto", "cuda", "qsv"] = Field(
        default="none", description="Decode on such a device; in software where there is none, which the log says."
    )
    realtime: bool = Field(
        default=True,
        description="true paces files like a camera and may drop; false processes every frame, as fast as the "
        "machine allows. Files only.",
    )
    loop: bool = Field(default=False, description="true starts over at the end of the files. Files only.")
    priority: float = Field(
        default=1.0, gt=0, le=1000, description="Share of the engine under overload, relative to the other cameras."
    )
    classes: tuple[ClassName, ...] | None = Field(
        default=None, min_length=1, description="Classes to keep; left out, all.", examples=[["person", "car"]]
    )
    confidence: Ratio | None = Field(
        default=None, description="Overrides model.confidence for this camera.", examples=[0.4]
    )
    iou: Ratio | None = Field(default=None, description="Overrides model.iou for this camera.", examples=[0.5])
    max_detections: Limit | None = Field(
        default=None, description="Overrides model.max_detections for this camera.", examples=[100]
    )
    files: SkipJsonSchema[tuple[Path, ...]] = Field(
        default=(),
        validate_default=True,
        description="The files behind url, sorted; empty for RTSP. Found while loading, never configured.",
    )

    @field_validator("url")
    @classmethod
    def _files_exist(cls, value: str, info: ValidationInfo) -> str:
        around = surroundings(info)
        if around is not None and not is_rtsp(value):
            find_camera_files(value, around.folder)
        return value

    @field_validator("username")
    @classmethod
    def _is_needed(cls, value: str | None, info: ValidationInfo) -> str | None:
        url = info.data.get("url", "rtsp://")
        if value is not None and not is_rtsp(url):
            raise RefusedError(expected="a user name only with an rtsp:// address", remedy="Remove the key.")
        if value is not None and urlsplit(url).username is not None:
            remedy = "Remove user name and password from the address."
            raise RefusedError(expected="no user name beside the one in url", remedy=remedy)
        return value

    @field_validator("password")
    @classmethod
    def _is_paired(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return check_login(value, info, "the camera")

    @field_validator("transport")
    @classmethod
    def _is_live(cls, value: str, info: ValidationInfo) -> str:
        if "url" in info.data and not is_rtsp(info.data["url"]):
            remedy = "Remove the key: files do not travel over a network."
            raise RefusedError(expected="transport only with an rtsp:// address", remedy=remedy)
        return value

    @field_validator("realtime", "loop")
    @classmethod
    def _is_file(cls, value: bool, info: ValidationInfo) -> bool:
        if is_rtsp(info.data.get("url", "")):
            remedy = "Remove the key: a live camera sets its own pace and has no end."
            raise RefusedError(expected=f"{info.field_name} only with files", remedy=remedy)
        return value

    @field_validator("files", mode="before")
    @classmethod
    def _are_found(cls, value: object, info: ValidationInfo) -> object:
        around = surroundings(info)
        if around is None:
            return value
        if value != ():
            raise PydanticCustomError("extra_forbidden", "files are found, not configured")
        url = info.data.get("url")
        return () if url is None or is_rtsp(url) else find_camera_files(url, around.folder)

    @property
    def login(self) -> tuple[str, str]:
        """User name and password at the camera, as they are; empty where the url has them or none are needed."""
        return self.username or "", "" if self.password is None else self.password.get_secret_value()


class Config(Section):
    """A whole configuration: one site, one model, and its cameras."""

    site: Name = Field(default="local", description="Name of this installation, a level of every topic.")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="What runs the model.")
    model: ModelConfig = Field(description="The detector.", examples=[{"path": "yolov8n.onnx"}])
    models: Mapping[Name, SecondaryConfig] = Field(
        default={},
        description="Further models, each under its name, which look at what the detector or one another has found.",
        examples=[{"plates": {"path": "plates.onnx", "classes": ["car"]}}],
    )
    cascade: Literal["client", "server"] = Field(
        default="client",
        description="Who runs these models: the client, with requests to each of them, or the server, all of them in "
        "one request a picture, as a model that streamproc models build --ensemble makes of this file. Triton only.",
    )
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="How many frames, and how fresh.")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="How objects keep their identity.")
    mqtt: MqttConfig | None = Field(
        default=None, description="Publish to an MQTT broker.", examples=[{"url": "mqtt://127.0.0.1:1883"}]
    )
    file: FileConfig | None = Field(
        default=None, description="Write detections as JSON lines.", examples=[{"path": "out/{camera}.jsonl"}]
    )
    video: VideoConfig | None = Field(
        default=None, description="Write annotated video.", examples=[{"path": "out/{camera}.mp4"}]
    )
    rtsp: RtspConfig | None = Field(
        default=None, description="Serve annotated live streams, or push them.", examples=[{"listen": "127.0.0.1:8554"}]
    )
    cameras: Mapping[CameraName, CameraConfig] = Field(
        min_length=1,
        description="The cameras, each under its name.",
        examples=[{"gate": {"url": "rtsp://10.0.0.5/stream1"}}],
    )

    @field_validator("models")
    @classmethod
    def _are_a_tree(cls, value: Mapping[str, SecondaryConfig], info: ValidationInfo) -> Mapping[str, SecondaryConfig]:
        engine = info.data.get("engine")
        if value and engine is not None and engine.managed and engine.repository is None:
            raise RefusedError(
                found="models, and a managed server without a repository",
                expected="a repository that has them all",
                remedy="Build them with streamproc models build, and name their folder in engine.repository.",
            )
        return check_graph(value)

    @field_validator("cascade")
    @classmethod
    def _can_be_served(cls, value: str, info: ValidationInfo) -> str:
        engine = info.data.get("engine")
        if value == "client" or engine is None:
            return value
        if engine.kind != "triton":
            remedy = "Write engine.kind: triton, or cascade: client."
            raise RefusedError(expected="cascade: server only with engine.kind: triton", remedy=remedy)
        if engine.managed and engine.repository is None and "models" in info.data:
            raise RefusedError(
                found="'server', and a managed server without a repository",
                expected="a repository that has the cascade",
                remedy="Build it with streamproc models build --ensemble, and name the folder in engine.repository.",
            )
        return value

    @field_validator("tracking")
    @classmethod
    def _has_model(cls, value: TrackingConfig, info: ValidationInfo) -> TrackingConfig:
        models = info.data.get("models")
        if value.reid is not None and models is not None:
            model = models.get(value.reid.model)
            if model is None or model.on != DETECTOR or model.head not in ("auto", "embedding"):
                raise RefusedError(
                    found=f"reid by {value.reid.model!r}",
                    expected=f"one of models, on {DETECTOR}, with head: embedding",
                    remedy="Add it to models, or correct tracking.reid.model.",
                )
        return value

    @field_validator("cameras")
    @classmethod
    def _have_tracks(cls, value: Mapping[str, CameraConfig], info: ValidationInfo) -> Mapping[str, CameraConfig]:
        tracking = info.data.get("tracking")
        untracked = tracking is not None and tracking.algorithm == "none"
        if info.data.get("models") and untracked and any(camera.realtime for camera in value.values()):
            raise RefusedError(
                found="models, and live cameras without tracking",
                expected="a tracker, since what a model says of an object is kept with its track",
                remedy="Choose a tracker, for example tracking.algorithm: bytetrack, or set realtime: false for files.",
            )
        return value
