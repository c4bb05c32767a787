"""All worker processes of a run."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from types import TracebackType

from streamproc.channel import Channel, Overflow
from streamproc.config import Config
from streamproc.fleet.balance import Load, best_move
from streamproc.fleet.books import SharedBooks
from streamproc.fleet.member import Member, Surroundings
from streamproc.fleet.plan import Plan, expected_costs, spread
from streamproc.ledger import CameraLedger
from streamproc.report import WorkerCounts
from streamproc.sinks.base import Delivery, Sink
from streamproc.streams import Publish, Screens
from streamproc.telemetry import StatusBoard
from streamproc.types import AccessUnit

__all__ = ["Fleet"]

_log = logging.getLogger(__name__)

_STOP_S = 8.0
"""For processes that were told to stop; their own deadlines add up to half of that."""
_BALANCE_EVERY_S = 30.0
"""Between looks at whether the load is even: a move costs its camera a second and its tracks."""


class Fleet:
    """Worker processes that share a configuration's cameras, as one crew. Lives on one event loop; runs once.

    Entering the context starts the processes and waits until each has loaded its model.

    Args:
        books: memory of ``ledgers``.
        states: publishes the cameras' states; None where there is no broker.
        screens: where pictures for viewers go; None where nothing is served.

    Raises (on entering the context):
        ConfigError: a class named in the configuration is none of the model's.
        FatalError: the model, its engine or an output cannot be opened.
    """

    def __init__(
        self,
        config: Config,
        plan: Plan,
        books: SharedBooks,
        *,
        ledgers: Mapping[str, CameraLedger],
        board: StatusBoard,
        states: Sink | None,
        screens: Screens | None,
    ) -> None:
        self._ledgers = ledgers
        self._states = states
        self._shown = _publishers(config, screens)
        around = Surroundings(
            config=_share_of_engine(config, plan.processes),
            books=books,
            ledgers=ledgers,
            board=board,
            publish=self._publish,
        )
        places = spread(expected_costs(config), plan.processes)
        self._members = [Member(number, cameras, around) for number, cameras in enumerate(places, 1)]
        # A file would begin anew elsewhere, and a video file would be overwritten.
        self._movable = {name for name, camera in config.cameras.items() if not camera.files and config.video is None}

    async def __aenter__(self) -> Fleet:
        opening = [asyncio.create_task(member.open(), name=f"open {member}") for member in self._members]
        try:
            await asyncio.gather(*opening)
        except BaseException:
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def __str__(self) -> str:
        """The model that they run, for people."""
        return self._members[0].model

    @property
    def failures(self) -> Sequence[str]:
        """What went wrong, in words for people."""
        return [failure for member in self._members for failure in member.failures]

    def counts(self) -> Sequence[Sequence[WorkerCounts]]:
        """What each worker says of itself; more than once where it was restarted."""
        return [member.lives for member in self._members]

    async def start(self) -> None:
        """Get ready to publish the cameras' states. Raises FatalError: that can never work."""
        if self._states is not None:
            await self._states.start()

    async def run(self, stop: asyncio.Event, duration_s: float | None) -> None:
        """Work until every source has ended, ``stop`` is set, the duration is over, or an engine breaks."""
        nothing: Channel[Delivery] = Channel(1, Overflow.DROP_OLDEST)
        async with asyncio.TaskGroup() as tasks:
            if self._states is not None:
                tasks.create_task(self._states.run(nothing), name="states")
            work = [tasks.create_task(self._attend(member), name=str(member)) for member in self._members]
            balancing = tasks.create_task(self._keep_even(), name="balance")
            everything = tasks.create_task(_all(work), name="workers")
            stopping = tasks.create_task(stop.wait(), name="stop")
            await asyncio.wait({everything, stopping}, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
            for task in (stopping, balancing):
                task.cancel()
            self._stop()
            _, late = await asyncio.wait(work, timeout=_STOP_S)
            if late:
                _log.warning("%d worker(s) did not end within %.0f s and were killed", len(late), _STOP_S)
                for member in self._members:
                    member.kill()
            await everything
            nothing.close()

    def watch(self, camera: str, watched: bool) -> None:
        """See :class:`streamproc.streams.Show`."""
        self._home(camera).watch(camera, watched)

    def refresh(self, camera: str) -> None:
        """See :class:`streamproc.streams.Show`."""
        self._home(camera).refresh(camera)

    def tap(self, camera: str, watched: bool) -> None:
        """See :class:`streamproc.streams.Show`."""
        self._home(camera).tap(camera, watched)

    def _home(self, camera: str) -> Member:
        """The member that works on a camera, or will when it is back; any where nobody does any more."""
        return next((member for member in self._members if camera in member.cameras), self._members[0])

    def _publish(self, camera: str, raw: bool, unit: AccessUnit) -> None:
        publish = self._shown.get((camera, raw))
        if publish is not None:
            publish(unit)

    async def _attend(self, member: Member) -> None:
        await member.work()
        if member.broken:
            self._stop()

    def _stop(self) -> None:
        for member in self._members:
            member.stop()

    async def _close(self) -> None:
        await asyncio.gather(*(member.close() for member in self._members))

    async def _keep_even(self) -> None:
        """Move a camera from the busiest worker to the idlest from time to time, where that is worth it."""
        before = self._spent_ns()
        while True:
            await asyncio.sleep(_BALANCE_EVERY_S)
            now = self._spent_ns()
            costs = {camera: (now[camera] - before[camera]) / (_BALANCE_EVERY_S * 1e9) for camera in now}
            working = [member for member in self._members if member.at_work]
            loads = [Load(cameras=tuple(member.cameras), movable=frozenset(self._movable)) for member in working]
            move = best_move(costs, loads)
            if move is not None:
                await self._move(move.camera, working[move.source], working[move.target])
                now = self._spent_ns()
            before = now

    async def _move(self, camera: str, source: Member, target: Member) -> None:
        _log.info("%s is busier than %s: camera %s moves there", source, target, camera)
        try:
            watched, tapped = await source.give_up(camera)
        except EOFError:
            return  # it crashed meanwhile, and takes its cameras with it into its next life
        target.take_on(camera, watched=watched, tapped=tapped)

    def _spent_ns(self) -> dict[str, int]:
        return {name: sum(ledger.spent_ns().values()) for name, ledger in self._ledgers.items()}


async def _all(work: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(work)


def _publishers(config: Config, screens: Screens | None) -> dict[tuple[str, bool], Publish]:
    if screens is None:
        return {}
    found = {(camera, False): screens.drawn(camera) for camera in config.cameras}
    for camera in config.cameras:
        if (publish := screens.raw(camera)) is not None:
            found[camera, True] = publish
    return found


def _share_of_engine(config: Config, processes: int) -> Config:
    """The configuration for one of several: an engine in the process gets its share of the cores, unless it says how
    many it wants."""
    if config.engine.kind == "triton" or config.engine.threads is not None:
        return config
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return config.model_copy(update={"engine": config.engine.model_copy(update={"threads": threads})})
