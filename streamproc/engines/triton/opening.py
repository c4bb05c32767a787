"""The way to an open Triton engine: wait for a server, look at its model, choose how tensors travel."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import UNIT_RGB, ModelInfo, TensorInfo
from streamproc.engines.cuda import why_not_cuda
from streamproc.engines.intake import check_outputs, settle_pictures
from streamproc.engines.shared_memory import RegionError, sweep
from streamproc.engines.triton.buffers import Buffers, Transport
from streamproc.engines.triton.connection import CallError, Connection, Trouble, explain
from streamproc.engines.triton.served import Served, in_flight
from streamproc.engines.triton.server import Server, version_of
from streamproc.errors import EngineError, FatalError, ModelError

__all__ = ["Opened", "open_servers"]

_log = logging.getLogger(__name__)

_POLL_S = 0.25
_PROGRESS_S = 5.0
_SPARE_SLOTS = 2
"""Beyond those in flight: one being filled or read, one held back because an abandoned request may still touch it."""
_TRANSPORT_WORDS: dict[Transport, str] = {
    "cuda": "CUDA shared memory",
    "system": "system shared memory",
    "none": "gRPC, within the requests",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Servers that are ready or will join later, and everything that was found out and set up with them."""

    servers: Sequence[Server]
    served: Served
    buffers: Buffers
    info: ModelInfo
    in_flight: int
    changed: asyncio.Event
    description: Mapping[str, str | int]


async def open_servers(engine: EngineConfig, model: ModelConfig) -> Opened:
    """See :meth:`TritonEngine.open`."""
    headers = {name: value.get_secret_value() for name, value in engine.headers.items()}
    changed = asyncio.Event()
    servers = [
        Server(Connection(url, headers, engine.tls if url.startswith("grpcs:") else None), engine, model, changed.set)
        for url in engine.servers
    ]
    deadline_s = time.monotonic() + engine.ready_timeout_s
    try:
        while True:
            found = await _first_ready(servers, engine.ready_timeout_s, deadline_s)
            try:
                return await _set_up(servers, found, engine, model, changed)
            except CallError as error:
                if error.trouble in (Trouble.DENIED, Trouble.REFUSED) or time.monotonic() > deadline_s:
                    raise EngineError(f"model {model.name}: Triton cannot be used: {error.said}") from error
                _log.info("triton: cannot be used yet: %s; trying again", error.said)
                await asyncio.sleep(_POLL_S)
    except BaseException:
        await asyncio.gather(*(server.connection.close() for server in servers))
        raise


async def _first_ready(servers: Sequence[Server], timeout_s: float, deadline_s: float) -> dict[Server, Served]:
    """The servers that are ready, as soon as there is one, and what they serve."""
    said_at_s = time.monotonic()
    while True:
        answers = await asyncio.gather(*(_examine(server) for server in servers))
        found = {server: answer for server, answer in zip(servers, answers, strict=True) if isinstance(answer, Served)}
        if found:
            return found
        failures = [answer for answer in answers if isinstance(answer, FatalError)]
        if len(failures) == len(servers):
            raise failures[0]
        now_s = time.monotonic()
        waiting = "; ".join(
            explain(server.url, answer) if isinstance(answer, CallError) else str(answer)
            for server, answer in zip(servers, answers, strict=True)
        )
        if now_s > deadline_s:
            raise EngineError(f"no Triton server was ready within {timeout_s:g} s: {waiting}")
        if now_s - said_at_s > _PROGRESS_S:
            said_at_s = now_s
            _log.info("waiting for Triton, up to %.0f s more: %s", deadline_s - now_s, waiting)
        await asyncio.sleep(_POLL_S)


async def _examine(server: Server) -> Served | CallError | FatalError:
    try:
        return await server.examine()
    except (CallError, FatalError) as error:
        return error


async def _set_up(
    servers: Sequence[Server],
    found: Mapping[Server, Served],
    engine: EngineConfig,
    model: ModelConfig,
    changed: asyncio.Event,
) -> Opened:
    first, served = next(iter(found.items()))
    for server, other in found.items():
        if not other.fits(served):
            raise ModelError(
                f"model {model.name}: the servers at {first.url} and {server.url} serve it with different tensors. "
                "Serve the same model on all of engine.urls."
            )
    for name in await asyncio.to_thread(sweep):
        _log.info("freed the shared memory %s that a killed streamproc had left behind", name)
    outputs = await _warm_up(first, served, model, engine.ready_timeout_s)
    intake = settle_pictures(
        model.name, served.intake, outputs, pixels=model.pixels, fit=model.fit, metadata=served.metadata
    )
    if intake.dtype != "uint8" and intake.pixels == UNIT_RGB:
        _log.info(
            "model %s takes %s tensors, not pictures: it is given red, green and blue from 0 to 1. If it wants other "
            "values, build it with --mean and --scale, or put a model that makes them in front of it",
            *(model.name, intake.dtype),
        )
    served = dataclasses.replace(served, intake=intake)
    found = dict.fromkeys(found, served)
    in_flight_each = in_flight(engine, served)
    slots = in_flight_each * len(servers) + _SPARE_SLOTS
    buffers = await _share_memory(servers, found, outputs, slots, engine, model)
    try:
        description = await _describe(servers, first, served, in_flight_each, model)
    except BaseException:
        await _give_up(found, buffers)
        raise
    info = ModelInfo(
        name=model.name,
        size=intake.size,
        inputs=served.inputs,
        outputs=outputs,
        metadata=served.metadata,
        fit=intake.fit,
    )
    return Opened(
        servers=servers,
        served=served,
        buffers=buffers,
        info=info,
        in_flight=in_flight_each,
        changed=changed,
        description=description,
    )


async def _warm_up(server: Server, served: Served, model: ModelConfig, timeout_s: float) -> tuple[TensorInfo, ...]:
    """The outputs with their real shapes, the batch as 1, from one inference of a black picture.

    Sent inline: how much memory the outputs need is what it finds out. The model's first inference may take long.
    """
    rows = 1 if served.intake.open_batch else served.intake.max_batch
    probe = Buffers.inline(served, model=model.name, version=version_of(model), timeout_s=timeout_s)
    try:
        answer = await server.connection.infer(probe.request(probe.slots[0], rows, "none"), timeout_s)
    except CallError as error:
        if error.trouble is not Trouble.REFUSED:
            raise
        raise EngineError(
            f"model {model.name}: it is ready on the server at {server.url}, but failed in its first inference: "
            f"{error.said}"
        ) from error
    by_name = {tensor.name: tuple(tensor.shape) for tensor in answer.outputs}
    missing = next((tensor.name for tensor in served.outputs if tensor.name not in by_name), None)
    if missing is not None:
        raise ModelError(f"model {model.name}: its answer lacks the output {missing} that its configuration names.")
    outputs = [dataclasses.replace(tensor, shape=by_name[tensor.name]) for tensor in served.outputs]
    check_outputs(model.name, outputs, rows)
    return tuple(dataclasses.replace(tensor, shape=(1, *tensor.shape[1:])) for tensor in outputs)


async def _share_memory(
    servers: Sequence[Server],
    found: Mapping[Server, Served],
    outputs: Sequence[TensorInfo],
    slots: int,
    engine: EngineConfig,
    model: ModelConfig,
) -> Buffers:
    """The slots' memory, of the first kind in order that works with a server; the others get theirs inline."""
    served = next(iter(found.values()))
    wanted: tuple[Transport, ...] = (
        ("cuda", "system", "none") if engine.shared_memory == "auto" else (engine.shared_memory,)
    )
    for transport in wanted:
        try:
            if transport == "cuda" and (reason := why_not_cuda()) is not None:
                raise RegionError(reason)
            buffers = await asyncio.to_thread(
                Buffers,
                served,
                outputs,
                slots=slots,
                transport=transport,
                model=model.name,
                version=version_of(model),
                priority=engine.priority,
                timeout_s=engine.timeout_s,
            )
        except RegionError as error:
            if engine.shared_memory != "auto":
                raise
            for server in found:
                server.why_not[transport] = str(error)
            continue
        for server in servers:
            server.prepare(served, buffers)
        try:
            for server in found:
                await server.attach()
        except BaseException:
            await _give_up(found, buffers)
            raise
        if any(server.transport == transport for server in found):
            return buffers
        buffers.close()
    raise AssertionError("inline always works")


async def _give_up(servers: Iterable[Server], buffers: Buffers) -> None:
    await asyncio.gather(*(server.detach() for server in servers))
    buffers.close()


async def _describe(
    servers: Sequence[Server], first: Server, served: Served, in_flight_each: int, model: ModelConfig
) -> dict[str, str | int]:
    versions = (await first.connection.model_metadata(model.name, version_of(model))).versions
    return {
        "kind": "triton",
        "version": await first.connection.server_version(),
        "url": ", ".join(server.url for server in servers),
        "device": "GPU" if served.on_gpu else "CPU",
        "backend": served.backend,
        "model_version": ", ".join(versions),
        **_transports(servers),
        "requests": in_flight_each * len(servers),
        "max_batch": served.intake.max_batch,
    }


def _transports(servers: Sequence[Server]) -> dict[str, str]:
    """The way that tensors take to each server, and why no better one."""
    alone = len(servers) == 1
    taken = [_TRANSPORT_WORDS[server.transport] if server.ready else "not there yet" for server in servers]
    reasons = [
        f"{'' if alone else f'{server.url} '}no {_TRANSPORT_WORDS[transport]}: {reason}"
        for server in servers
        for transport, reason in server.why_not.items()
    ]
    if not alone:
        taken = [f"{server.url} {words}" for server, words in zip(servers, taken, strict=True)]
    return {"transport": "; ".join(taken)} | ({"because": "; ".join(reasons)} if reasons else {})
