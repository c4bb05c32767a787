"""A file that goes on for longer shows the same pictures over and over, at the same pace."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import pytest

from streamproc.errors import SourceError
from streamproc.sources.picture import PictureMaker
from streamproc.sources.repeating import cut_openings, repeat_file
from tests.media import number_in, write_video


def shown(path: Path) -> list[tuple[float, int]]:
    """Time and number of every picture."""
    maker = PictureMaker()
    with av.open(str(path)) as container:
        return [(frame.time or 0.0, number_in(maker.make(frame))) for frame in container.decode(video=0)]


CASES = [("a.mp4", 0), ("a.mkv", 0), ("a.ts", 0), ("a.avi", 0), ("a.mp4", 2), ("a.mkv", 2), ("a.ts", 2)]


@pytest.mark.parametrize(("name", "b_frames"), CASES)
def test_pictures_come_again(tmp_path: Path, name: str, b_frames: int) -> None:
    video = write_video(tmp_path / name, frames=25, rate=25, options={"bf": str(b_frames)})
    longer = repeat_file("gate", video, tmp_path / "longer.mkv", 2.5)
    pictures = shown(longer)
    assert [number for _, number in pictures] == [*range(25)] * 3
    steps = [after[0] - before[0] for before, after in itertools.pairwise(pictures)]
    assert steps == pytest.approx([0.04] * 74, abs=0.0011)


def test_what_is_long_enough_stays(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=50, rate=25)
    assert repeat_file("gate", video, tmp_path / "longer.mkv", 2.0) == video
    assert not (tmp_path / "longer.mkv").exists()


def test_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(SourceError, match="camera gate"):
        repeat_file("gate", tmp_path / "a.mp4", tmp_path / "longer.mkv", 2.0)
    assert not (tmp_path / "longer.mkv").exists()


def test_openings_are_parts_of_the_first_group(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=32, rate=16, gop=16)
    openings = cut_openings("gate", video, tmp_path, 4)
    assert [[number for _, number in shown(path)] for path in openings] == [[*range(n)] for n in (4, 8, 12)]


@pytest.mark.parametrize(("gop", "b_frames"), [(100, 0), (3, 0), (16, 2)])
def test_no_openings(tmp_path: Path, gop: int, b_frames: int) -> None:
    video = write_video(tmp_path / "a.mp4", frames=32, rate=16, gop=gop, options={"bf": str(b_frames)})
    assert cut_openings("gate", video, tmp_path, 4) == ()
