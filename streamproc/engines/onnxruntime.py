"""ONNX Runtime in this process: any execution provider that the installed build has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from streamproc.config import EngineConfig, ModelConfig
from streamproc.engines.base import ModelInfo, Slot, TensorInfo
from streamproc.engines.intake import Intake, cannot_run, check_outputs, plan_intake, row_each, rows_of, settle_pictures
from streamproc.engines.pool import PooledSlot, SlotPool
from streamproc.errors import EngineError
from streamproc.graphs.intake import IMAGES, add_uint8_intake
from streamproc.graphs.reading import OnnxModel, inputs_of, metadata_of, outputs_of, read_onnx, serialise
from streamproc.priority import give_way, yielding

__all__ = ["OnnxRuntimeEngine"]

# ONNX Runtime's own error classes have no common base but Exception.
_ERRORS = tuple(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception))
_SUFFIX = "ExecutionProvider"
_CPU = f"CPU{_SUFFIX}"
# In order of preference for "auto". TensorRT builds its plan for minutes at each start, so it is used when named.
_AUTOMATIC = tuple(f"{name}{_SUFFIX}" for name in ("CUDA", "MIGraphX", "ROCM", "CoreML", "DML", "CPU"))
# A GPU gains from batches and needs a second run queued behind the first to stay busy; a CPU does not.
_GPU_BATCH, _GPU_RUNS = 8, 2


class OnnxRuntimeEngine:
    """A model in an ONNX Runtime session, run by threads of the engine's own. Made by :meth:`open`."""

    def __init__(self, session: ort.InferenceSession, info: ModelInfo, intake: Intake) -> None:
        provider = session.get_providers()[0]
        self.info = info
        self.max_batch = intake.max_batch
        self.concurrency = 1 if provider == _CPU else _GPU_RUNS
        self.description: Mapping[str, str | int] = {
            "kind": "onnxruntime",
            "version": ort.__version__,
            "device": provider.removesuffix(_SUFFIX),
            "precision": "the model's own",
            "requests": self.concurrency,
            "max_batch": intake.max_batch,
        }
        self._session = session
        self._open_batch = intake.open_batch
        self._names = tuple(tensor.name for tensor in info.outputs)
        self._threads = ThreadPoolExecutor(self.concurrency, thread_name_prefix="onnxruntime", initializer=give_way)
        self._pool = SlotPool(
            [PooledSlot(np.zeros(intake.slot_shape, dtype=np.uint8)) for _ in range(self.concurrency + 1)]
        )

    @classmethod
    async def open(cls, engine: EngineConfig, model: ModelConfig) -> OnnxRuntimeEngine:
        """Read, adapt and warm up a model.

        Raises:
            ModelError: the file cannot be read, or the model's tensors do not suit.
            EngineError: the execution provider or the precision is not to be had here.
        """
        if engine.precision == "bf16":
            raise EngineError(
                "engine.precision: bf16 asked for, but ONNX Runtime computes in the model's own types. "
                "Set engine.precision to auto, or engine.kind to openvino."
            )
        return await yielding(partial(cls._load, engine, model))

    @classmethod
    def _load(cls, engine: EngineConfig, wanted: ModelConfig) -> OnnxRuntimeEngine:
        name, path = wanted.name, wanted.file
        provider = _find_provider(engine.device)
        model = read_onnx(path)
        inputs, metadata = inputs_of(model), metadata_of(model)
        auto_batch = 1 if provider == _CPU else _GPU_BATCH
        intake = plan_intake(name, inputs, max_batch=engine.max_batch, auto_batch=auto_batch, size=wanted.size)
        settle = partial(settle_pictures, name, pixels=wanted.pixels, fit=wanted.fit, metadata=metadata)
        stated = settle(intake, outputs_of(model))
        session, outputs = _started(model, stated, engine, provider, wanted)
        intake = settle(stated, outputs)
        if intake.pixels != stated.pixels:  # the file leaves the shapes open that tell what it wants
            session, outputs = _started(read_onnx(path), intake, engine, provider, wanted)
        if engine.device != "auto" and session.get_providers()[0] != provider:
            raise EngineError(
                f"engine.device: ONNX Runtime has {provider} but cannot use it (it fell back to "
                f"{session.get_providers()[0]}). Install the device's driver and libraries, or set engine.device: auto."
            )
        outputs = row_each(intake, outputs)
        check_outputs(name, outputs, 1 if intake.open_batch else intake.max_batch)
        info = ModelInfo(
            name=name,
            size=intake.size,
            inputs=inputs,
            outputs=tuple(
                TensorInfo(name=tensor.name, dtype=tensor.dtype, shape=(1, *tensor.shape[1:])) for tensor in outputs
            ),
            metadata=metadata,
            fit=intake.fit,
        )
        return cls(session, info, intake)

    @property
    def slots(self) -> int:
        """Slots in the pool."""
        return len(self._pool)

    @property
    def available(self) -> bool:
        """Always: it is in this process."""
        return True

    def lease(self) -> AbstractAsyncContextManager[Slot]:
        """Wait for a free slot; leaving the context releases it."""
        return self._pool.lease()

    async def infer(self, slot: Slot, count: int, *, patient: bool = False) -> Mapping[str, NDArray[Any]]:
        """Run the first ``count`` pictures of a leased slot; the outputs are the caller's own arrays."""
        own = self._pool.claim(slot, count)
        images = own.images[:count] if self._open_batch else own.images
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, images)
        try:
            results = await self._pool.outcome(own, running)
        except _ERRORS as exc:
            raise EngineError(f"model {self.info.name}: ONNX Runtime failed in an inference: {exc}") from exc
        return {tensor.name: rows_of(results[tensor.name], tensor, count) for tensor in self.info.outputs}

    async def close(self) -> None:
        """Wait for what is in flight, then end the threads."""
        await self._pool.settle()
        self._threads.shutdown()

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        # Plain run: outputs bound to preallocated memory measured no faster (yolov8n 640x640, CPU).
        values = self._session.run(self._names, {IMAGES: images})
        return dict(zip(self._names, values, strict=True))


def _find_provider(wanted: str) -> str:
    available: list[str] = ort.get_available_providers()
    if wanted == "auto":
        return next(provider for provider in _AUTOMATIC if provider in available)
    short = wanted.lower().removesuffix(_SUFFIX.lower())
    for provider in available:
        if provider.removesuffix(_SUFFIX).lower() == short:
            return provider
    names = ", ".join(provider.removesuffix(_SUFFIX) for provider in available)
    raise EngineError(
        f"engine.device: this build of ONNX Runtime has no {wanted}; it has {names}. "
        "Choose one of these, or install a build that has it (onnxruntime-gpu for CUDA and TensorRT)."
    )


def _started(
    model: OnnxModel, intake: Intake, engine: EngineConfig, provider: str, wanted: ModelConfig
) -> tuple[ort.InferenceSession, tuple[TensorInfo, ...]]:
    """A session of a model, which is changed in place to take pictures, and the outputs of its first inference."""
    name, path = wanted.name, wanted.file
    add_uint8_intake(
        model,
        tensor=intake.tensor,
        dtype=intake.dtype,
        channels_first=intake.channels_first,
        size=intake.size,
        batch=None if intake.open_batch and intake.max_batch > 1 else intake.max_batch,
        pixels=intake.pixels,
    )
    serialised = serialise(model, of=f"model {name} ({path})", remedy="Use engine.kind: openvino.")
    try:
        session = _session(serialised, provider, engine.threads)
        return session, _warm_up(session, intake)
    except _ERRORS as exc:
        raise cannot_run(name, path, "ONNX Runtime", provider.removesuffix(_SUFFIX), intake, str(exc)) from exc


def _session(model: bytes, provider: str, threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors: what it warns of, it puts right by itself
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Spinning threads would take the cores from the decoders: 80 instead of 50 ms of CPU time a picture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [provider] if provider == _CPU else [provider, _CPU]
    return ort.InferenceSession(model, options, providers=providers)


def _warm_up(session: ort.InferenceSession, intake: Intake) -> tuple[TensorInfo, ...]:
    """The outputs' real shapes, from one inference of black pictures."""
    count = 1 if intake.open_batch else intake.max_batch
    images = np.zeros((count, *intake.slot_shape[1:]), dtype=np.uint8)
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {IMAGES: images})
    return tuple(
        TensorInfo(name=name, dtype=str(value.dtype), shape=value.shape)
        for name, value in zip(names, values, strict=True)
    )
