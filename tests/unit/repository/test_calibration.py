"""Which pictures int8 is calibrated on: of every file a fair share, the same ones every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import ModelError
from streamproc.repository.calibration import _shares, _spread, find_calibration
from tests.media import number_in, write_video
from tests.pictures import make_picture
from tests.unit.repository.detectors import save_picture


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two videos of 40 and 6 frames, and two pictures, one of them in a folder."""
    write_video(tmp_path / "gate.mp4", frames=40)
    write_video(tmp_path / "yard.mkv", frames=6)
    save_picture(tmp_path / "still.png")
    (tmp_path / "more").mkdir()
    save_picture(tmp_path / "more" / "other.JPG")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_every_file_has_its_share(recordings: Path) -> None:
    found = find_calibration(recordings, limit=16)
    assert {path.name for path in found.pictures} == {"still.png", "other.JPG"}
    assert {path.name: len(frames) for path, frames in found.videos.items()} == {"gate.mp4": 8, "yard.mkv": 6}
    assert str(found) == "2 pictures and 14 frames of 2 videos"
    assert found == find_calibration(recordings, limit=16)


def test_frames_are_spread_over_a_video_and_letterboxed(recordings: Path) -> None:
    found = find_calibration(recordings / "gate.mp4", limit=4)
    images = [sample.image for sample in found.samples((160, 120))]
    grey = np.full((60, 80), 128, dtype=np.uint8)
    numbers = [number_in(make_picture(np.ascontiguousarray(image[:, :, 1]), grey, grey)) for image in images]
    assert numbers == [5, 15, 25, 35]
    (wide, *_) = find_calibration(recordings / "gate.mp4", limit=1).samples((64, 96))
    assert wide.image.shape == (96, 64, 3)
    assert (wide.image[:20] == 114).all()


def test_of_many_pictures_some(tmp_path: Path) -> None:
    for number in range(10):
        save_picture(tmp_path / f"{number}.png")
    found = find_calibration(tmp_path, limit=5)
    assert [path.stem for path in found.pictures] == ["1", "3", "5", "7", "9"]
    assert found.is_small
    assert len(list(found.samples((64, 64)))) == len(found) == 5


def test_a_place_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither pictures nor videos there"):
        find_calibration(tmp_path)
    with pytest.raises(ModelError, match="there is no such folder"):
        find_calibration(tmp_path / "absent")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(ModelError, match=r"broken\.mp4: it cannot be read as a video"):
        find_calibration(tmp_path)
    broken.unlink()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"broken\.png: it cannot be read as a picture"):
        list(find_calibration(tmp_path).samples((64, 64)))


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(1, 400))
def test_shares_add_up_and_are_fair(lengths: list[int], limit: int) -> None:
    there = {Path(f"{index:02}"): length for index, length in enumerate(lengths)}
    shares = _shares(there, limit)
    assert sum(shares.values()) == min(limit, sum(lengths))
    assert all(0 <= shares[path] <= length for path, length in there.items())
    cut = [shares[path] for path, length in there.items() if shares[path] < length]
    if len(there) <= limit and cut:
        assert max(cut) - min(cut) <= 1
        assert max(shares.values()) <= max(cut)


@given(st.integers(1, 1000), st.data())
def test_spread_numbers_are_ascending_and_within(count: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, count))
    numbers = _spread(count, wanted)
    assert len(set(numbers)) == wanted
    assert list(numbers) == sorted(numbers)
    assert numbers[0] >= 0
    assert numbers[-1] < count
