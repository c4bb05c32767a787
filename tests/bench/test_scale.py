"""Figures: what one frame takes of an interpreter as cameras are added, simulated up to what no machine here has.

Time is simulated: frames come evenly, and an engine takes as long as it is told to. What is measured is the processor
time of the real batcher, tracker and encoder.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from streamproc.batching import Batcher, BatchTimes, Scheduler
from streamproc.channel import Channel, LoopSignal, Overflow
from streamproc.fleet import plan
from streamproc.types import Frame, Picture

pytestmark = pytest.mark.bench

FPS = 24
SECONDS = 5
PLANE = np.zeros((2, 2), np.uint8)
PICTURE = Picture(planes=(PLANE, PLANE[:1, :1], PLANE[:1, :1]), layout="yuv420p")


@dataclass
class World:
    """Cameras and an engine in simulated time; ``engine_ms`` for a batch of one, and as much more for each further
    frame as ``each_ms``."""

    cameras: int
    max_batch: int
    engine_ms: float
    each_ms: float
    now_ns: int = 0
    dropped: int = 0
    inferred: int = 0
    batcher_s: float = 0.0
    ages_ms: list[float] = field(default_factory=list)

    async def play(self) -> None:
        signal, times = LoopSignal(), BatchTimes()
        names = [f"camera{number}" for number in range(self.cameras)]
        boxes: dict[str, Channel[Frame]] = {
            name: Channel(2, Overflow.DROP_OLDEST, on_drop=self._drop, on_put=signal.ring) for name in names
        }
        interval_ns = 10**9 // FPS
        scheduler = Scheduler(
            dict.fromkeys(names, 1.0),
            max_batch=self.max_batch,
            frame_interval_ns=interval_ns,
            max_age_ns=100_000_000,
            expect_ns=times.expect_ns,
        )
        batcher = Batcher(
            boxes,
            scheduler,
            signal,
            frame_interval_ns=interval_ns,
            not_inferred=lambda frame, _: self._drop(frame),
            monotonic_ns=lambda: self.now_ns,
        )
        coming = [(round(index * interval_ns / self.cameras), 0, name) for index, name in enumerate(names)]
        heapq.heapify(coming)
        free_ns = 0
        while self.now_ns < SECONDS * 1e9:
            at_ns, seq, name = coming[0]
            if any(len(box) for box in boxes.values()) and free_ns <= at_ns:
                self.now_ns = max(self.now_ns, free_ns)
                free_ns = await self._infer(batcher, times)
                continue
            heapq.heapreplace(coming, (at_ns + interval_ns, seq + 1, name))
            self.now_ns = max(self.now_ns, at_ns)
            boxes[name].put(
                Frame(
                    camera=name,
                    seq=seq,
                    pts_s=at_ns / 1e9,
                    captured_ns=at_ns,
                    captured_utc_ns=0,
                    live=True,
                    picture=PICTURE,
                )
            )

    async def _infer(self, batcher: Batcher, times: BatchTimes) -> int:
        """When the engine is free again; a batch that waits for company waits no longer than a millisecond here."""
        started_s = time.thread_time()
        try:
            async with asyncio.timeout(0):
                frames = await batcher.next_batch()
        except TimeoutError:
            frames = []
        self.batcher_s += time.thread_time() - started_s
        if not frames:
            return self.now_ns + 1_000_000
        took_ns = round((self.engine_ms + self.each_ms * (len(frames) - 1)) * 1e6)
        times.add(len(frames), took_ns)
        self.inferred += len(frames)
        self.ages_ms += [frame.age_ms(self.now_ns + took_ns) for frame in frames]
        return self.now_ns + took_ns

    def _drop(self, _: Frame) -> None:
        self.dropped += 1


def test_cost_of_batching_against_cameras(capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for cameras in (4, 16, 32, 64, 128, 256):
        for max_batch, engine_ms, each_ms in ((1, 0.6 / cameras * 64, 0.0), (32, 4.0, 0.25)):
            world = World(cameras, max_batch, engine_ms, each_ms)
            asyncio.run(world.play())
            rows.append((cameras, max_batch, world))
    with capsys.disabled():
        print("\ncameras  max batch  inferred/s  dropped/s  p95 age ms  batcher us a frame  of a core")
        for cameras, max_batch, world in rows:
            frames = world.inferred + world.dropped
            p95 = float(np.percentile(world.ages_ms, 95))
            print(
                f"{cameras:7}  {max_batch:9}  {world.inferred / SECONDS:10.0f}  {world.dropped / SECONDS:9.0f}"
                f"  {p95:10.1f}  {world.batcher_s * 1e6 / frames:18.1f}  {world.batcher_s / SECONDS:9.2f}"
            )


def test_plan_for_large_machines(capsys: pytest.CaptureFixture[str]) -> None:
    frame_ms = plan.frame_ms()
    with capsys.disabled():
        for cores, cameras in ((8, 32), (16, 64), (32, 128), (64, 256)):
            wanted = plan.choose(cores=cores, cameras=cameras, frames_per_s=cameras * FPS, frame_ms=frame_ms)
            print(f"\n{cores:3} cores, {cameras:3} cameras: {wanted}", end="")
