"""What a served model takes and gives, read out of its configuration on the server."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tritonclient.grpc import model_config_pb2

from streamproc.config import EngineConfig, ModelConfig, SecondaryConfig
from streamproc.engines.base import TensorInfo
from streamproc.engines.intake import DEFAULT_SIZE, Intake, plan_intake
from streamproc.errors import ModelError

__all__ = ["TRITON_TYPES", "Served", "in_flight", "nbytes", "read_served"]

_DTYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
}
TRITON_TYPES = {dtype: name.removeprefix("TYPE_") for name, dtype in _DTYPES.items()}
"""The server's name of a tensor type by numpy's."""

_GPU_BATCH = 8  # a GPU gains from batches; on a CPU several single requests at once do better
_CROP_BATCH = 8  # of small crops, whose inference takes no longer than the request itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A served model as a client has to address it.

    ``intake``: its one input, the pictures, and the batch we send at most. ``outputs``: with the batch as the first
    dimension, -1 where open. ``instances``: batches the server works on at once. ``metadata``: the string parameters
    of the configuration, which carry what the exporter wrote into the file (``names``, ``task``, ...).
    """

    intake: Intake
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    instances: int
    on_gpu: bool
    backend: str
    metadata: Mapping[str, str]

    def fits(self, other: Served) -> bool:
        """Whether buffers made for one do for the other."""
        return (self.intake.slot_shape, self.inputs, self.outputs) == (
            other.intake.slot_shape,
            other.inputs,
            other.outputs,
        )


def read_served(config: model_config_pb2.ModelConfig, engine: EngineConfig, model: ModelConfig) -> Served:
    """Hold a model's configuration against what streamproc sends and against what was asked for.

    Raises:
        ModelError: its tensors do not suit, or max_batch or size is more than it takes.
    """
    batched = config.max_batch_size > 0
    inputs = tuple(_tensor(model.name, tensor, batched=batched) for tensor in config.input)
    outputs = tuple(_tensor(model.name, tensor, batched=batched) for tensor in config.output)
    if config.model_transaction_policy.decoupled:
        raise ModelError(
            f"model {model.name}: it is served decoupled (any number of answers a request); expected one answer a "
            "request. Remove model_transaction_policy from its config.pbtxt."
        )
    gpu = _on_gpu(config)
    most = config.max_batch_size if batched else 1
    wanted = engine.max_batch
    if batched and wanted != "auto" and wanted > most:
        raise ModelError(
            f"model {model.name}: the server takes batches of up to {most} (max_batch_size); engine.max_batch asks "
            f"for {wanted}. Set engine.max_batch to auto, or raise max_batch_size in the model's config.pbtxt."
        )
    intake = plan_intake(
        model.name,
        inputs,
        max_batch=wanted,
        auto_batch=min(_GPU_BATCH, most) if gpu and batched else 1,
        size=model.size,
    )
    if batched and not gpu and wanted == "auto" and isinstance(model, SecondaryConfig):
        intake = replace(intake, max_batch=min(most, _crops_at_once(intake.size)))
    if not outputs:
        raise ModelError(f"model {model.name}: its configuration names no output. Complete its config.pbtxt.")
    return Served(
        intake=intake,
        inputs=inputs,
        outputs=outputs,
        instances=_instances(config),
        on_gpu=gpu,
        backend=config.backend or config.platform,
        metadata={key: parameter.string_value for key, parameter in config.parameters.items()},
    )


def in_flight(engine: EngineConfig, served: Served) -> int:
    """Batches at one server at once: one for each instance, and one that waits to follow the first that ends.

    Without that one, an instance stands idle while its answer comes back and the next request travels, which on a GPU
    is a good part of the time.
    """
    return served.instances + 1 if engine.in_flight == "auto" else engine.in_flight


def _crops_at_once(size: tuple[int, int]) -> int:
    """How many crops of ``size`` (width, height) go to a processor's server in one request: together at most as many
    pixels as one usual picture has.

    Measured with the Python backend on two cores that client and server share, OSNet x0.25 and an LPRNet, one instance
    and two: requests of 8 crops bring 1.27 to 1.38 times as many crops a second as single ones, those of 4 1.13 to
    1.40, and take 0.09 and 0.15 ms of the client's processor time a crop instead of 0.33. A crop that is alone in its
    request is answered as soon as ever (2 to 3 ms), since no rows are computed but those that are sent. Where a crop's
    inference takes 10 ms or more, there is nothing to gain, and memory for eight to lose.

    >>> _crops_at_once((94, 24)), _crops_at_once((320, 320)), _crops_at_once((1280, 736))
    (8, 4, 1)
    """
    return max(1, min(_CROP_BATCH, math.prod(DEFAULT_SIZE) // math.prod(size)))


def _tensor(
    model: str, tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput, *, batched: bool
) -> TensorInfo:
    kind = model_config_pb2.DataType.Name(tensor.data_type)
    if kind not in _DTYPES:
        readable = kind.removeprefix("TYPE_")
        raise ModelError(
            f"model {model}: its tensor {tensor.name} is {readable}, which has no counterpart in numpy; expected "
            "UINT8, FP16, FP32 or another number. Export the model with FP32 outputs."
        )
    shape = tuple(int(side) for side in tensor.dims)
    return TensorInfo(name=tensor.name, dtype=_DTYPES[kind], shape=(-1, *shape) if batched else shape)


def _on_gpu(config: model_config_pb2.ModelConfig) -> bool:
    kinds = model_config_pb2.ModelInstanceGroup.Kind
    named = [group.kind for group in config.instance_group]
    return config.backend == "tensorrt" or kinds.Value("KIND_GPU") in named


def _instances(config: model_config_pb2.ModelConfig) -> int:
    counts: list[int] = [group.count * max(1, len(group.gpus)) for group in config.instance_group]
    return max(1, sum(counts))


def nbytes(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of a tensor of this shape."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
