from __future__ import annotations

import asyncio

from streamproc.rtsp import Feed
from streamproc.types import AccessUnit

KEYFRAME = b"\0\0\0\1\x67\x42\xc0\x1e" + b"\0\0\0\1\x68\xce" + b"\0\0\0\1\x65picture"


def unit(index: int, *, keyframe: bool = False) -> AccessUnit:
    return AccessUnit(
        data=KEYFRAME if keyframe else b"\0\0\0\1\x41picture",
        codec="h264",
        pts_s=index / 24,
        keyframe=keyframe,
        captured_utc_ns=index,
    )


def attached(watched: list[bool], *, linger_s: float) -> Feed:
    feed = Feed("gate", watched.append, linger_s=linger_s)
    feed.attach(asyncio.get_running_loop())
    return feed


async def test_a_loop_that_is_late_loses_whole_groups_and_counts_them() -> None:
    feed = attached([], linger_s=0.0)
    feed.acquire()
    described = feed.described()
    feed.publish(unit(0))
    feed.publish(unit(1, keyframe=True))
    for index in range(2, 900):
        feed.publish(unit(index))
    assert (feed.stats().published, feed.stats().overrun) == (801, 801)
    feed.publish(unit(900, keyframe=True))
    assert (await described).codec == "h264"
    feed.detach()


async def test_it_is_watched_from_the_first_to_a_moment_after_the_last() -> None:
    watched: list[bool] = []
    feed = attached(watched, linger_s=0.02)
    feed.acquire()
    feed.acquire()
    assert watched == [True]
    feed.release()
    feed.release()
    feed.acquire()
    assert watched == [True]
    feed.release()
    async with asyncio.timeout(10):
        while feed.watched:  # noqa: ASYNC110 - the feed's own timer ends it
            await asyncio.sleep(0.001)
    assert watched == [True, False]
    feed.acquire()
    assert watched == [True, False, True]
    feed.detach()
    assert watched == [True, False, True, False]


async def test_who_has_waited_for_a_picture_in_vain_is_forgotten() -> None:
    feed = attached([], linger_s=0.0)
    feed.acquire()
    waiting = feed.described()
    waiting.cancel()
    feed.publish(unit(0, keyframe=True))
    assert (await feed.described()).sets == (b"\x67\x42\xc0\x1e", b"\x68\xce")
    feed.detach()


def test_nobody_watches_a_feed_without_a_server() -> None:
    feed = Feed("gate", lambda _: None)
    feed.publish(unit(0, keyframe=True))
    assert not feed.watched
    assert feed.description is None
    assert feed.stats().published == 0
