"""Real worker processes, of which one hangs, and cameras that move between them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from streamproc.config import CameraConfig, Config, EngineConfig, FileConfig, ModelConfig
from streamproc.fleet import Fleet, Plan, SharedBooks, member
from streamproc.ledger import CameraLedger, open_ledgers
from streamproc.messages import decode_detections
from streamproc.telemetry import StatusBoard
from tests.viewers import as_cameras_send

NAMES = ("gate", "plaza", "yard")
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def config(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("clips")
    clips = {name: as_cameras_send(samples / f"{name}.mp4", folder, "-s", "320x180", seconds=2) for name in NAMES}
    return Config(
        engine=EngineConfig(kind="null"),
        model=ModelConfig(name="null", labels="coco"),
        file=FileConfig(path=str(folder / "{camera}.jsonl")),
        cameras={name: CameraConfig(url=str(clip), files=(clip,), loop=True) for name, clip in clips.items()},
    )


@asynccontextmanager
async def at_work(config: Config) -> AsyncIterator[tuple[Fleet, dict[str, CameraLedger], StatusBoard]]:
    """Two workers, the first with two cameras, told to stop after the block."""
    board, stop = StatusBoard(list(NAMES)), asyncio.Event()
    with SharedBooks(len(NAMES)) as books:
        ledgers = dict(open_ledgers(NAMES, books.memory))
        plan = Plan(processes=2, reason="a test")
        fleet = Fleet(config, plan, books, ledgers=ledgers, board=board, states=None, screens=None)
        async with fleet:
            running = asyncio.create_task(fleet.run(stop, None))
            try:
                yield fleet, ledgers, board
            finally:
                stop.set()
                await running
                for ledger in ledgers.values():
                    ledger.close()


async def until_all_publish(ledgers: dict[str, CameraLedger], more: int = 24) -> None:
    wanted = {name: ledger.tally().published + more for name, ledger in ledgers.items()}
    async with asyncio.timeout(TIMEOUT_S):
        while any(ledgers[name].tally().published < count for name, count in wanted.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def written(path: str) -> list[int]:
    return [decode_detections(line).seq for line in Path(path).read_bytes().splitlines()]


async def test_a_camera_moves_with_its_books(config: Config) -> None:
    async with at_work(config) as (fleet, ledgers, _):
        await until_all_publish(ledgers)
        source, target = fleet._members
        moved = source.cameras[-1]
        await fleet._move(moved, source, target)
        assert moved not in source.cameras
        assert moved in target.cameras
        await until_all_publish(ledgers)
    assert fleet.failures == []
    for name, ledger in ledgers.items():
        tally = ledger.tally()
        assert set(tally.in_flight().values()) == {0}, name
        assert config.file is not None
        seqs = written(config.file.path.replace("{camera}", name))
        assert seqs == sorted(set(seqs)), f"{name}: every number once, in order"
        assert len(seqs) == tally.published


async def test_a_worker_that_hangs_is_killed_and_replaced(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "_SILENT_S", 3.0)
    monkeypatch.setattr(member, "_BURIAL_S", 0.5)
    async with at_work(config) as (fleet, ledgers, board):
        await until_all_publish(ledgers)
        processes = psutil.Process().children()
        hung = next(process for process in processes if "streamproc.fleet.process" in process.cmdline())
        hung.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(TIMEOUT_S):
            while "worker" not in {status.reason for status in board.statuses().values()}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await until_all_publish(ledgers)
    assert sorted(len(lives) for lives in fleet.counts()) == [1, 2]
    assert all(set(ledger.tally().in_flight().values()) == {0} for ledger in ledgers.values())
