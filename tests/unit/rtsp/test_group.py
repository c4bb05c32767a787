from __future__ import annotations

from itertools import pairwise

import pytest

from streamproc.rtsp.group import RecentGroup
from streamproc.rtsp.packetizer import Picture


def picture(timestamp: int, *, keyframe: bool = False, size: int = 100) -> Picture:
    return Picture(
        codec="h264",
        keyframe=keyframe,
        packets=((96, b"x"),),
        payload_bytes=size,
        timestamp=timestamp,
        captured_utc_ns=0,
    )


def fill(group: RecentGroup, *timestamps: int) -> None:
    for index, timestamp in enumerate(timestamps):
        group.add(picture(timestamp, keyframe=index == 0))


def test_the_past_is_hastened_and_the_present_is_not() -> None:
    group = RecentGroup()
    fill(group, *range(0, 64 * 3600, 3600))
    stamps = [stamp for _, stamp in group.hastened()]
    assert stamps[-1] == 63 * 3600
    assert stamps[-1] - stamps[0] == 63 * 3600 // 64
    assert all(earlier < later for earlier, later in pairwise(stamps))


@pytest.mark.parametrize("length", range(1, 20))
def test_reordered_pictures_stay_in_order_with_those_to_come(length: int) -> None:
    # I P B B B P B B B ...: each P is decoded before the three that are shown before it.
    order = [0, *(shown for last in range(4, 60, 4) for shown in (last, last - 2, last - 3, last - 1))]
    stream = [(index + 100) * 3600 for index in order]
    group = RecentGroup()
    fill(group, *(stamp - 60 * 3600 for stamp in stream[:9]))  # the group before has shown how far back they go
    fill(group, *stream[:length])
    sent = dict(zip(stream, [stamp for _, stamp in group.hastened()] + stream[length:], strict=True))
    shown = [sent[stamp] for stamp in sorted(stream)]
    assert all(earlier < later for earlier, later in pairwise(shown))


def test_nothing_before_a_keyframe_nor_from_a_group_too_big() -> None:
    group = RecentGroup()
    group.add(picture(0))
    assert not list(group.hastened())
    group.add(picture(1, keyframe=True, size=5 << 20))
    assert not list(group.hastened())
    group.add(picture(2, keyframe=True, size=2 << 20))
    group.add(picture(3, size=2 << 20))
    assert len(list(group.hastened())) == 2
    group.add(picture(4))
    group.add(picture(5))
    assert not list(group.hastened())
    fill(group, *range(600))
    assert len(list(group.hastened())) == 600
    group.add(picture(600))
    assert not list(group.hastened())
