"""Cells counted one by one, and what shapes tell."""

from __future__ import annotations

import pytest

from streamproc.grids import cell_table, cells, grids_of, is_detector, is_text_map, is_yolox


@pytest.mark.parametrize(
    ("size", "count", "strides"),
    [((640, 640), 8400, (8, 16, 32)), ((416, 416), 3549, (8, 16, 32)), ((640, 384), 5100, (8, 16, 32, 64))],
)
def test_grids(size: tuple[int, int], count: int, strides: tuple[int, ...]) -> None:
    assert count in cells(size)
    grids = grids_of(count, size)
    assert tuple(stride for *_, stride in grids) == strides
    one_by_one = [(x, y, stride) for columns, rows, stride in grids for y in range(rows) for x in range(columns)]
    assert [tuple(row) for row in cell_table(grids).tolist()] == one_by_one
    assert all((x + 1) * stride <= size[0] + 32 and (y + 1) * stride <= size[1] + 32 for x, y, stride in one_by_one)


@pytest.mark.parametrize(
    ("shape", "size", "detector", "yolox"),
    [
        ((1, 84, 8400), (640, 640), True, False),
        ((-1, 25200, 85), (640, 640), True, False),
        ((1, 8400, 85), (640, 640), True, True),
        ((-1, 3549, 6), (416, 416), True, True),
        ((1, 3549, 85), (640, 640), False, False),  # of another size
        ((1, 300, 6), (640, 640), True, False),
        ((1, 16800, 4), (640, 640), True, False),
        ((1, 1000), (224, 224), False, False),
        ((1, 23, 18), (94, 24), False, False),
        ((1, -1, -1), (640, 640), False, False),
        ((), (640, 640), False, False),
    ],
)
def test_what_shapes_tell(shape: tuple[int, ...], size: tuple[int, int], detector: bool, yolox: bool) -> None:
    assert is_detector(shape, size) == detector
    assert is_yolox(shape, size) == yolox


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(1, 1, 384, 640)], True),
        ([(-1, 1, 384, 640)], True),
        ([(1, 1, 640, 384)], False),
        ([(1, 3, 384, 640)], False),
        ([(1, 1, -1, -1)], False),
        ([(1, 1, 384, 640), (1, 84, 5040)], False),
        ([(384, 640)], False),
        ([], False),
    ],
)
def test_a_map_of_the_inputs_size_is_of_text(shapes: list[tuple[int, ...]], text: bool) -> None:
    assert is_text_map(shapes, (640, 384)) == text
