"""A file that plays like a camera, and what it does without the file."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from pathlib import Path

import pytest

from streamproc.errors import SourceError
from streamproc.sources.player import FilePlayer
from streamproc.types import AccessUnit
from tests.media import write_video

PATIENCE_S = 30.0


def test_it_plays_over_and_over_and_its_time_goes_on(tmp_path: Path) -> None:
    units: queue.Queue[AccessUnit] = queue.Queue()
    player = FilePlayer("gate", write_video(tmp_path / "v.mp4", frames=5, rate=100), units.put)
    player.start()
    seen = [units.get(timeout=PATIENCE_S) for _ in range(12)]
    player.stop()
    assert [unit.keyframe for unit in seen] == [index % 5 == 0 for index in range(12)]
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(seen))


def test_a_file_that_vanishes_is_said_and_played_again_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamproc.sources.player._RETRY_S", 0.01)
    caplog.set_level(logging.WARNING, "streamproc")
    path, away = write_video(tmp_path / "v.mp4", frames=5, rate=100), tmp_path / "away.mp4"
    told, units = threading.Event(), queue.Queue[AccessUnit]()
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: told.set())
    monkeypatch.setattr(logging.getLogger("streamproc.sources.player"), "handlers", [handler])
    player = FilePlayer("gate", path, units.put)
    player.start()
    path.rename(away)
    assert told.wait(PATIENCE_S)
    while not units.empty():
        units.get()
    away.rename(path)
    assert units.get(timeout=PATIENCE_S).keyframe
    player.stop()
    assert f"camera gate: cannot read {path}: No such file or directory." in caplog.text


def test_what_cannot_be_played_is_said_at_the_start(tmp_path: Path) -> None:
    mjpeg = write_video(tmp_path / "v.avi", codec="mjpeg", pix_fmt="yuvj420p", frames=5)
    for path, said in ((tmp_path / "none.mp4", "No such file"), (mjpeg, "expected H.264 or H.265")):
        with pytest.raises(SourceError, match=said):
            FilePlayer("gate", path, lambda unit: None).start()
