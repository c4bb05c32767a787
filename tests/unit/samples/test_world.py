"""The self-made world: the same seed gives the same pixels, and the truth keeps what it promises."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from samples.actors import LABELS
from samples.camera import HEIGHT, WIDTH
from samples.layout import CAMERAS
from samples.make import SEEDS, render
from samples.score import detections, match, suppress, truth_rows
from samples.truth import LINES, MIN_VISIBILITY, Line, Truth, crossings, demanded
from samples.video import read
from samples.world import Seen, World

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.fixture(scope="module")
def plaza() -> World:
    return World("plaza", 5, 24)


def test_same_seed_renders_the_same_pixels_and_truth_in_any_order(plaza: World) -> None:
    again = World("plaza", 5, 24)
    again.render(20)
    for frame in (3, 0):
        pixels, seen = plaza.render(frame)
        repeated, seen_again = again.render(frame)
        np.testing.assert_array_equal(pixels, repeated)
        assert seen == seen_again


def test_another_seed_renders_another_place(plaza: World) -> None:
    pixels, seen = plaza.render(0)
    others, others_seen = World("plaza", 6, 24).render(0)
    assert seen != others_seen
    assert np.abs(pixels.astype(int) - others).mean() > 5


@pytest.mark.parametrize("camera", sorted(CAMERAS))
def test_truth_of_a_frame_holds_its_promises(camera: str) -> None:
    world = World(camera, 3, 2)
    pixels, seen = world.render(1)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert len({one.identity for one in seen}) == len(seen) > 0
    for one in seen:
        x1, y1, x2, y2 = one.box
        assert 0 <= x1 < x2 <= WIDTH
        assert 0 <= y1 < y2 <= HEIGHT
        assert 0 <= one.visibility <= 1
        assert 0 <= one.class_id < len(LABELS)


def test_objects_keep_identity_and_move_smoothly(plaza: World) -> None:
    frames = [{one.identity: one for one in plaza.render(frame)[1]} for frame in (10, 11)]
    both = frames[0].keys() & frames[1].keys()
    assert both
    for identity in both:
        old, new = frames[0][identity], frames[1][identity]
        assert old.class_id == new.class_id
        # 25 px a frame are 600 px a second: faster than anything on the square.
        assert max(abs(a - b) for a, b in zip(old.box, new.box, strict=True)) < 25


def test_pictures_of_varied_worlds_come_from_other_cameras() -> None:
    assert World("gate", 5, 2, vary=True).camera != World("gate", 6, 2, vary=True).camera
    assert World("gate", 5, 2).camera == CAMERAS["gate"]


def _walk(xs: Sequence[float], identity: int = 1) -> list[list[Seen]]:
    return [[Seen(identity, 0, (int(x) - 10, 0, int(x) + 10, 50), 1.0)] for x in xs]


@pytest.mark.parametrize(
    ("xs", "expected"),
    [
        ((90, 95, 105, 110), [(3, 1, -1)]),
        ((110, 105, 91), [(2, 1, 1)]),
        ((90, 104, 97, 105, 110), [(4, 1, -1)]),
        ((90, 99, 107), []),
        ((200,), []),
        ((), []),
    ],
)
def test_crossings_name_frame_identity_and_direction(xs: Sequence[float], expected: list[tuple[int, int, int]]) -> None:
    # Down the picture: who looks that way has smaller x on the right.
    assert crossings(_walk(xs), Line("door", (100, 0), (100, 100))) == expected


def test_crossing_beyond_the_ends_of_the_line_does_not_count() -> None:
    assert crossings(_walk((90, 110)), Line("door", (100, 60), (100, 100))) == []


def test_an_object_that_was_missing_crosses_nothing() -> None:
    frames = _walk((90, 110))
    assert crossings([frames[0], [], frames[1]], Line("door", (100, 0), (100, 100))) == []


def test_render_writes_a_video_whose_frames_match_its_truth(tmp_path: Path) -> None:
    path = render("yard", 8, 0.25, tmp_path)
    truth = Truth.read(tmp_path / "yard.truth.json")
    frames = list(read(path))
    assert len(frames) == len(truth.frames) == 6
    pixels, seen = World("yard", 8, 6).render(5)
    assert np.abs(frames[5].astype(int) - pixels).mean() < 4
    assert [one.box for one in truth.frames[5]] == [one.box for one in seen]


@pytest.mark.parametrize("camera", sorted(CAMERAS))
def test_committed_truth_agrees_with_its_own_crossings(camera: str) -> None:
    path = SAMPLES / f"{camera}.truth.json"
    truth = Truth.read(path)
    assert truth.line == LINES[camera]
    stored = [tuple(row) for row in json.loads(path.read_text())["crossings"]]
    assert stored == crossings(truth.frames, truth.line)
    assert stored
    for frame in truth.frames:
        identities = [one.identity for one in frame]
        assert len(set(identities)) == len(identities)
        assert all(0 <= one.visibility <= 1 for one in frame)


@pytest.mark.parametrize("camera", sorted(CAMERAS))
def test_committed_truth_is_what_the_code_still_renders(camera: str) -> None:
    truth = Truth.read(SAMPLES / f"{camera}.truth.json")
    _, seen = World(camera, SEEDS[camera], len(truth.frames)).render(100)
    assert [(one.identity, one.class_id) for one in seen] == [(one.identity, one.class_id) for one in truth.frames[100]]
    for now, stored in zip(seen, truth.frames[100], strict=True):
        # One pixel for the rounding of other processors.
        np.testing.assert_allclose(now.box, stored.box, atol=1)


def test_reading_another_schema_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gate.truth.json"
    path.write_text('{"schema": "something/9"}')
    with pytest.raises(ValueError, match="something/9"):
        Truth.read(path)


def test_scoring_spares_ignored_truth_and_punishes_double_boxes() -> None:
    seen = [Seen(1, 0, (0, 0, 50, 100), 1.0), Seen(2, 0, (200, 0, 250, 100), MIN_VISIBILITY / 2)]
    assert [demanded(one) for one in seen] == [True, False]
    found = np.array(
        [(0, 0, 50, 100, 0.9, 0), (2, 0, 52, 100, 0.8, 0), (200, 0, 250, 100, 0.7, 0), (400, 0, 450, 100, 0.6, 0)]
    )
    result = match(found, truth_rows(seen))
    assert result.demanded.tolist() == [1, 0, 0]
    assert result.rows[:, 2].tolist() == [1, 0, 0]
    assert len(suppress(found)) == 3


def test_detections_leave_letterbox_space() -> None:
    output = np.zeros((7, 2), np.float32)
    output[:, 0] = (100, 112, 20, 40, 0.1, 0.9, 0.2)
    np.testing.assert_allclose(detections(output, 0.25), [(180, 160, 220, 240, 0.9, 1)], rtol=1e-6)
