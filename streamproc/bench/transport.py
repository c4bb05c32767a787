"""How pictures travel to a Triton server: every transport, batch size and concurrency, against a tutorial's client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import cv2

from streamproc.bench.agreement import check_agreement
from streamproc.bench.baseline import TutorialClients, why_no_baseline
from streamproc.bench.client import PipelineClient, open_client
from streamproc.bench.load import Load, put_under_load
from streamproc.bench.machine import processor
from streamproc.bench.pictures import DecodedPicture
from streamproc.bench.report import Comparison, Row, Subject, TransportReport, make_row
from streamproc.bench.server import Access, Counters, Examiner, examiner
from streamproc.config import EngineConfig, ModelConfig
from streamproc.errors import EngineError
from streamproc.models.heads import Thresholds

__all__ = ["Plan", "Target", "Transport", "measure_transport"]

Transport: TypeAlias = Literal["cuda", "system", "none"]

_THRESHOLDS = Thresholds(confidence=0.25, iou=0.45, class_ids=None, max_detections=300)
_ROUNDS = 3
_TIMEOUT_S = 60.0  # of a request: in a benchmark, many may wait for one slow model


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is measured.

    ``engine`` says where the server is and how to be let in. ``models``: one served network, or the same with several
    inputs. ``baseline``: the same network with its own FP32 input and raw output, for the tutorial's client, None to
    leave that out.
    """

    engine: EngineConfig
    models: tuple[str, ...]
    baseline: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How it is measured: every transport (None: all that work here) with every batch size and concurrency, for
    ``seconds`` each."""

    transports: tuple[Transport, ...] | None
    batch_sizes: tuple[int, ...]
    concurrencies: tuple[int, ...]
    seconds: float
    picture: DecodedPicture


async def measure_transport(target: Target, plan: Plan, *, on_progress: Callable[[str], None]) -> TransportReport:
    """Measure all of a plan, one thing after the other.

    Raises:
        EngineError: the server cannot be reached or has failed, or a transport that was asked for does not work.
        ModelError: a model is unknown or does not suit, or the two clients find different things.
    """
    cv2.setNumThreads(1)  # as in a run: the requests are the parallelism
    access = Access(target.engine)
    async with examiner(access) as asking:
        return await _Sweep(target, plan, access, asking, on_progress).run()


class _Point(NamedTuple):
    """What one row measures."""

    model: str
    transport: Transport
    batch: int
    concurrency: int


class _Tutorial(NamedTuple):
    """The tutorial's clients, and the model that they use."""

    model: str
    clients: TutorialClients


class _Sweep:
    """One benchmark as it goes on."""

    def __init__(
        self, target: Target, plan: Plan, access: Access, asking: Examiner, on_progress: Callable[[str], None]
    ) -> None:
        self._target = target
        self._plan = plan
        self._access = access
        self._asking = asking
        self._progress = on_progress
        self._rows: list[Row] = []
        self._notes: list[str] = []
        self._agreed: int | None = None

    async def run(self) -> TransportReport:
        transports = await self._working_transports()
        subject = await self._describe()
        comparisons: tuple[Comparison, ...] = ()
        with ExitStack() as stack:
            tutorial = await self._open_tutorial(stack)
            if tutorial is not None:
                for concurrency in sorted({1, *self._plan.concurrencies}):
                    self._rows.append(await self._measure_tutorial(tutorial, concurrency))
            best = await self._sweep(transports)
            if tutorial is not None:
                comparisons = await self._compare_best(best, tutorial)
        if not self._rows:
            raise EngineError(f"nothing could be measured: {'; '.join(self._notes)}")
        return TransportReport(
            subject=subject,
            rows=tuple(self._rows),
            comparisons=comparisons,
            agreed=self._agreed,
            notes=tuple(self._notes),
        )

    async def _sweep(self, transports: list[Transport]) -> list[_Point]:
        """Measure every point; the fastest of each model and transport."""
        best: dict[tuple[str, Transport], tuple[float, _Point]] = {}
        for model in self._target.models:
            batches = [batch for batch in self._plan.batch_sizes if await self._takes(model, batch)]
            for point in self._points(model, transports, batches):
                row = await self._measure(point)
                self._rows.append(row)
                kind = model, point.transport
                if kind not in best or row.images_per_s > best[kind][0]:
                    best[kind] = row.images_per_s, point
        return [point for _, point in best.values()]

    async def _compare_best(self, best: list[_Point], tutorial: _Tutorial) -> tuple[Comparison, ...]:
        rounds: list[list[tuple[Row, Row]]] = [[] for _ in best]
        for _ in range(_ROUNDS):
            theirs = await self._measure_tutorial(tutorial, 1)
            for point, measured in zip(best, rounds, strict=True):
                measured.append((await self._measure(point), theirs))
        return tuple(Comparison(rounds=tuple(measured)) for measured in rounds)

    def _points(self, model: str, transports: list[Transport], batches: list[int]) -> Iterator[_Point]:
        for transport in transports:
            for batch in batches:
                for concurrency in self._plan.concurrencies:
                    yield _Point(model, transport, batch, concurrency)

    async def _takes(self, model: str, batch: int) -> bool:
        taken = await self._asking.takes_batch(model, batch)
        if not taken:
            self._notes.append(f"{model}: no rows with batch {batch}, which is not among those that the model takes")
        return taken

    async def _working_transports(self) -> list[Transport]:
        """Those asked for; or else all that work, and a note about each that does not."""
        if self._plan.transports is not None:
            return list(self._plan.transports)
        found: list[Transport] = ["none"]
        async with self._client(self._target.models[0], "none"):
            pass  # a server that is not there is not to be taken for a transport that does not work
        for transport in ("system", "cuda"):
            try:
                async with self._client(self._target.models[0], transport):
                    found.insert(0, transport)
            except EngineError as error:
                self._notes.append(f"no rows with {transport} shared memory: {error}")
        return found

    @asynccontextmanager
    async def _client(
        self, model: str, transport: Transport, batch: int | None = None, concurrency: int = 1
    ) -> AsyncIterator[PipelineClient]:
        settings = {
            "shared_memory": transport,
            "max_batch": "auto" if batch is None else batch,
            "in_flight": concurrency,
            "timeout_s": _TIMEOUT_S,
        }
        engine = self._target.engine.model_copy(update=settings)
        async with open_client(engine, ModelConfig(name=model), threads=concurrency) as client:
            yield client

    async def _describe(self) -> Subject:
        inputs: dict[str, str] = {}
        for model in self._target.models:
            async with self._client(model, "none") as client:
                inputs[model] = client.engine.info.inputs[0].dtype
                described, told = client.engine.description, client.engine.info.metadata
        name, cores = processor()
        return Subject(
            processor=name,
            cores=cores,
            server=f"Triton {described['version']}",
            device=str(described["device"]),
            backend=" ".join(filter(None, (str(described["backend"]), told.get("runtime")))),
            precision=told.get("precision", "not told"),
            models=inputs,
            picture=f"{self._plan.picture.name}, {'x'.join(map(str, self._plan.picture.yuv.size))}",
        )

    async def _load(self, model: str, concurrency: int, request: Callable[[], Awaitable[object]]) -> Load[Counters]:
        return await put_under_load(
            request,
            workers=concurrency,
            seconds=self._plan.seconds,
            read=lambda: self._asking.counters(model),
        )

    async def _measure(self, point: _Point) -> Row:
        model, transport, batch, concurrency = point
        async with self._client(model, transport, batch, concurrency) as client:
            taken, given = client.engine.info.inputs[0].dtype, _output_of(client)
            self._progress(f"{taken} to {given}, {transport}: batch {batch}, concurrency {concurrency}")
            picture = self._plan.picture.yuv
            load = await self._load(model, concurrency, lambda: client.detect(picture, batch, _THRESHOLDS))
        return make_row(
            load,
            client="streamproc",
            transport=transport,
            input=taken,
            output=given,
            batch=batch,
            concurrency=concurrency,
        )

    async def _open_tutorial(self, stack: ExitStack) -> _Tutorial | None:
        """The tutorial's clients, held against ours, where there is a model for them."""
        model = self._target.baseline
        if model is None:
            return None
        async with self._client(model, "none") as client:
            info, head = client.engine.info, client.head
        if (reason := why_no_baseline(info, head.name)) is not None:
            self._notes.append(f"no tutorial's client with model {model}: {reason}")
            return None
        clients = stack.enter_context(closing(TutorialClients(self._access, info, max(self._plan.concurrencies))))
        await self._hold_against(clients)
        return _Tutorial(model, clients)

    async def _measure_tutorial(self, tutorial: _Tutorial, concurrency: int) -> Row:
        self._progress(f"tutorial's client: concurrency {concurrency}")
        bgr = self._plan.picture.bgr
        load = await self._load(tutorial.model, concurrency, lambda: tutorial.clients.detect(bgr, _THRESHOLDS))
        return make_row(
            load,
            client="tutorial",
            transport="none",
            input="float32",
            output="raw",
            batch=1,
            concurrency=concurrency,
        )

    async def _hold_against(self, tutorials: TutorialClients) -> None:
        theirs = await tutorials.detect(self._plan.picture.bgr, _THRESHOLDS)
        for model in self._target.models:
            async with self._client(model, "none") as client:
                ours = (await client.detect(self._plan.picture.yuv, client.engine.max_batch, _THRESHOLDS))[0]
            self._agreed = check_agreement(ours, theirs, confidence=_THRESHOLDS.confidence, iou=_THRESHOLDS.iou)
        if not self._agreed:
            self._notes.append("neither client finds anything in the picture; name one with objects in it")


def _output_of(client: PipelineClient) -> Literal["raw", "boxes"]:
    return "boxes" if client.head.name == "yolo end-to-end" else "raw"
