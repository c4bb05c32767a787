"""Options that contradict each other are refused together, before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamproc.errors import ConfigError
from streamproc.repository.options import BuildOptions, Made, check_options
from streamproc.repository.policy import VersionPolicy

REPOSITORY = Path("models")


def refused(*, made_from: Made = "graph", **options: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check_options(BuildOptions(repository=REPOSITORY, **options), made_from=made_from)
    return {problem.key: problem.expected for problem in caught.value.problems}


def test_defaults_are_fine() -> None:
    check_options(BuildOptions(repository=REPOSITORY))


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "python", "precision": "bf16"},
        {"backend": "openvino", "precision": "bf16", "threads": 4},
        {"backend": "tensorrt", "precision": "int8", "calibration": Path("pictures"), "confidence": 0.1},
        {"backend": "openvino", "precision": "int8", "calibration": Path("pictures"), "calibration_pictures": 300},
        {"priority_levels": 3, "default_priority": 2, "queue_delay_us": 500},
        {"backend": "python", "runtime": "onnxruntime", "instance_kind": "gpu"},
        {"fuse_suppression": True, "max_detections": 100},
    ],
)
def test_options_that_agree(options: dict[str, Any]) -> None:
    check_options(BuildOptions(repository=REPOSITORY, **options))


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"name": "a/b"}, {"name"}),
        ({"name": ".hidden"}, {"name"}),
        ({"version": 0}, {"version"}),
        ({"max_batch": -1}, {"max_batch"}),
        ({"max_batch": 257}, {"max_batch"}),
        ({"instances": 0, "threads": 0}, {"instances", "threads"}),
        ({"queue_timeout_ms": 0, "queue_size": 0}, {"queue_timeout_ms", "queue_size"}),
        ({"queue_delay_us": -1}, {"queue_delay_us"}),
        ({"priority_levels": 2, "default_priority": 3}, {"default_priority"}),
        ({"default_priority": 1}, {"default_priority"}),
        ({"max_batch": 0, "priority_levels": 2}, {"max_batch"}),
        ({"max_batch": 0, "queue_delay_us": 100}, {"max_batch"}),
        ({"precision": "bf16"}, {"precision"}),
        ({"precision": "bf16", "backend": "python", "runtime": "onnxruntime"}, {"precision"}),
        ({"precision": "int8"}, {"calibration"}),
        ({"calibration": Path("pictures")}, {"calibration"}),
        ({"calibration_pictures": 100}, {"calibration_pictures"}),
        ({"precision": "int8", "calibration": Path("pictures"), "calibration_pictures": 0}, {"calibration_pictures"}),
        (
            {"precision": "int8", "calibration": Path("pictures"), "backend": "python", "fuse_suppression": True},
            {"fuse_suppression"},
        ),
        ({"precision": "int8", "calibration": Path("pictures"), "fuse_intake": False}, {"fuse_intake"}),
        ({"backend": "tensorrt", "instance_kind": "cpu", "threads": 2}, {"instance_kind", "threads"}),
        ({"backend": "openvino", "instance_kind": "gpu"}, {"instance_kind"}),
        ({"backend": "python", "instance_kind": "gpu"}, {"instance_kind"}),
        ({"runtime": "openvino"}, {"runtime"}),
        ({"confidence": 0.3, "iou": 0.5, "max_detections": 10}, {"confidence", "iou", "max_detections"}),
        ({"fuse_suppression": True, "confidence": 0.0, "iou": 1.1}, {"confidence", "iou"}),
        ({"onnx": Path("a.onnx"), "tensorrt_version": "10"}, {"onnx", "tensorrt_version"}),
    ],
)  # fmt: skip
def test_options_that_contradict(options: dict[str, Any], keys: set[str]) -> None:
    assert set(refused(**options)) == keys


@pytest.mark.parametrize("head", ["classifier", "ctc", "embedding"])
def test_what_is_for_boxes_is_refused_where_there_are_none(head: Any) -> None:
    check_options(BuildOptions(repository=REPOSITORY, head=head, precision="fp16", backend="tensorrt"))
    found = refused(head=head, fuse_suppression=True, iou=0.5, precision="int8", calibration=REPOSITORY, labels=("a",))
    assert set(found) == {"fuse_suppression", "iou", "precision"} | ({"labels"} if head != "classifier" else set())
    assert found["iou"] == f"it for detectors only, not with head {head}"


def test_a_plan_is_as_it_is() -> None:
    found = refused(
        made_from="plan", precision="fp16", fuse_suppression=True, verify=(Path("a.jpg"),), size=(64, 64), max_batch=4
    )
    assert set(found) == {"backend", "precision", "fuse_suppression", "verify", "size", "max_batch"}
    options = BuildOptions(repository=REPOSITORY, backend="tensorrt", tensorrt_version="10.3")
    check_options(options, made_from="plan")


def test_a_function_is_called_by_the_python_backend_on_any_device() -> None:
    check_options(BuildOptions(repository=REPOSITORY, backend="python", instance_kind="gpu"), made_from="function")
    found = refused(
        made_from="function", fuse_intake=False, precision="fp16", size=(64, 64), threads=2, runtime="onnxruntime"
    )
    assert set(found) == {"backend", "fuse_intake", "precision", "size", "threads", "runtime"}
    assert found["size"] == "it for a model file only"


def test_torchscript_is_as_it_is_and_tells_nothing() -> None:
    told: dict[str, Any] = {"head": "classifier", "labels": ("cat", "dog"), "size": (64, 64), "backend": "python"}
    options = BuildOptions(repository=REPOSITORY, **told, instance_kind="gpu", threads=2, fit="letterbox")
    check_options(options, made_from="torchscript")
    assert set(refused(made_from="torchscript")) == {"backend", "head", "labels", "size"}
    found = refused(
        made_from="torchscript", **told, fuse_intake=False, runtime="openvino", precision="bf16", onnx=REPOSITORY
    )
    assert set(found) == {"fuse_intake", "runtime", "precision", "onnx"}
    assert found["runtime"] == "it for an ONNX file only"


def test_an_ensemble_has_what_its_models_have() -> None:
    policy = VersionPolicy(latest=None)
    options = BuildOptions(repository=REPOSITORY, backend="ensemble", labels=("cat",), version_policy=policy)
    check_options(options, made_from="ensemble")
    found = refused(made_from="ensemble", backend="ensemble", max_batch=2, instances=2, queue_size=3, onnx=Path("a"))
    assert set(found) == {"max_batch", "instances", "queue_size", "onnx"}
    assert set(refused(backend="ensemble")) == {"backend"}
