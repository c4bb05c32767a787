"""What a served model's configuration means to us, and what is said where it will not do."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2

from streamproc.config import EngineConfig, ModelConfig, SecondaryConfig
from streamproc.engines.base import TensorInfo
from streamproc.engines.triton.served import Served, in_flight, read_served
from streamproc.errors import ModelError

OUTPUT = 'output [{ name: "output0" data_type: TYPE_FP32 dims: [84, -1] }]'


def configuration(
    *, batch: int = 8, dims: str = "640, 640, 3", dtype: str = "TYPE_UINT8", output: str = OUTPUT, more: str = ""
) -> model_config_pb2.ModelConfig:
    text = f"""
        name: "yolo"
        max_batch_size: {batch}
        input [{{ name: "images" data_type: {dtype} dims: [{dims}] }}]
        {output}
        {more}
        """
    config: model_config_pb2.ModelConfig = text_format.Parse(text, model_config_pb2.ModelConfig())
    return config


def read(config: model_config_pb2.ModelConfig, *, size: tuple[int, int] | None = None, **settings: Any) -> Served:
    engine = EngineConfig(kind="triton", **settings)
    return read_served(config, engine, ModelConfig(name="yolo", size=size))


@pytest.mark.parametrize(
    ("dtype", "numpy"), [("TYPE_UINT8", "uint8"), ("TYPE_FP16", "float16"), ("TYPE_FP32", "float32")]
)
@pytest.mark.parametrize(("dims", "first"), [("3, 480, 640", True), ("480, 640, 3", False)])
def test_pictures_of_every_type_and_order(dtype: str, numpy: str, dims: str, first: bool) -> None:
    served = read(configuration(dtype=dtype, dims=dims))
    intake = served.intake
    assert (intake.tensor, intake.dtype, intake.channels_first, intake.size) == ("images", numpy, first, (640, 480))
    assert served.inputs[0].shape == (-1, *map(int, dims.split(",")))
    assert served.outputs == (TensorInfo(name="output0", dtype="float32", shape=(-1, 84, -1)),)


def test_open_dimensions_take_the_size_asked_for() -> None:
    assert read(configuration(dims="3, -1, -1")).intake.size == (640, 640)
    assert read(configuration(dims="3, -1, -1"), size=(320, 192)).intake.size == (320, 192)


@pytest.mark.parametrize(
    ("config", "settings", "batch"),
    [
        (configuration(dims="24, 94, 3"), {}, 8),
        (configuration(dims="24, 94, 3", batch=4), {}, 4),
        (configuration(dims="24, 94, 3"), {"max_batch": 2}, 2),
        (configuration(dims="-1, 24, 94, 3", batch=0), {}, 1),
        (configuration(), {}, 1),
        (configuration(more="instance_group [{ kind: KIND_GPU }]"), {}, 8),
    ],
    ids=["small", "the server's", "as configured", "no batching", "as large as pictures", "on a GPU"],
)
def test_how_many_crops_at_once(config: model_config_pb2.ModelConfig, settings: dict[str, Any], batch: int) -> None:
    served = read_served(config, EngineConfig(kind="triton", **settings), SecondaryConfig(name="crops"))
    assert served.intake.max_batch == batch


@pytest.mark.parametrize(
    ("config", "settings", "batch", "is_open"),
    [
        (configuration(), {}, 1, True),
        (configuration(), {"max_batch": 8}, 8, True),
        (configuration(more="instance_group [{ kind: KIND_GPU }]"), {}, 8, True),
        (configuration(batch=4, more="instance_group [{ kind: KIND_GPU }]"), {}, 4, True),
        (configuration(batch=64, more='backend: "tensorrt"'), {}, 8, True),
        (configuration(batch=0, dims="4, 3, 640, 640"), {}, 4, False),
        (configuration(batch=0, dims="-1, 3, 640, 640"), {}, 1, True),
        (configuration(batch=0, dims="-1, 3, 640, 640"), {"max_batch": 6}, 6, True),
    ],
)
def test_how_many_pictures_at_once(
    config: model_config_pb2.ModelConfig, settings: dict[str, Any], batch: int, is_open: bool
) -> None:
    intake = read(config, **settings).intake
    assert (intake.max_batch, intake.open_batch) == (batch, is_open)


@pytest.mark.parametrize(
    ("groups", "instances", "requests"),
    [
        ("", 1, 2),
        ("instance_group [{ kind: KIND_CPU count: 1 }]", 1, 2),
        ("instance_group [{ kind: KIND_CPU count: 3 }]", 3, 4),
        ("instance_group [{ kind: KIND_GPU count: 2 gpus: [0, 1] }]", 4, 5),
        ("instance_group [{ kind: KIND_GPU count: 1 }, { kind: KIND_CPU count: 2 }]", 3, 4),
    ],
)
def test_one_request_more_than_instances(groups: str, instances: int, requests: int) -> None:
    served = read(configuration(more=groups))
    assert served.instances == instances
    assert in_flight(EngineConfig(kind="triton"), served) == requests
    assert in_flight(EngineConfig(kind="triton", in_flight=7), served) == 7


def test_its_parameters_are_the_metadata() -> None:
    more = 'parameters { key: "names" value { string_value: "{0: \'person\'}" } }'
    assert read(configuration(more=more)).metadata == {"names": "{0: 'person'}"}


def test_what_the_same_buffers_do_for() -> None:
    one = read(configuration())
    assert one.fits(read(configuration(more="instance_group [{ kind: KIND_CPU count: 3 }]")))
    assert not one.fits(read(configuration(dims="320, 320, 3")))
    assert not one.fits(read(configuration(output='output [{ name: "other" data_type: TYPE_FP32 dims: [84, -1] }]')))


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        (configuration(), {"max_batch": 9}, "the server takes batches of up to 8 (max_batch_size); engine.max_batch "
         "asks for 9. Set engine.max_batch to auto, or raise max_batch_size"),
        (configuration(batch=0, dims="1, 3, 640, 640"), {"max_batch": 4}, "its batch is fixed at 1; engine.max_batch "
         "asks for 4. Set engine.max_batch to auto"),
        (configuration(dims="640, 640, 4"), {}, "its inputs are images uint8 (-1, 640, 640, 4); expected one picture "),
        (configuration(dims="3, 640"), {}, "expected one picture tensor (batch, 3, height, width)"),
        (configuration(dtype="TYPE_INT32"), {}, "its inputs are images int32"),
        (configuration(dtype="TYPE_STRING"), {}, "its tensor images is STRING, which has no counterpart in numpy; "
         "expected UINT8, FP16, FP32"),
        (configuration(output='output [{ name: "o" data_type: TYPE_BF16 dims: [1] }]'), {}, "its tensor o is BF16"),
        (configuration(output=""), {}, "its configuration names no output. Complete its config.pbtxt"),
        (configuration(more='input [{ name: "more" data_type: TYPE_FP32 dims: [1] }]'), {}, "its inputs are images "
         "uint8 (-1, 640, 640, 3), more float32 (-1, 1); expected one picture tensor"),
        (configuration(more="model_transaction_policy { decoupled: true }"), {}, "it is served decoupled (any number "
         "of answers a request); expected one answer a request. Remove model_transaction_policy"),
    ],
)  # fmt: skip
def test_what_will_not_do(config: model_config_pb2.ModelConfig, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as refused:
        read(config, **settings)
    assert str(refused.value).startswith("model yolo: ")
    assert said in str(refused.value)


def test_a_size_other_than_its_own() -> None:
    with pytest.raises(ModelError, match=r"model yolo: its input is fixed at 640x640 .* model.size asks for 320x320"):
        read(configuration(), size=(320, 320))
