"""config.pbtxt: every option lands in it, and what a server would refuse is refused here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped, unused-ignore]
from tritonclient.grpc import model_config_pb2 as pb  # type: ignore[import-untyped, unused-ignore]

from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError
from streamproc.repository.config_pbtxt import (
    MODEL_FILES,
    ServedModel,
    backend_of,
    check_config,
    inputs_of_config,
    make_config,
    model_file,
    outputs_of_config,
    parameters_of,
    policy_of,
    read_config,
    render,
    set_policy,
)
from streamproc.repository.options import BuildOptions
from streamproc.repository.policy import VersionPolicy

MODEL = ServedModel(
    name="yolo",
    backend="onnxruntime",
    max_batch=8,
    inputs=(TensorInfo(name="images", dtype="uint8", shape=(-1, 64, 96, 3)),),
    outputs=(TensorInfo(name="output0", dtype="float16", shape=(-1, 6, 84)),),
    instances=2,
    instance_kind="auto",
    parameters={"names": "{0: 'a \"b\"', 1: 'ü'}", "task": "detect"},
    policy=VersionPolicy(),
)


def made(model: ServedModel = MODEL, **options: Any) -> pb.ModelConfig:
    """A configuration that has been to text and back."""
    config = make_config(model, BuildOptions(repository=Path("models"), **options))
    parsed = text_format.Parse(render(config), pb.ModelConfig())
    assert parsed == config
    check_config(parsed, Path("models") / model.name / "config.pbtxt")
    return parsed


def test_tensors_and_parameters() -> None:
    config = made()
    assert (config.name, config.backend, config.max_batch_size) == ("yolo", "onnxruntime", 8)
    assert (config.input[0].data_type, list(config.input[0].dims)) == (pb.TYPE_UINT8, [64, 96, 3])
    assert (config.output[0].data_type, list(config.output[0].dims)) == (pb.TYPE_FP16, [6, 84])
    assert config.output[0].label_filename == "labels.txt"
    assert inputs_of_config(config) == MODEL.inputs
    assert outputs_of_config(config) == MODEL.outputs
    assert parameters_of(config) == MODEL.parameters


def test_without_batching_the_shapes_begin_with_the_batch() -> None:
    whole = TensorInfo(name="images", dtype="float32", shape=(1, 3, 64, 96))
    config = made(replace(MODEL, max_batch=0, inputs=(whole,)))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [1, 3, 64, 96]
    assert not config.HasField("dynamic_batching")
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1]
    assert inputs_of_config(config) == (whole,)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt", "openvino", "python"])
def test_every_backend_loads_its_file(backend: Any) -> None:
    config = made(replace(MODEL, backend=backend))
    assert config.default_model_filename == MODEL_FILES[backend] == model_file(config)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("auto", pb.ModelInstanceGroup.KIND_AUTO),
        ("cpu", pb.ModelInstanceGroup.KIND_CPU),
        ("gpu", pb.ModelInstanceGroup.KIND_GPU),
    ],
)
def test_instances(kind: Any, number: int) -> None:
    (group,) = made(replace(MODEL, instance_kind=kind, instances=3)).instance_group
    assert (group.kind, group.count) == (number, 3)


def test_queue_by_default_rejects_what_has_waited_too_long() -> None:
    batching = made().dynamic_batching
    policy = batching.default_queue_policy
    assert batching.max_queue_delay_microseconds == 0
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds == 1_000_000
    assert policy.allow_timeout_override
    assert policy.max_queue_size == 128
    assert batching.priority_levels == batching.default_priority_level == 0


def test_queue_as_asked_for() -> None:
    batching = made(queue_delay_us=700, queue_timeout_ms=50, queue_size=9).dynamic_batching
    assert batching.max_queue_delay_microseconds == 700
    assert batching.default_queue_policy.default_timeout_microseconds == 50_000
    assert batching.default_queue_policy.max_queue_size == 9


@pytest.mark.parametrize(
    ("options", "merges"),
    [({}, False), ({"instance_kind": "gpu"}, True), ({"queue_size": 9}, True), ({"priority_levels": 2}, True)],
)
def test_requests_to_python_on_a_processor_are_merged_only_if_asked_for(options: Any, merges: bool) -> None:
    config = made(replace(MODEL, backend="python"), backend="python", **options)
    assert config.HasField("dynamic_batching") == merges


@pytest.mark.parametrize(("default", "expected"), [(None, 3), (1, 1)])
def test_priorities(default: int | None, expected: int) -> None:
    batching = made(priority_levels=3, default_priority=default).dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (3, expected)


def test_warm_up_with_one_picture_and_a_full_batch() -> None:
    config = made()
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 8]
    for warm_up in config.model_warmup:
        entry = warm_up.inputs["images"]
        assert (entry.data_type, list(entry.dims), entry.zero_data) == (pb.TYPE_UINT8, [64, 96, 3], True)
    assert len(made(replace(MODEL, max_batch=1)).model_warmup) == 1


@pytest.mark.parametrize(
    "policy",
    [VersionPolicy(), VersionPolicy(latest=3), VersionPolicy(latest=None), VersionPolicy(latest=None, versions=(1, 4))],
)
def test_version_policy(policy: VersionPolicy) -> None:
    config = made(replace(MODEL, policy=policy))
    assert policy_of(config) == policy
    set_policy(config, VersionPolicy(latest=None, versions=(2,)))
    assert policy_of(config) == VersionPolicy(latest=None, versions=(2,))


def test_defaults_of_configurations_made_by_others(tmp_path: Path) -> None:
    path = tmp_path / "yolo" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(
        'platform: "tensorrt_plan" max_batch_size: 4\n'
        'input [{ name: "images", data_type: TYPE_FP32, dims: [3, -1, -1] }]\n'
        'output [{ name: "output0", data_type: TYPE_BF16, dims: [84, -1] }]\n'
    )
    config = read_config(path)
    check_config(config, path)
    assert backend_of(config) == "tensorrt"
    assert model_file(config) == "model.plan"
    assert policy_of(config) == VersionPolicy()
    assert inputs_of_config(config)[0].shape == (-1, 3, -1, -1)
    assert outputs_of_config(config)[0].dtype == "TYPE_BF16"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "yolo"\nmax_batch: 8\n', r"line 2, column 1.*no field named \"max_batch\""),
        ("input [{ dims: [a] }]", r"line 1, column"),
        ("{", "no configuration that Triton can read"),
    ],
)
def test_text_that_cannot_be_parsed(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    with pytest.raises(ModelError, match=said) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(tmp_path / "config.pbtxt")
    (tmp_path / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(tmp_path / "config.pbtxt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "other"}, "its name is 'other', its folder 'yolo'"),
        ({"backend": ""}, "neither a backend nor a platform"),
        ({"default_model_filename": "model.plan"}, "the onnxruntime backend loads .onnx"),
        ({"max_batch_size": -1}, "max_batch_size is -1"),
    ],
)
def test_what_a_server_would_refuse(change: dict[str, Any], said: str) -> None:
    config = made()
    for key, value in change.items():
        setattr(config, key, value)
    with pytest.raises(ModelError, match=said):
        check_config(config, Path("models/yolo/config.pbtxt"))


def test_everything_wrong_is_named_at_once() -> None:
    config = made()
    config.input[0].dims[0] = 0
    config.input[0].data_type = pb.TYPE_INVALID
    config.output.add(name="output0", data_type=pb.TYPE_FP32, dims=[1])
    config.dynamic_batching.priority_levels = 2
    config.dynamic_batching.preferred_batch_size.append(16)
    config.instance_group[0].count = -1
    config.model_warmup[0].inputs["other"].zero_data = True
    with pytest.raises(ModelError) as caught:
        check_config(config, Path("models/yolo/config.pbtxt"))
    for said in (
        "input images has dims",
        "input images has no data_type",
        "output 'output0' is there 2 times",
        "priority_levels is 2, without",
        "preferred_batch_size is above",
        "count -1",
        "model_warmup 'batch of 1' feeds",
    ):
        assert said in str(caught.value)
    config = made()
    config.max_batch_size = 0
    config.dynamic_batching.default_priority_level = 2
    del config.input[:]
    with pytest.raises(ModelError, match=r"it has no input; .*dynamic_batching needs.*default_priority_level is 2"):
        check_config(config, Path("models/yolo/config.pbtxt"))
