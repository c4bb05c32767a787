"""config.pbtxt: a served model's configuration, as the server's own protobuf message.

The message class is the one that the server parses the file with (Triton's ``model_config.proto``), so what is written
here and read back is what the server will read; the rules that it applies after parsing are applied here as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from google.protobuf import text_format  # type: ignore[import-untyped, unused-ignore]
from tritonclient.grpc import model_config_pb2 as pb  # type: ignore[import-untyped, unused-ignore]

from streamproc.config.ensemble import StepConfig
from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError
from streamproc.repository.options import Backend, BuildOptions, InstanceKind
from streamproc.repository.policy import VersionPolicy

__all__ = [
    "CONFIG_FILE",
    "LABELS_FILE",
    "MODEL_FILES",
    "ServedModel",
    "backend_of",
    "check_config",
    "inputs_of_config",
    "instances_of",
    "make_config",
    "model_file",
    "outputs_of_config",
    "parameters_of",
    "policy_of",
    "read_config",
    "render",
    "set_policy",
    "steps_of",
]

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
_QUEUE_TIMEOUT_MS = 1000
_QUEUE_SIZE = 128
MODEL_FILES: Mapping[str, str] = {
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "openvino": "model.onnx",  # OpenVINO reads ONNX itself, so no conversion can go wrong
    "python": "model.py",
}
"""The file that each backend loads from a version's folder."""

_SUFFIXES = {"onnxruntime": (".onnx",), "tensorrt": (".plan",), "openvino": (".xml", ".onnx"), "python": (".py",)}
# What older configurations say instead of a backend.
_PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}
_DTYPES = {
    "string": pb.TYPE_STRING,
    "bool": pb.TYPE_BOOL,
    "uint8": pb.TYPE_UINT8,
    "uint16": pb.TYPE_UINT16,
    "uint32": pb.TYPE_UINT32,
    "uint64": pb.TYPE_UINT64,
    "int8": pb.TYPE_INT8,
    "int16": pb.TYPE_INT16,
    "int32": pb.TYPE_INT32,
    "int64": pb.TYPE_INT64,
    "float16": pb.TYPE_FP16,
    "float32": pb.TYPE_FP32,
    "float64": pb.TYPE_FP64,
}
_NAMES = {number: name for name, number in _DTYPES.items()}
_KINDS: Mapping[InstanceKind, int] = {
    "auto": pb.ModelInstanceGroup.KIND_AUTO,
    "cpu": pb.ModelInstanceGroup.KIND_CPU,
    "gpu": pb.ModelInstanceGroup.KIND_GPU,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model as a server is to see it.

    ``inputs`` and ``outputs`` have the batch as their first dimension; with ``max_batch`` above 0 the server adds that
    itself. ``parameters`` are for clients and backends. ``file``: what the backend loads from a version's
    folder, None for its usual one. ``steps``: the models that an ensemble consists of; it has no backend or instances
    of its own. ``warm_up``: black pictures go through it before it counts as ready.
    """

    name: str
    backend: Backend
    max_batch: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    instances: int
    instance_kind: InstanceKind
    parameters: Mapping[str, str]
    policy: VersionPolicy
    file: str | None = None
    steps: tuple[StepConfig, ...] = ()
    warm_up: bool = True


def make_config(model: ServedModel, options: BuildOptions) -> pb.ModelConfig:
    """The configuration of a built model, with the queue that the options ask for."""
    config = pb.ModelConfig(name=model.name, max_batch_size=model.max_batch)
    skip = 1 if model.max_batch else 0
    for tensor in model.inputs:
        config.input.add(name=tensor.name, data_type=_DTYPES[tensor.dtype], dims=tensor.shape[skip:])
    named = {"label_filename": LABELS_FILE} if "names" in model.parameters else {}
    for tensor in model.outputs:
        config.output.add(name=tensor.name, data_type=_DTYPES[tensor.dtype], dims=tensor.shape[skip:], **named)
    set_policy(config, model.policy)
    for key, value in sorted(model.parameters.items()):
        config.parameters[key].string_value = value
    if model.steps:
        _add_steps(config, model.steps)
    else:
        _add_backend(config, model, options)
    if model.warm_up:
        _add_warm_up(config)
    return config


def render(config: pb.ModelConfig) -> str:
    """The text of a config.pbtxt."""
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text


def read_config(path: Path) -> pb.ModelConfig:
    """A model's configuration from its file.

    Raises:
        ModelError: it cannot be read or parsed; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ModelError(f"{path} cannot be read: {exc}. A served model needs a {CONFIG_FILE}: build it.") from exc
    config = pb.ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as exc:
        where = f" (line {exc.GetLine()}, column {exc.GetColumn()})" if exc.GetLine() else ""
        cause = str(exc).partition(" : ")[2] or str(exc)
        raise ModelError(
            f"{path}{where}: this is no configuration that Triton can read: {cause}. Correct the file, or build the "
            "model again."
        ) from exc
    return config


def check_config(config: pb.ModelConfig, path: Path) -> None:
    """Hold a parsed configuration against the rules that a server applies; ``path`` is its file, in the model's folder.

    Raises:
        ModelError: the server would refuse the model; every reason is named.
    """
    wrong = [*_wrong_model(config, path.parent.name), *_wrong_tensors(config), *_wrong_scheduling(config)]
    if wrong:
        raise ModelError(f"{path}: a server would refuse it: {'; '.join(wrong)}. Correct the file, or build it again.")


def backend_of(config: pb.ModelConfig) -> str:
    """The backend, also where an older file names a platform instead."""
    backend: str = config.backend or _PLATFORMS.get(config.platform, config.platform)
    return backend


def model_file(config: pb.ModelConfig) -> str | None:
    """The file that the backend loads from a version's folder; None for backends whose files are not known here."""
    named: str = config.default_model_filename
    return named or {**MODEL_FILES, "openvino": "model.xml"}.get(backend_of(config))


def inputs_of_config(config: pb.ModelConfig) -> tuple[TensorInfo, ...]:
    """A served model's inputs with the batch as their first dimension, -1 where the server batches."""
    return tuple(_tensor(tensor, config.max_batch_size) for tensor in config.input)


def outputs_of_config(config: pb.ModelConfig) -> tuple[TensorInfo, ...]:
    """A served model's outputs, likewise."""
    return tuple(_tensor(tensor, config.max_batch_size) for tensor in config.output)


def parameters_of(config: pb.ModelConfig) -> dict[str, str]:
    """What the configuration says to clients and backends."""
    return {key: value.string_value for key, value in config.parameters.items()}


def steps_of(config: pb.ModelConfig) -> tuple[StepConfig, ...]:
    """The models that an ensemble consists of; none for any other model. Nothing is checked."""
    return tuple(
        StepConfig.model_construct(
            model=step.model_name,
            version=step.model_version if step.model_version > 0 else None,
            inputs=dict(sorted(step.input_map.items())),
            outputs=dict(sorted(step.output_map.items())),
        )
        for step in config.ensemble_scheduling.step
    )


def instances_of(config: pb.ModelConfig) -> tuple[int, InstanceKind]:
    """How many instances a model has, one at least, and whether they are on a GPU."""
    on_gpu = backend_of(config) == "tensorrt" or any(group.kind == _KINDS["gpu"] for group in config.instance_group)
    count = sum(group.count * max(1, len(group.gpus)) for group in config.instance_group)
    return max(1, count), "gpu" if on_gpu else "cpu"


def policy_of(config: pb.ModelConfig) -> VersionPolicy:
    """Which versions the server serves; the newest where the file does not say."""
    chosen = config.version_policy.WhichOneof("policy_choice")
    if chosen == "specific":
        return VersionPolicy(latest=None, versions=tuple(sorted(config.version_policy.specific.versions)))
    if chosen == "all":
        return VersionPolicy(latest=None)
    return VersionPolicy(latest=config.version_policy.latest.num_versions or 1)


def set_policy(config: pb.ModelConfig, policy: VersionPolicy) -> None:
    """Change which versions are served."""
    config.ClearField("version_policy")
    if policy.versions:
        config.version_policy.specific.versions.extend(policy.versions)
    elif policy.latest is None:
        config.version_policy.all.SetInParent()
    else:
        config.version_policy.latest.num_versions = policy.latest


def _add_steps(config: pb.ModelConfig, steps: tuple[StepConfig, ...]) -> None:
    config.platform = "ensemble"
    for step in steps:
        added = config.ensemble_scheduling.step.add(model_name=step.model, model_version=step.version or -1)
        added.input_map.update(step.inputs)
        added.output_map.update(step.outputs)


def _add_backend(config: pb.ModelConfig, model: ServedModel, options: BuildOptions) -> None:
    config.backend = model.backend
    config.default_model_filename = model.file or MODEL_FILES[model.backend]
    config.instance_group.add(kind=_KINDS[model.instance_kind], count=model.instances)
    if model.max_batch and options.merges_requests:
        _add_queue(config, options)


def _add_queue(config: pb.ModelConfig, options: BuildOptions) -> None:
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = options.queue_delay_us or 0
    policy = batching.default_queue_policy
    policy.timeout_action = pb.ModelQueuePolicy.REJECT
    # A request's own timeout counts only where it is below this one: without a default it would be ignored.
    policy.default_timeout_microseconds = (options.queue_timeout_ms or _QUEUE_TIMEOUT_MS) * 1000
    policy.allow_timeout_override = True
    policy.max_queue_size = options.queue_size or _QUEUE_SIZE
    if options.priority_levels:
        batching.priority_levels = options.priority_levels
        batching.default_priority_level = options.default_priority or options.priority_levels


def _add_warm_up(config: pb.ModelConfig) -> None:
    """Black pictures alone and in a full batch: the server is ready only when both have been through."""
    for batch in sorted({1, max(1, config.max_batch_size)}):
        warm_up = config.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        for tensor in config.input:
            entry = warm_up.inputs[tensor.name]
            entry.data_type = tensor.data_type
            entry.dims.extend(tensor.dims)
            entry.zero_data = True


def _tensor(tensor: pb.ModelInput | pb.ModelOutput, max_batch: int) -> TensorInfo:
    dtype = _NAMES.get(tensor.data_type) or pb.DataType.Name(tensor.data_type)
    return TensorInfo(name=tensor.name, dtype=dtype, shape=(*((-1,) if max_batch else ()), *tensor.dims))


def _wrong_model(config: pb.ModelConfig, folder: str) -> Iterator[str]:
    if config.name and config.name != folder:
        yield f"its name is {config.name!r}, its folder {folder!r}: expected the same"
    if not config.backend and not config.platform:
        yield f"it names neither a backend nor a platform; expected backend, one of {', '.join(MODEL_FILES)}"
    backend, file = backend_of(config), config.default_model_filename
    suffixes = _SUFFIXES.get(backend)
    if file and suffixes and PurePath(file).suffix not in suffixes:
        yield f"default_model_filename is {file!r}; the {backend} backend loads {' or '.join(suffixes)}"
    if config.max_batch_size < 0:
        yield f"max_batch_size is {config.max_batch_size}; expected 0 or more"


def _wrong_tensors(config: pb.ModelConfig) -> Iterator[str]:
    for role, tensors in (("input", config.input), ("output", config.output)):
        if not tensors:
            yield f"it has no {role}"
        for name, count in Counter(tensor.name for tensor in tensors).items():
            if not name or count > 1:
                yield f"{role} {name!r} is there {count} times; expected names, each once"
        for tensor in tensors:
            if tensor.data_type == pb.TYPE_INVALID:
                yield f"{role} {tensor.name} has no data_type"
            if not tensor.dims or any(side < 1 and side != -1 for side in tensor.dims):
                yield f"{role} {tensor.name} has dims {list(tensor.dims)}; expected sizes, or -1 for an open one"


def _wrong_scheduling(config: pb.ModelConfig) -> Iterator[str]:
    batching = config.dynamic_batching
    if config.HasField("dynamic_batching") and not config.max_batch_size:
        yield "dynamic_batching needs a max_batch_size above 0"
    if batching.default_priority_level > batching.priority_levels:
        yield f"default_priority_level is {batching.default_priority_level}, of {batching.priority_levels} levels"
    if batching.priority_levels and not batching.default_priority_level:
        yield f"priority_levels is {batching.priority_levels}, without a default_priority_level"
    if any(size > config.max_batch_size for size in batching.preferred_batch_size):
        yield f"a preferred_batch_size is above max_batch_size ({config.max_batch_size})"
    for group in config.instance_group:
        if group.count < 0:
            yield f"an instance_group has count {group.count}"
    inputs = {tensor.name for tensor in config.input}
    for warm_up in config.model_warmup:
        if set(warm_up.inputs) != inputs:
            yield f"model_warmup {warm_up.name!r} feeds {sorted(warm_up.inputs)}; expected {sorted(inputs)}"
