"""The engine's section of ``cameras.yaml``: what runs the model, in this process or behind a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from streamproc.config.addresses import TRITON_DEFAULT_URL
from streamproc.config.fields import HeaderName, InFlight, MaxBatch, Section, Text, TritonUrl, surroundings
from streamproc.config.files import find_directory
from streamproc.config.refusals import RefusedError
from streamproc.config.tls import GrpcTlsConfig

__all__ = ["EngineConfig"]

_IN_PROCESS_ONLY = ("device", "precision", "threads")
_TRITON_ONLY = (
    "url",
    "urls",
    "shared_memory",
    "headers",
    "tls",
    "timeout_s",
    "ready_timeout_s",
    "in_flight",
    "priority",
    "managed",
    "repository",
)


class EngineConfig(Section):
    """What runs the model."""

    kind: Literal["openvino", "onnxruntime", "triton", "null"] = Field(
        default="openvino",
        description="Inference engine: in this process (openvino is the faster one on a CPU), or an NVIDIA Triton "
        "Inference Server. For measuring only, 'null', which YAML needs in quotes: it answers at once and finds "
        "nothing; pictures are of model.size, and no file is read.",
    )
    device: Text = Field(
        default="auto",
        description="OpenVINO device (CPU, GPU, NPU) or ONNX Runtime execution provider; auto lets the engine choose.",
        examples=["auto", "CPU", "CUDAExecutionProvider"],
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Arithmetic; bf16 needs openvino, auto takes it where the processor has it."
    )
    max_batch: MaxBatch = Field(default="auto", description="Pictures in one inference at most, 1 to 256, or auto.")
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="Threads for inference; left out, the engine chooses.", examples=[4]
    )
    managed: bool = Field(
        default=False,
        description="true starts a Triton server on this machine for as long as we run, over engine.repository or "
        "over a repository built from model.path. Triton only, as are the keys below.",
    )
    repository: Path | None = Field(
        default=None, description="Model repository of the managed server.", examples=["models"]
    )
    url: TritonUrl | None = Field(
        default=None,
        description=f"The server's gRPC address, grpc://HOST:8001, or grpcs:// with TLS; left out, "
        f"{TRITON_DEFAULT_URL}.",
        examples=[TRITON_DEFAULT_URL],
    )
    urls: tuple[TritonUrl, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Several servers of the same model, instead of url: each batch goes to the one with the fewest in "
        "flight, and one that is ill gets none until it is well again.",
        examples=[["grpc://10.0.0.5:8001", "grpc://10.0.0.6:8001"]],
    )
    shared_memory: Literal["auto", "cuda", "system", "none"] = Field(
        default="auto",
        description="How tensors reach the server: in GPU memory, in shared memory, or within the request (none). "
        "auto takes the first of these that works with each server, and says which.",
    )
    headers: Mapping[HeaderName, SecretStr] = Field(
        default={}, description="gRPC headers of every request.", examples=[{"authorization": "Bearer ${TRITON_TOKEN}"}]
    )
    tls: GrpcTlsConfig | None = Field(
        default=None, description="Certificates; only with grpcs://.", examples=[{"ca": "certs/ca.pem"}]
    )
    timeout_s: float = Field(
        default=5.0, gt=0, le=600, description="Seconds after which a batch that the server has not answered is lost."
    )
    ready_timeout_s: float = Field(
        default=120.0, gt=0, le=86_400, description="Seconds to wait, at the start, for server and model to be ready."
    )
    in_flight: InFlight = Field(
        default="auto",
        description="Batches at each server at once; auto takes one more than the model has instances.",
    )
    priority: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Priority of our requests in the server's queue, 1 the highest; left out, the model's default.",
        examples=[1],
    )

    @field_validator(*_IN_PROCESS_ONLY, *_TRITON_ONLY)
    @classmethod
    def _fits_kind(cls, value: object, info: ValidationInfo) -> object:
        kind, key = info.data.get("kind", "openvino"), info.field_name or ""
        if kind == "triton" and key in _IN_PROCESS_ONLY and value not in ("auto", None):
            remedy = f"Remove {key}: the served model's own configuration decides."
            raise RefusedError(expected=f"no {key} with kind: triton", remedy=remedy)
        if kind == "null" and key in _IN_PROCESS_ONLY and value not in ("auto", None):
            remedy = f"Remove {key}: nothing is computed."
            raise RefusedError(expected=f"no {key} with kind: 'null'", remedy=remedy)
        if kind != "triton" and key in _TRITON_ONLY and value != cls.model_fields[key].default:
            remedy = f"Write kind: triton, or remove {key}."
            raise RefusedError(expected=f"{key} only with kind: triton", remedy=remedy)
        if key == "precision" and value == "bf16" and kind == "onnxruntime":
            remedy = "Write precision: auto, or engine.kind: openvino."
            raise RefusedError(expected="auto or fp32 with onnxruntime", remedy=remedy)
        return value

    @field_validator("repository")
    @classmethod
    def _is_managed(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not info.data.get("managed", True):
            remedy = "Write managed: true to have a server started over it, or remove the key."
            raise RefusedError(expected="a repository only with engine.managed: true", remedy=remedy)
        around = surroundings(info)
        return find_directory(str(value), around.folder, "a model repository") if around and value else value

    @field_validator("url", "urls", "tls", "headers")
    @classmethod
    def _is_not_ours(cls, value: object, info: ValidationInfo) -> object:
        if value and info.data.get("managed"):
            remedy = f"Remove {info.field_name}: the server that managed: true starts serves us alone."
            raise RefusedError(expected=f"no {info.field_name} with engine.managed: true", remedy=remedy)
        return value

    @field_validator("urls")
    @classmethod
    def _is_one_of_two(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("url") is not None:
            raise RefusedError(expected="either url or urls", remedy="Move engine.url into the list, or remove it.")
        if value is not None and len(set(value)) < len(value):
            raise RefusedError(expected="each server once", remedy="Remove the repetition.")
        return value

    @field_validator("tls")
    @classmethod
    def _is_encrypted(cls, value: GrpcTlsConfig | None, info: ValidationInfo) -> GrpcTlsConfig | None:
        addresses = [*(info.data.get("urls") or ()), *filter(None, [info.data.get("url")])]
        if value is not None and not any(address.startswith("grpcs://") for address in addresses):
            remedy = "Write grpcs:// in engine.url, or remove the tls section."
            raise RefusedError(expected="a tls section only with grpcs://", remedy=remedy)
        return value

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, value: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
        for name, text in value.items():
            plain = text.get_secret_value()
            if not plain.isascii() or not plain.isprintable() or not plain.strip():
                raise RefusedError(
                    found=f"a value of {name} that cannot be a header",
                    expected="printable ASCII text",
                    remedy="Remove line ends and other invisible characters from it.",
                )
        return value

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of every Triton server, ``grpc://host:port`` or ``grpcs://host:port``."""
        return self.urls or (self.url or TRITON_DEFAULT_URL,)
