"""A repository is written whole or not at all, by one process at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamproc.errors import ModelError
from streamproc.repository.staging import put_in_place, staging, write_whole


def test_staging_folder_is_empty_and_goes(tmp_path: Path) -> None:
    repository = tmp_path / "a" / "models"
    with staging(repository) as folder:
        assert folder.parent == repository
        (folder / "left").mkdir()
    assert list(repository.iterdir()) == []


def test_leftovers_of_a_killed_writer_go(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        name = folder.name
    (tmp_path / name / "half").mkdir(parents=True)
    with staging(tmp_path) as folder:
        assert list(folder.iterdir()) == []


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with staging(tmp_path), pytest.raises(ModelError, match="another process writes"), staging(tmp_path):
        pass
    with staging(tmp_path):
        pass


def test_a_repository_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"), staging(tmp_path / "file"):
        pass


def test_a_new_folder_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("")
    with staging(tmp_path) as folder:
        (folder / "target").mkdir()
        (folder / "target" / "new").write_text("")
        put_in_place(folder / "target", target)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert os.listdir(tmp_path) == ["target"]


def test_what_was_there_stays_when_moving_fails(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with staging(tmp_path) as folder, pytest.raises(ModelError, match="cannot be put in place"):
        put_in_place(folder / "absent", target)
    assert target.is_dir()


def test_files_are_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with staging(tmp_path) as folder:
        write_whole(path, "new", folder)
    assert path.read_text() == "new"
    with staging(tmp_path) as folder, pytest.raises(ModelError, match="cannot be written"):
        write_whole(tmp_path / "no" / "file", "x", folder)
