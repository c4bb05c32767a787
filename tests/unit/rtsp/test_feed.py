from __future__ import annotations

import asyncio

import pytest

from streamproc.rtsp import Feed
from streamproc.rtsp.viewer import Viewer
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


class Pigeons:
    """A carrier that keeps what it is given."""

    queued_bytes = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send_rtp(self, packets: list[tuple[bytes, bytes]]) -> None:
        self.sent += [payload for _, payload in packets]

    def send_rtcp(self, packet: bytes) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("obliging", [True, False])
async def test_a_new_viewer_begins_with_a_keyframe_made_for_it_or_with_the_past(obliging: bool) -> None:
    asked: list[str] = []
    feed = Feed("gate", lambda _: None, on_join=(lambda: asked.append("keyframe")) if obliging else None, linger_s=0.0)
    feed.attach(asyncio.get_running_loop())
    feed.acquire()
    carrier = Pigeons()

    async def publish(index: int, *, keyframe: bool = False) -> int:
        feed.publish(unit(index, keyframe=keyframe))
        await asyncio.sleep(0)
        return len(carrier.sent)

    await publish(0, keyframe=True)
    await publish(1)
    feed.join(Viewer(carrier, feed.sent, lambda: None))
    past = len(carrier.sent)
    assert (asked, past > 0) == ((["keyframe"], False) if obliging else ([], True))
    assert (await publish(2) > past) is not obliging
    assert await publish(3, keyframe=True) > past
    feed.detach()


async def test_who_comes_right_after_a_keyframe_needs_no_other() -> None:
    asked: list[str] = []
    feed = Feed("gate", lambda _: None, on_join=lambda: asked.append("keyframe"), linger_s=0.0)
    feed.attach(asyncio.get_running_loop())
    feed.acquire()
    feed.publish(unit(0, keyframe=True))
    await asyncio.sleep(0)
    carrier = Pigeons()
    feed.join(Viewer(carrier, feed.sent, lambda: None))
    assert carrier.sent
    assert asked == []
    feed.detach()


def test_nobody_watches_a_feed_without_a_server() -> None:
    feed = Feed("gate", lambda _: None)
    feed.publish(unit(0, keyframe=True))
    assert not feed.watched
    assert feed.description is None
    assert feed.stats().published == 0
