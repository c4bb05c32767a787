"""ONNX Runtime in this process: any execution provider that the installed build has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from streamproc.engines.base import ModelInfo, Slot, TensorInfo
from streamproc.engines.intake import Intake, cannot_run, check_outputs, plan_intake
from streamproc.engines.pool import PooledSlot, SlotPool
from streamproc.errors import EngineError, ModelError

__all__ = ["OnnxRuntimeEngine"]

# ONNX Runtime's own error classes have no common base but Exception.
_ERRORS = tuple(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception))
_SUFFIX = "ExecutionProvider"
_CPU = f"CPU{_SUFFIX}"
# In order of preference for "auto". TensorRT builds its plan for minutes at each start, so it is used when named.
_AUTOMATIC = tuple(f"{name}{_SUFFIX}" for name in ("CUDA", "MIGraphX", "ROCM", "CoreML", "DML", "CPU"))
# A GPU gains from batches and needs a second run queued behind the first to stay busy; a CPU does not.
_GPU_BATCH, _GPU_RUNS = 8, 2
_PREFIX = "streamproc/"  # keeps the names of our nodes apart from the model's


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
        self._threads = ThreadPoolExecutor(self.concurrency, thread_name_prefix="onnxruntime")
        self._pool = SlotPool(
            [PooledSlot(np.zeros(intake.slot_shape, dtype=np.uint8)) for _ in range(self.concurrency + 1)]
        )

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        name: str,
        device: str = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        max_batch: int | Literal["auto"] = "auto",
        threads: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> OnnxRuntimeEngine:
        """Read, adapt and warm up a model; the fields of ``EngineConfig`` and ``ModelConfig`` say the rest.

        ``device`` is an execution provider, with or without ``ExecutionProvider`` at its end.

        Raises:
            ModelError: the file cannot be read, or the model's tensors do not suit.
            EngineError: the execution provider or the precision is not to be had here.
        """
        if precision == "bf16":
            raise EngineError(
                "engine.precision: bf16 asked for, but ONNX Runtime computes in the model's own types. "
                "Set engine.precision to auto, or engine.kind to openvino."
            )
        return await asyncio.to_thread(cls._load, path, name, device, max_batch, threads, size)

    @classmethod
    def _load(
        cls,
        path: Path,
        name: str,
        device: str,
        max_batch: int | Literal["auto"],
        threads: int | None,
        size: tuple[int, int] | None,
    ) -> OnnxRuntimeEngine:
        provider = _find_provider(device)
        model = _read(path)
        constants = {constant.name for constant in model.graph.initializer}  # old files list them as inputs too
        inputs = tuple(_tensor_info(value) for value in model.graph.input if value.name not in constants)
        auto_batch = 1 if provider == _CPU else _GPU_BATCH
        intake = plan_intake(name, inputs, max_batch=max_batch, auto_batch=auto_batch, size=size)
        try:
            serialised = _with_uint8_input(model, intake)
        except (EncodeError, ValueError) as exc:
            raise ModelError(
                f"model {name} ({path}): with its weights it is larger than 2 GiB, more than one ONNX message holds: "
                f"{exc}. Use engine.kind: openvino."
            ) from exc
        try:
            session = _session(serialised, provider, threads)
            outputs = _warm_up(session, intake)
        except _ERRORS as exc:
            raise cannot_run(name, path, "ONNX Runtime", provider.removesuffix(_SUFFIX), intake, str(exc)) from exc
        if device != "auto" and session.get_providers()[0] != provider:
            raise EngineError(
                f"engine.device: ONNX Runtime has {provider} but cannot use it (it fell back to "
                f"{session.get_providers()[0]}). Install the device's driver and libraries, or set engine.device: auto."
            )
        check_outputs(name, outputs, 1 if intake.open_batch else intake.max_batch)
        info = ModelInfo(
            name=name,
            size=intake.size,
            inputs=inputs,
            outputs=tuple(
                TensorInfo(name=tensor.name, dtype=tensor.dtype, shape=(1, *tensor.shape[1:])) for tensor in outputs
            ),
            metadata={entry.key: entry.value for entry in model.metadata_props},
        )
        return cls(session, info, intake)

    @property
    def slots(self) -> int:
        """Slots in the pool."""
        return len(self._pool)

    def lease(self) -> AbstractAsyncContextManager[Slot]:
        """Wait for a free slot; leaving the context releases it."""
        return self._pool.lease()

    async def infer(self, slot: Slot, count: int) -> Mapping[str, NDArray[Any]]:
        """Run the first ``count`` pictures of a leased slot; the outputs are the caller's own arrays."""
        own = self._pool.claim(slot, count)
        images = own.images[:count] if self._open_batch else own.images
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, images)
        try:
            results = await self._pool.outcome(own, running)
        except _ERRORS as exc:
            raise EngineError(f"model {self.info.name}: ONNX Runtime failed in an inference: {exc}") from exc
        return {name: values[:count] for name, values in results.items()}

    async def close(self) -> None:
        """Wait for what is in flight, then end the threads."""
        await self._pool.settle()
        self._threads.shutdown()

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        # Plain run: outputs bound to preallocated memory measured no faster (yolov8n 640x640, CPU).
        values = self._session.run(self._names, {_PREFIX + "images": images})
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


def _read(path: Path) -> onnx.ModelProto:
    if path.suffix != ".onnx":
        raise ModelError(f"model file {path}: expected .onnx. Export the model to ONNX, or use engine.kind: openvino.")
    if not path.is_file():
        raise ModelError(f"model file {path}: there is no such file. Check model.path.")
    try:
        model = onnx.load(path)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as exc:
        raise ModelError(
            f"model file {path}: it cannot be read as ONNX: {exc}. The file is damaged, of another kind, or its "
            "external data is not beside it: copy or export it again."
        ) from exc
    if not model.graph.node:
        raise ModelError(f"model file {path}: it holds no graph. Export the model again.")
    return model


def _with_uint8_input(model: onnx.ModelProto, intake: Intake) -> bytes:
    """The model with a slot's images as its input, serialised.

    Nodes in front of the old input turn uint8 (batch, height, width, 3) into what it was: transposed, cast and scaled
    as the model needs.
    """
    graph = model.graph
    steps: list[tuple[str, dict[str, Any]]] = []
    if intake.channels_first:
        steps.append(("Transpose", {"perm": [0, 3, 1, 2]}))
    if intake.dtype != "uint8":
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(1 / 255, dtype=np.float32), _PREFIX + "scale"))
        steps += [("Cast", {"to": onnx.TensorProto.FLOAT}), ("Mul", {})]
    if intake.dtype == "float16":
        steps.append(("Cast", {"to": onnx.TensorProto.FLOAT16}))
    steps = steps or [("Identity", {})]
    names = [_PREFIX + "images", *(f"{_PREFIX}{step}" for step in range(1, len(steps))), intake.tensor]
    for index, (kind, attributes) in enumerate(steps):
        taken = [names[index], _PREFIX + "scale"] if kind == "Mul" else [names[index]]
        node = onnx.helper.make_node(kind, taken, [names[index + 1]], f"{_PREFIX}{kind}{index}", **attributes)
        graph.node.insert(index, node)
    batch = "batch" if intake.open_batch and intake.max_batch > 1 else intake.max_batch
    del graph.input[:]
    graph.input.append(
        onnx.helper.make_tensor_value_info(names[0], onnx.TensorProto.UINT8, [batch, *intake.slot_shape[1:]])
    )
    serialised: bytes = model.SerializeToString()
    return serialised


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
    values = session.run(names, {_PREFIX + "images": images})
    return tuple(
        TensorInfo(name=name, dtype=str(value.dtype), shape=value.shape)
        for name, value in zip(names, values, strict=True)
    )


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim)
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except KeyError:  # a sequence or a map has no element type
        dtype = "(no tensor)"
    return TensorInfo(name=value.name, dtype=dtype, shape=shape)
