"""OpenVINO in this process: Intel and AMD processors, Arm processors, Intel GPUs and NPUs."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamproc.config import EngineConfig, ModelConfig
from streamproc.discretion import without_telemetry
from streamproc.engines.base import ModelInfo, Slot, TensorInfo
from streamproc.engines.intake import Intake, cannot_run, check_outputs, plan_intake, row_each, rows_of, settle_pictures
from streamproc.engines.pool import PooledSlot, Running, SlotPool
from streamproc.errors import EngineError, ModelError
from streamproc.priority import yielding

with without_telemetry():
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

__all__ = ["OpenVinoEngine"]

# OpenVINO tells a Python callback of success only; a failed request is found by asking for it this often.
_FAILURE_CHECK_S = 0.5

_LAYERS = {"Convolution", "FullyConnected"}


class OpenVinoEngine:
    """A model compiled by OpenVINO, one request a slot.

    Made by :meth:`open`. The device works on ``OPTIMAL_NUMBER_OF_INFER_REQUESTS`` requests at once; one slot more
    lets the next batch be prepared and queued meanwhile. On a CPU, requests of one picture side by side are faster
    than batches, so ``max_batch="auto"`` is 1 for models that leave the batch open. A larger batch is compiled as a
    fixed shape, and what is missing in a smaller one is computed and thrown away: compiled for an open batch of up to
    4, yolov8n ran at 59 instead of 78 pictures a second.
    """

    def __init__(self, compiled: ov.CompiledModel, info: ModelInfo, intake: Intake, device: str) -> None:
        self.info = info
        self.max_batch = intake.max_batch
        self.concurrency: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self.description: Mapping[str, str | int] = {
            "kind": "openvino",
            "version": ov.__version__.partition("-")[0],
            "device": device,
            "precision": _precision_name(compiled),
            "requests": self.concurrency,
            "max_batch": intake.max_batch,
        }
        names = tuple(tensor.name for tensor in info.outputs)
        self._pool = SlotPool([_RequestSlot(compiled, intake, names) for _ in range(self.concurrency + 1)])

    @classmethod
    async def open(cls, engine: EngineConfig, model: ModelConfig) -> OpenVinoEngine:
        """Read, compile and warm up a model.

        Raises:
            ModelError: the file cannot be read, or the model's tensors do not suit.
            EngineError: the device or the precision is not to be had here.
        """
        return await yielding(partial(cls._load, engine, model))

    @classmethod
    def _load(cls, engine: EngineConfig, wanted: ModelConfig) -> OpenVinoEngine:
        name, path = wanted.name, wanted.file
        core = ov.Core()
        device = _find_device(core, engine.device)
        properties = _properties(core, device, engine.precision, engine.threads)
        model = _read(core, path)
        inputs = tuple(_tensor_info(port, index, "input") for index, port in enumerate(model.inputs))
        intake = plan_intake(name, inputs, max_batch=engine.max_batch, auto_batch=1, size=wanted.size)
        metadata = _metadata(model)
        settle = partial(settle_pictures, name, pixels=wanted.pixels, fit=wanted.fit, metadata=metadata)
        try:
            _fix_shape(model, intake)
            stated = tuple(_tensor_info(port, index, "output") for index, port in enumerate(model.outputs))
            intake = settle(intake, stated)
            compiled = core.compile_model(_with_uint8_input(model, intake), device, properties)
            outputs = _warm_up(compiled, intake)
        except RuntimeError as exc:
            raise cannot_run(name, path, "OpenVINO", device, intake, _cause(exc)) from exc
        outputs = row_each(intake, outputs)
        check_outputs(name, outputs, intake.max_batch)
        single = tuple(
            TensorInfo(name=tensor.name, dtype=tensor.dtype, shape=(1, *tensor.shape[1:])) for tensor in outputs
        )
        fit = settle(intake, outputs).fit  # by shapes that the graph may leave open
        info = ModelInfo(name=name, size=intake.size, inputs=inputs, outputs=single, metadata=metadata, fit=fit)
        return cls(compiled, info, intake, device)

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
        """Run the first ``count`` pictures of a leased slot; the outputs are views into its request."""
        own = self._pool.claim(slot, count)
        try:
            results = await self._pool.outcome(own, own.start())
        except RuntimeError as exc:
            raise EngineError(f"model {self.info.name}: OpenVINO failed in an inference: {_cause(exc)}") from exc
        return {tensor.name: rows_of(results[tensor.name], tensor, count) for tensor in self.info.outputs}

    async def close(self) -> None:
        """Wait for what is in flight; memory and threads go with the last reference to the engine."""
        await self._pool.settle()


class _RequestSlot(PooledSlot):
    """A slot whose images are the input tensor of an inference request of its own."""

    def __init__(self, compiled: ov.CompiledModel, intake: Intake, names: tuple[str, ...]) -> None:
        super().__init__(np.zeros(intake.slot_shape, dtype=np.uint8))
        self._names = names
        self._loop: asyncio.AbstractEventLoop
        self._answer: Running
        self._check: asyncio.TimerHandle
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(ov.Tensor(self.images, shared_memory=True))
        self._request.infer()  # the first inference of a request allocates
        # The request holds its callback in C++, where no cycle is ever collected: it must not hold the slot.
        finished = weakref.WeakMethod(self._finished)
        self._request.set_callback(lambda _: (call := finished()) and call(), None)

    def start(self) -> Running:
        """Run the images; the future is completed on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._answer = self._loop.create_future()
        self._request.start_async()
        self._check = self._loop.call_later(_FAILURE_CHECK_S, self._look_for_failure)
        self._answer.add_done_callback(lambda _: self._check.cancel())
        return self._answer

    def _finished(self) -> None:
        """On a thread of OpenVINO's: the request is done."""
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        tensors = (self._request.get_output_tensor(index) for index in range(len(self._names)))
        self._answer.set_result({name: tensor.data for name, tensor in zip(self._names, tensors, strict=True)})

    def _look_for_failure(self) -> None:
        try:
            self._request.wait_for(0)
        except RuntimeError as exc:
            self._answer.set_exception(exc)
        else:
            self._check = self._loop.call_later(_FAILURE_CHECK_S, self._look_for_failure)


def _find_device(core: ov.Core, wanted: str) -> str:
    device = "CPU" if wanted == "auto" else wanted.upper()
    available = core.available_devices
    # "GPU" is the first of GPU.0 and GPU.1, and the only GPU is listed without a number.
    if not any(device in (name, name.partition(".")[0]) for name in available):
        raise EngineError(
            f"engine.device: OpenVINO finds no {wanted} here; it has {', '.join(available)}. "
            "Choose one of these, or install the device's driver."
        )
    return device


def _properties(
    core: ov.Core, device: str, precision: Literal["auto", "fp32", "bf16"], threads: int | None
) -> dict[str, Any]:
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT"}
    if device == "CPU" and threads is not None:
        # A share of the processor, then: pinned, the threads of every such process would land on the same first cores.
        properties |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    if precision == "fp32":
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    elif precision == "bf16" or device == "CPU":
        able = "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not able:
            raise EngineError(
                f"engine.precision: bf16 asked for, but {device} ({core.get_property(device, 'FULL_DEVICE_NAME')}) "
                "does not compute in it. Set engine.precision to auto or fp32."
            )
        properties["INFERENCE_PRECISION_HINT"] = "bf16" if able else "f32"
    return properties


def _read(core: ov.Core, path: Path) -> ov.Model:
    if path.suffix not in (".onnx", ".xml"):
        raise ModelError(f"model file {path}: expected .onnx or .xml (OpenVINO IR). Export the model to one of these.")
    if not path.is_file():
        raise ModelError(f"model file {path}: there is no such file. Check model.path.")
    try:
        return core.read_model(path)
    except RuntimeError as exc:
        weights = path.with_suffix(".bin")
        if path.suffix == ".xml" and not weights.is_file():
            raise ModelError(f"model file {path}: its weights, {weights.name}, are not beside it. Copy both.") from exc
        raise ModelError(
            f"model file {path}: OpenVINO cannot read it: {_cause(exc)}. "
            "The file is damaged or of another kind: copy or export it again."
        ) from exc


def _fix_shape(model: ov.Model, intake: Intake) -> None:
    """Give the model one fixed shape."""
    batch, height, width, channels = intake.slot_shape
    model.reshape([batch, channels, height, width] if intake.channels_first else [batch, height, width, channels])


def _with_uint8_input(model: ov.Model, intake: Intake) -> ov.Model:
    """The model taking a slot's images as they are; mean and scale come in the order of its own channels."""
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW" if intake.channels_first else "NHWC"))
    before, pixels = steps.input().preprocess(), intake.pixels
    if pixels.color == "bgr":
        before.reverse_channels()
    if intake.dtype != "uint8":
        before.convert_element_type(ov.Type.f32)
        if any(pixels.mean):
            before.mean(list(pixels.mean))
        divisors = {1 / factor for factor in pixels.scale}
        if divisors != {1.0}:
            before.scale([1 / factor for factor in pixels.scale] if len(divisors) > 1 else divisors.pop())
    return steps.build()


def _warm_up(compiled: ov.CompiledModel, intake: Intake) -> tuple[TensorInfo, ...]:
    """The outputs' real shapes, from one inference of black pictures."""
    request = compiled.create_infer_request()
    images = np.zeros(intake.slot_shape, dtype=np.uint8)  # named, as the request does not keep it alive
    request.set_input_tensor(ov.Tensor(images, shared_memory=True))
    request.infer()
    values = [request.get_output_tensor(index).data for index in range(len(compiled.outputs))]
    return tuple(
        TensorInfo(name=_name(port, index, "output"), dtype=str(value.dtype), shape=value.shape)
        for index, (port, value) in enumerate(zip(compiled.outputs, values, strict=True))
    )


def _tensor_info(port: Any, index: int, role: str) -> TensorInfo:
    shape = port.get_partial_shape()
    sides = () if shape.rank.is_dynamic else tuple(side.get_length() if side.is_static else -1 for side in shape)
    dtype = port.get_element_type()
    readable = dtype.get_type_name() if dtype == ov.Type.bf16 else str(np.dtype(dtype.to_dtype()))
    return TensorInfo(name=_name(port, index, role), dtype=readable, shape=sides)


def _name(port: Any, index: int, role: str) -> str:
    """The port's first name in order, as a set has none; files without names exist."""
    return min(port.get_names(), default=f"{role}{index}")


def _metadata(model: ov.Model) -> dict[str, str]:
    """What the exporter wrote: ``framework`` comes from ONNX files, ``model_info`` from OpenVINO's own."""
    found: dict[str, str] = {}
    for section in ("framework", "model_info"):
        if model.has_rt_info(section):
            values: Mapping[str, Any] = model.get_rt_info()[section]
            found.update((key, value.astype(str)) for key, value in values.items())
    return found


def _precision_name(compiled: ov.CompiledModel) -> str:
    """What most of the arithmetic is done in: int8 where the model was quantised, whatever the rest of it is in."""
    for node in compiled.get_runtime_model().get_ops():
        told = node.get_rt_info()
        if told["layerType"].value in _LAYERS and told["runtimePrecision"].value in ("i8", "u8"):
            return "int8"
    hint: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return {"f32": "fp32", "f16": "fp16"}.get(hint, hint)


def _cause(exc: BaseException) -> str:
    """What an OpenVINO message says, without the places in its source that it passed through."""
    lines = [line.strip() for line in str(exc).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from", "Check "))]
    return " ".join(telling or lines).rstrip(". ")[:300]
