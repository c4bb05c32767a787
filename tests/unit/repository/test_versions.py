"""What a repository holds, and going back to an earlier version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from streamproc.errors import ModelError
from streamproc.repository.build import build
from streamproc.repository.config_pbtxt import policy_of, read_config
from streamproc.repository.options import BuildOptions
from streamproc.repository.policy import VersionPolicy
from streamproc.repository.versions import list_models, remove_version, serve_versions, versions_in
from tests.unit.repository.detectors import save_detector


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three versions of one model, and one of another."""
    source = save_detector(tmp_path / "nano.onnx")
    for _ in range(3):
        build(source, BuildOptions(repository=tmp_path / "models"))
    build(source, BuildOptions(repository=tmp_path / "models", name="large", backend="tensorrt"))
    return tmp_path / "models"


def test_listing(repository: Path) -> None:
    large, nano = list_models(repository)
    assert (large.name, large.backend, large.max_batch, large.problem) == ("large", "tensorrt", 8, None)
    assert [(v.number, v.served, v.missing) for v in large.versions] == [(1, False, "model.plan")]
    assert [(v.number, v.served, v.missing) for v in nano.versions] == [
        (1, False, None),
        (2, False, None),
        (3, True, None),
    ]
    assert nano.inputs[0].shape == (-1, 64, 64, 3)
    assert nano.versions[0].origin["source"] == "nano.onnx"
    weighed = sum(path.stat().st_size for path in (repository / "nano" / "1").iterdir())
    assert nano.versions[0].size_bytes == weighed
    assert "serves the newest version" in str(nano)
    assert "3 (served, " in str(nano)
    assert "no model.plan yet" in str(large)


def test_a_model_with_a_problem_is_listed(repository: Path) -> None:
    (repository / "broken").mkdir()
    (repository / "odd").mkdir()
    (repository / "odd" / "config.pbtxt").write_text('backend: "python" version_policy { specific { versions: 3 } }')
    (repository / ".hidden").mkdir()
    (repository / "note.txt").write_text("")
    entries = {entry.name: entry for entry in list_models(repository)}
    assert set(entries) == {"broken", "large", "nano", "odd"}
    assert "cannot be read" in (entries["broken"].problem or "")
    assert "it has no input" in str(entries["odd"])


def test_names_that_a_server_passes_over_are_no_versions(repository: Path) -> None:
    for name in ("0", "01", "one", "-1"):
        (repository / "nano" / name).mkdir()
    (repository / "nano" / "9").write_text("a file")
    assert versions_in(repository / "nano") == (1, 2, 3)
    assert versions_in(repository / "absent") == ()


def test_there_and_back(repository: Path) -> None:
    back = serve_versions(repository, "nano", VersionPolicy(latest=None, versions=(1,)))
    assert [version.number for version in back.versions if version.served] == [1]
    assert policy_of(read_config(repository / "nano" / "config.pbtxt")).versions == (1,)
    assert len(serve_versions(repository, "nano", VersionPolicy(latest=None)).versions) == 3
    forward = serve_versions(repository, "nano", VersionPolicy(latest=2))
    assert [version.number for version in forward.versions if version.served] == [2, 3]


def test_versions_that_cannot_be_served(repository: Path) -> None:
    before = (repository / "nano" / "config.pbtxt").read_text()
    with pytest.raises(ModelError, match="it has no version 4, 5; there are 1, 2, 3"):
        serve_versions(repository, "nano", VersionPolicy(latest=None, versions=(1, 4, 5)))
    with pytest.raises(ModelError, match=r"version 1 has no model\.plan yet"):
        serve_versions(repository, "large", VersionPolicy())
    with pytest.raises(ModelError, match="it has no model medium; there are: large, nano"):
        serve_versions(repository, "medium", VersionPolicy())
    assert (repository / "nano" / "config.pbtxt").read_text() == before
    for version in (1, 2, 3):
        shutil.rmtree(repository / "nano" / str(version))
    with pytest.raises(ModelError, match="it has no version at all"):
        serve_versions(repository, "nano", VersionPolicy())


def test_removing(repository: Path) -> None:
    with pytest.raises(ModelError, match="version 3 is served"):
        remove_version(repository, "nano", 3)
    with pytest.raises(ModelError, match="it has no version 4"):
        remove_version(repository, "nano", 4)
    left = remove_version(repository, "nano", 1)
    assert left is not None
    assert [version.number for version in left.versions] == [2, 3]
    assert remove_version(repository, "large", 1) is None
    assert [entry.name for entry in list_models(repository)] == ["nano"]


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        list_models(tmp_path / "absent")
