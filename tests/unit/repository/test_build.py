"""Building: from a detector's file to what lies in a repository."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamproc.config import PixelsConfig
from streamproc.errors import ConfigError, ModelError
from streamproc.graphs.reading import inputs_of, outputs_of, read_onnx
from streamproc.repository.build import BuiltModel, build
from streamproc.repository.config_pbtxt import parameters_of, policy_of, read_config
from streamproc.repository.inspection import inspect
from streamproc.repository.options import BuildOptions
from streamproc.repository.policy import VersionPolicy
from streamproc.repository.session import Session
from streamproc.repository.versions import list_models
from tests.tiny_models import save_means
from tests.unit.repository.detectors import CELLS, save_detector, save_picture
from tests.unit.repository.plan_files import BODY, METADATA, write_plan


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_detector(tmp_path / "tiny.onnx")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


def config_of(repository: Path, name: str = "tiny") -> Any:
    return read_config(repository / name / "config.pbtxt")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_default_model(source: Path, repository: Path) -> None:
    built = build(source, BuildOptions(repository=repository))
    assert (built.name, built.version, built.folder) == ("tiny", 1, repository / "tiny" / "1")
    assert (built.backend, built.head, built.max_batch, built.served) == ("onnxruntime", "yolo", 8, True)
    assert built.to_do is None
    assert files(repository) == {
        f"tiny/{name}" for name in ("config.pbtxt", "labels.txt", "1/model.onnx", "1/build.json")
    }
    assert (repository / "tiny" / "labels.txt").read_text() == "person\ncar\n"
    config = config_of(repository)
    assert [(t.name, list(t.dims)) for t in config.input] == [("images", [64, 64, 3])]
    assert [(t.name, list(t.dims)) for t in config.output] == [("output0", [6, CELLS])]
    assert parameters_of(config) == {
        "names": "{0: 'person', 1: 'car'}",
        "task": "detect",
        "stride": "32",
        "imgsz": "[64, 64]",
    }
    graph = read_onnx(built.folder / "model.onnx")
    assert [(t.name, t.dtype, t.shape) for t in inputs_of(graph)] == [("images", "uint8", (-1, 64, 64, 3))]
    origin = json.loads((built.folder / "build.json").read_text())
    assert origin["source"] == "tiny.onnx"
    assert len(origin["sha256"]) == 64
    assert "50 of 50 boxes matched on a drawn picture" in str(built)


@pytest.mark.parametrize(
    ("layout", "head", "rows"),
    [
        ("raw", "yolo", (6, CELLS)),
        ("objectness", "yolo with objectness", (3 * CELLS, 7)),
        ("grid", "yolox", (CELLS, 7)),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_every_layout(
    tmp_path: Path, repository: Path, layout: Any, head: str, rows: tuple[int, int], fused: bool
) -> None:
    source = save_detector(tmp_path / "tiny.onnx", layout=layout)
    pictures = (save_picture(tmp_path / "a.png"), save_picture(tmp_path / "b.png", value=150, size=(61, 90)))
    built = build(source, BuildOptions(repository=repository, fuse_suppression=fused, verify=pictures))
    assert built.head == head
    assert len(built.verified) == 1 + fused
    assert all("on 2 pictures" in line for line in built.verified)
    (output,) = config_of(repository).output
    assert tuple(output.dims) == ((300, 6) if fused else rows)
    assert ("suppression.iou" in parameters_of(config_of(repository))) == fused


def test_limits_of_fused_suppression(source: Path, repository: Path) -> None:
    options = BuildOptions(
        repository=repository, fuse_suppression=True, confidence=0.4, iou=0.6, max_detections=20, max_batch=4
    )
    built = build(source, options)
    parameters = parameters_of(config_of(repository))
    assert parameters["suppression.confidence"] == "0.4"
    assert parameters["suppression.iou"] == "0.6"
    assert parameters["suppression.max_detections"] == "20"
    session = Session((built.folder / "model.onnx").read_bytes(), "tiny")
    results = session.run(np.full((3, 64, 64, 3), 255, dtype=np.uint8))
    assert results["detections"].shape == (3, 20, 6)


def test_a_model_that_suppresses_by_itself(tmp_path: Path, repository: Path) -> None:
    source = save_detector(tmp_path / "tiny.onnx", layout="end-to-end")
    assert build(source, BuildOptions(repository=repository)).head == "yolo end-to-end"
    assert build(source, BuildOptions(repository=repository, name="trt", backend="tensorrt")).head == "yolo end-to-end"
    with pytest.raises(ModelError, match="suppresses overlapping boxes itself"):
        build(source, BuildOptions(repository=repository, fuse_suppression=True, replace=True, version=1))


@pytest.mark.parametrize(
    ("metadata", "options"),
    [({"names": "['person', 'car']"}, {}), ({}, {"labels": ("person", "car"), "head": "pose"})],
)
def test_a_pose_model_keeps_its_keypoints(
    tmp_path: Path, repository: Path, metadata: dict[str, str], options: dict[str, Any]
) -> None:
    source = save_detector(tmp_path / "tiny.onnx", keypoints=3, metadata=metadata)
    assert build(source, BuildOptions(repository=repository, **options)).head == "yolo pose"
    parameters = parameters_of(config_of(repository))
    assert (parameters["task"], parameters["kpt_shape"]) == ("pose", "[3, 3]")
    assert inspect(repository / "tiny").head == "yolo pose"
    build(source, BuildOptions(repository=repository, name="trt", backend="tensorrt", **options))
    for name in ("tiny", "trt"):
        (output,) = config_of(repository, name).output
        assert tuple(output.dims) == (15, CELLS)
    with pytest.raises(ModelError, match=r"its keypoints would be lost \(yolo pose\)\. Leave fuse_suppression out"):
        build(source, BuildOptions(repository=repository, fuse_suppression=True, replace=True, version=1, **options))


def test_its_own_input(source: Path, repository: Path) -> None:
    built = build(source, BuildOptions(repository=repository, fuse_intake=False))
    (tensor,) = config_of(repository).input
    assert (tensor.name, list(tensor.dims)) == ("pictures", [3, 64, 64])
    assert inputs_of(read_onnx(built.folder / "model.onnx"))[0].shape == (-1, 3, 64, 64)


def test_without_batching(source: Path, repository: Path) -> None:
    built = build(source, BuildOptions(repository=repository, max_batch=0))
    assert built.max_batch == 0
    assert list(config_of(repository).input[0].dims) == [1, 64, 64, 3]
    assert inputs_of(read_onnx(built.folder / "model.onnx"))[0].shape == (1, 64, 64, 3)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch(tmp_path: Path, repository: Path, batch: int) -> None:
    source = save_detector(tmp_path / "tiny.onnx", batch=batch)
    assert build(source, BuildOptions(repository=repository)).max_batch == 0
    assert list(config_of(repository).output[0].dims) == [batch, 6, CELLS]
    with pytest.raises(ModelError, match=f"fixed at {batch}.*max_batch asks for 8"):
        build(source, BuildOptions(repository=repository, name="other", max_batch=8))
    python = build(source, BuildOptions(repository=repository, name="python", backend="python"))
    assert python.max_batch == 8
    assert list(config_of(repository, "python").output[0].dims) == [6, CELLS]


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_python_backend(source: Path, repository: Path, runtime: Any) -> None:
    options = BuildOptions(repository=repository, backend="python", runtime=runtime, threads=1)
    built = build(source, options)
    assert "class TritonPythonModel" in (built.folder / "model.py").read_text()
    parameters = parameters_of(config_of(repository))
    assert (parameters["runtime"], parameters["precision"], parameters["threads"]) == (runtime, "auto", "1")
    (group,) = config_of(repository).instance_group
    assert group.count == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({"backend": "onnxruntime", "threads": 3}, "intra_op_thread_count", "3"),
        ({"backend": "openvino", "threads": 3}, "INFERENCE_NUM_THREADS", "3"),
        ({"backend": "openvino", "precision": "bf16"}, "HINT_BF16", "YES"),
        ({"backend": "python", "precision": "bf16"}, "precision", "bf16"),
        ({"backend": "python", "precision": "fp32"}, "precision", "fp32"),
        ({"backend": "python", "threads": 2}, "threads", "2"),
    ],
)
def test_what_backends_are_told(source: Path, repository: Path, options: dict[str, Any], key: str, value: str) -> None:
    build(source, BuildOptions(repository=repository, **options))
    assert parameters_of(config_of(repository))[key] == value


def test_the_queue_is_passed_on(source: Path, repository: Path) -> None:
    options = BuildOptions(
        repository=repository,
        instances=3,
        instance_kind="gpu",
        queue_delay_us=200,
        queue_timeout_ms=80,
        queue_size=16,
        priority_levels=2,
        version_policy=VersionPolicy(latest=2),
    )
    build(source, options)
    config = config_of(repository)
    assert config.instance_group[0].count == 3
    assert config.dynamic_batching.default_queue_policy.default_timeout_microseconds == 80_000
    assert config.dynamic_batching.default_priority_level == 2
    assert policy_of(config) == VersionPolicy(latest=2)


def test_for_tensorrt(source: Path, repository: Path) -> None:
    built = build(source, BuildOptions(repository=repository, backend="tensorrt"))
    assert files(built.folder) == {"model.onnx", "build_plan.sh", "build.json"}
    assert os.access(built.folder / "build_plan.sh", os.X_OK)
    assert built.to_do is not None
    assert "--fp16" in built.to_do
    kinds = [node.op_type for node in read_onnx(built.folder / "model.onnx").graph.node]
    assert "EfficientNMS_TRT" in kinds
    assert "NonMaxSuppression" not in kinds
    assert config_of(repository).instance_group[0].count == 2
    (entry,) = list_models(repository)
    assert entry.versions[0].missing == "model.plan"


def test_fp16(source: Path, repository: Path) -> None:
    built = build(source, BuildOptions(repository=repository, precision="fp16"))
    graph = read_onnx(built.folder / "model.onnx")
    assert inputs_of(graph)[0].dtype == "uint8"
    assert outputs_of(graph)[0].dtype == "float32"
    assert json.loads((built.folder / "build.json").read_text())["precision"] == "fp16"


def test_labels(tmp_path: Path, repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    unnamed = save_detector(tmp_path / "tiny.onnx", metadata={})
    build(unnamed, BuildOptions(repository=repository, labels=("cat", "dog's")))
    assert parameters_of(config_of(repository))["names"] == str({0: "cat", 1: "dog's"})
    (tmp_path / "names.txt").write_text("lorry\nvan\n")
    build(unnamed, BuildOptions(repository=repository, name="b", labels=tmp_path / "names.txt"))
    assert (repository / "b" / "labels.txt").read_text() == "lorry\nvan\n"
    with pytest.raises(ModelError, match="holds 2 classes, but 80 are named"):
        build(unnamed, BuildOptions(repository=repository, name="c", labels="coco"))
    with caplog.at_level(logging.WARNING):
        build(unnamed, BuildOptions(repository=repository, name="d"))
    assert "have no names" in caplog.text


def test_versions_count_up(source: Path, repository: Path) -> None:
    first, second = (build(source, BuildOptions(repository=repository)) for _ in range(2))
    assert (first.version, second.version) == (1, 2)
    assert build(source, BuildOptions(repository=repository, version=7)).version == 7
    assert build(source, BuildOptions(repository=repository)).version == 8
    (entry,) = list_models(repository)
    assert [version.number for version in entry.versions] == [1, 2, 7, 8]


def test_an_existing_version_is_not_overwritten(source: Path, repository: Path) -> None:
    build(source, BuildOptions(repository=repository))
    with pytest.raises(ModelError, match="version 1 is there already"):
        build(source, BuildOptions(repository=repository, version=1))
    built = build(source, BuildOptions(repository=repository, version=1, replace=True, fuse_suppression=True))
    assert built.notes == ()
    assert files(repository) == {
        f"tiny/{name}" for name in ("config.pbtxt", "labels.txt", "1/model.onnx", "1/build.json")
    }


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"fuse_suppression": True}, "outputs"),
        ({"fuse_intake": False}, "inputs"),
        ({"max_batch": 4}, "batch"),
        ({"backend": "python"}, "backend"),
        ({"labels": ("cat", "dog")}, "classes"),
    ],
)
def test_a_version_with_other_promises_is_refused(
    source: Path, repository: Path, options: dict[str, Any], what: str
) -> None:
    build(source, BuildOptions(repository=repository))
    before = files(repository), config_of(repository)
    with pytest.raises(ModelError, match=f"other {what} than its other versions.*Give it another name"):
        build(source, BuildOptions(repository=repository, **options))
    assert (files(repository), config_of(repository)) == before
    build(source, BuildOptions(repository=repository, name="side-by-side", **options))


def test_other_limits_of_suppression_are_refused(source: Path, repository: Path) -> None:
    build(source, BuildOptions(repository=repository, fuse_suppression=True))
    with pytest.raises(ModelError, match="other suppression than"):
        build(source, BuildOptions(repository=repository, fuse_suppression=True, confidence=0.5))


def test_a_policy_is_kept(source: Path, repository: Path) -> None:
    build(source, BuildOptions(repository=repository, version_policy=VersionPolicy(latest=None, versions=(1,))))
    second = build(source, BuildOptions(repository=repository, queue_size=5))
    assert not second.served
    assert "does not serve this version" in str(second)
    assert any("dynamic_batching" in note for note in second.notes)
    assert policy_of(config_of(repository)).versions == (1,)


@pytest.mark.parametrize("failure", ["differs", "options", "unreadable", "no pictures"])
def test_an_error_leaves_everything_as_it_was(tmp_path: Path, source: Path, repository: Path, failure: str) -> None:
    build(source, BuildOptions(repository=repository))
    before = {name: (repository / name).read_bytes() for name in files(repository)}
    options: dict[str, Any] = {}
    error: type[Exception] = ModelError
    if failure == "unreadable":
        source.write_bytes(b"damaged")
    elif failure == "options":
        options, error = {"threads": 0}, ConfigError
    elif failure == "no pictures":
        options = {"verify": (tmp_path / "absent",)}
    else:
        options = {"verify": (source,)}
    with pytest.raises(error):
        build(source, BuildOptions(repository=repository, **options))
    assert {name: (repository / name).read_bytes() for name in files(repository)} == before


def test_the_only_version_may_change_in_everything(source: Path, repository: Path) -> None:
    build(
        source, BuildOptions(repository=repository, version_policy=VersionPolicy(latest=None, versions=(4,)), version=4)
    )
    build(source, BuildOptions(repository=repository, version=4, replace=True, backend="python", max_batch=2))
    config = config_of(repository)
    assert (config.backend, config.max_batch_size) == ("python", 2)
    assert policy_of(config) == VersionPolicy()


def test_names_from_files_are_checked(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(ConfigError, match="name: found my model"):
        build(save_detector(tmp_path / "my model.onnx"), BuildOptions(repository=repository))


def test_a_folder_that_is_no_model_is_left_alone(source: Path, repository: Path) -> None:
    (repository / "tiny" / "1").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"no model's folder, as it has no config\.pbtxt"):
        build(source, BuildOptions(repository=repository, replace=True))


def build_plan(path: Path, repository: Path, **options: Any) -> BuiltModel:
    defaults = {"tensorrt_version": "10.3", "compute_capability": "8.6", "plan_compute_capability": "8.6"}
    return build(path, BuildOptions(repository=repository, backend="tensorrt", **(defaults | options)))


def test_an_existing_plan(tmp_path: Path, repository: Path) -> None:
    built = build_plan(write_plan(tmp_path / "best.engine", metadata=METADATA), repository)
    assert (built.folder / "model.plan").read_bytes() == BODY
    assert built.notes == ()
    config = config_of(repository, "best")
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [1, 3, 64, 96]
    assert list(config.output[0].dims) == [1, 5, 126]
    assert parameters_of(config)["names"] == "{0: 'person'}"


def test_an_existing_plan_with_an_open_batch(tmp_path: Path, repository: Path) -> None:
    metadata = METADATA | {"batch": 16, "args": {"dynamic": True, "nms": True}}
    assert build_plan(write_plan(tmp_path / "best.engine", metadata=metadata), repository).max_batch == 16
    config = config_of(repository, "best")
    assert list(config.input[0].dims) == [3, 64, 96]
    assert list(config.output[0].dims) == [300, 6]


def test_an_existing_plan_with_its_source(tmp_path: Path, source: Path, repository: Path) -> None:
    plan = write_plan(tmp_path / "model.plan")
    with pytest.raises(ModelError, match=r"nothing tells its tensors.*\(onnx\)"):
        build_plan(plan, repository)
    built = build_plan(plan, repository, onnx=source, max_batch=4, name="tiny")
    assert built.max_batch == 4
    assert list(config_of(repository).input[0].dims) == [3, 64, 64]


def test_an_existing_plan_of_what_finds_no_objects(tmp_path: Path, repository: Path) -> None:
    source = save_means(tmp_path / "means.onnx")
    built = build_plan(write_plan(tmp_path / "model.plan"), repository, onnx=source, head="embedding", name="vector")
    assert built.head == "embedding"
    parameters = parameters_of(config_of(repository, "vector"))
    assert (parameters["task"], parameters["fit"]) == ("embedding", "stretch")


def test_a_plan_built_from_our_own_graph(tmp_path: Path, source: Path, repository: Path) -> None:
    fused = build(source, BuildOptions(repository=repository, backend="tensorrt"))
    built = build_plan(write_plan(tmp_path / "model.plan"), repository, onnx=fused.folder / "model.onnx", name="other")
    assert built.head == "yolo end-to-end"
    assert list(config_of(repository, "other").output[0].dims) == [300, 6]


def test_plans_that_do_not_fit(tmp_path: Path, repository: Path) -> None:
    plan = write_plan(tmp_path / "best.engine", metadata=METADATA)
    with pytest.raises(ModelError, match="a plan fits one version"):
        build_plan(plan, repository, tensorrt_version="8.6")
    with pytest.raises(ConfigError, match="tensorrt, which alone runs plans"):
        build(plan, BuildOptions(repository=repository))
    assert not repository.exists()
    with pytest.raises(ModelError, match="names no classes"):
        build_plan(write_plan(tmp_path / "x.engine", metadata={"imgsz": [64, 64]}), repository)


def test_clients_are_told_what_a_picture_is_to_look_like(tmp_path: Path, source: Path, repository: Path) -> None:
    grid = save_detector(tmp_path / "grid.onnx", layout="grid")
    build(grid, BuildOptions(repository=repository, fuse_suppression=True))
    assert parameters_of(config_of(repository, "grid"))["fit"] == "top_left"
    build(source, BuildOptions(repository=repository, fit="stretch"))
    assert parameters_of(config_of(repository))["fit"] == "stretch"


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_pixels_are_within(source: Path, repository: Path, backend: Any) -> None:
    pixels = PixelsConfig(color="bgr", mean=(10, 20, 30), scale=(0.003,) * 3)
    shared: Any = {"repository": repository, "precision": "fp32", "fuse_suppression": True}
    built = build(source, BuildOptions(**shared, backend=backend, pixels=pixels))
    kinds = [node.op_type for node in read_onnx(built.folder / "model.onnx").graph.node]
    assert kinds[:5] == ["Cast", "Sub", "Mul", "Transpose", "Gather"]
    assert "50 of 50 boxes matched" in str(built)


def test_pixels_need_an_intake(tmp_path: Path, source: Path, repository: Path) -> None:
    options = BuildOptions(repository=repository, fuse_intake=False, pixels=PixelsConfig(color="bgr"))
    with pytest.raises(ConfigError, match=r"pixels: .*expected no pixels without a fused intake"):
        build(source, options)
    grid = save_detector(tmp_path / "grid.onnx", layout="grid")
    with pytest.raises(ModelError, match="takes blue, green and red from 0 to 255"):
        build(grid, BuildOptions(repository=repository, fuse_intake=False, fuse_suppression=True))
    built = build(grid, BuildOptions(repository=repository, fuse_intake=False))
    assert "50 of 50 boxes matched" in str(built)
