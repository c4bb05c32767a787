"""The slots of a Triton engine: where their pictures, tensors and outputs lie, and the requests that say so.

A slot's input and outputs lie in regions that servers map (system shared memory, or the GPU's for the input), each part
on pages of its own; requests then only name them. The same slot can be sent inline too, to a server that maps
nothing: its request carries the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from streamproc.engines.base import Outputs, TensorInfo
from streamproc.engines.cuda import CudaRegion
from streamproc.engines.intake import Intake
from streamproc.engines.pool import PooledSlot
from streamproc.engines.shared_memory import Layout, SystemRegion, lay_out
from streamproc.engines.triton.served import TRITON_TYPES, Served, nbytes
from streamproc.types import UInt8Array

__all__ = ["Buffers", "Transport", "TritonSlot", "cuda_name"]

Transport: TypeAlias = Literal["cuda", "system", "none"]


class TritonSlot(PooledSlot):
    """A slot; ``number`` is its place in the regions.

    ``tensor`` is the model's input as the server sees it: ``images`` itself where the model takes uint8 pictures with
    the channels last, or else float values that :meth:`Buffers.fill` makes of them.
    """

    def __init__(self, number: int, images: UInt8Array, tensor: NDArray[Any]) -> None:
        super().__init__(images)
        self.number = number
        self.tensor = tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A tensor in a region: ``row_nbytes`` for each picture."""

    tensor: TensorInfo
    row_nbytes: int


class Buffers:
    """The memory of all slots, and its regions.

    Args:
        served: the model.
        outputs: its outputs with the shapes of one real picture, the batch (1) first.
        slots: how many.
        transport: where the memory lies. ``cuda`` puts the input into the GPU's memory, the outputs into the system's.
        model, version, priority, timeout_s: what every request says.

    Raises:
        RegionError: such memory cannot be had here.
    """

    def __init__(
        self,
        served: Served,
        outputs: Sequence[TensorInfo],
        *,
        slots: int,
        transport: Transport,
        model: str,
        version: str,
        priority: int | None,
        timeout_s: float,
    ) -> None:
        self.transport = transport
        self.system: SystemRegion | None = None
        self.cuda: CudaRegion | None = None
        self._intake = served.intake
        self._input = _Part(tensor=served.inputs[0], row_nbytes=nbytes(_row_shape(served.intake), served.intake.dtype))
        self._outputs = [_Part(tensor=tensor, row_nbytes=nbytes(tensor.shape[1:], tensor.dtype)) for tensor in outputs]
        self._inline_outputs: set[str] = set()
        self._prepared: dict[tuple[int, int], service_pb2.ModelInferRequest] = {}
        self._base = service_pb2.ModelInferRequest(model_name=model, model_version=version)
        if priority is not None:
            self._base.parameters["priority"].uint64_param = priority
        # Heeded where the model's queue policy allows it: a request that waited longer is turned away, not run.
        self._base.parameters["timeout"].int64_param = round(timeout_s * 1e6)
        self._input_layout, self._output_layout = self._make_regions(slots)
        self.slots = [self._make_slot(number) for number in range(slots)]

    @classmethod
    def inline(cls, served: Served, *, model: str, version: str, timeout_s: float) -> Buffers:
        """One slot outside of any region, to ask a model whose outputs are not known yet."""
        return cls(
            served, (), slots=1, transport="none", model=model, version=version, priority=None, timeout_s=timeout_s
        )

    def _make_regions(self, slots: int) -> tuple[Layout, Layout]:
        rows = self._intake.max_batch
        taken = [rows * self._input.row_nbytes]
        given = [rows * part.row_nbytes for part in self._outputs]
        if self.transport == "cuda":
            inputs, outputs = lay_out(taken, slots), lay_out(given, slots)
            self.cuda = CudaRegion.create(inputs.size)
            try:
                self.system = SystemRegion.create(outputs.size)
            except BaseException:
                self.cuda.close()
                raise
            return inputs, outputs
        both = lay_out([*taken, *given], slots)
        if self.transport == "system":
            self.system = SystemRegion.create(both.size)
        return both, Layout(size=both.size, offsets=tuple(offsets[1:] for offsets in both.offsets))

    def _make_slot(self, number: int) -> TritonSlot:
        shape = (self._intake.max_batch, *_row_shape(self._intake))
        offset = self._input_layout.offsets[number][0]
        tensor: NDArray[Any]
        if self.cuda is not None:
            tensor = self.cuda.staging(offset, shape, self._intake.dtype)
        elif self.system is not None:
            tensor = self.system.array(offset, shape, self._intake.dtype)
        else:
            tensor = np.zeros(shape, dtype=self._intake.dtype)
        intake = self._intake
        as_it_is = intake.dtype == "uint8" and not intake.channels_first and intake.pixels.color == "rgb"
        images = tensor if as_it_is else np.zeros(self._intake.slot_shape, dtype=np.uint8)
        return TritonSlot(number, images, tensor)

    @property
    def must_fill(self) -> bool:
        """Whether :meth:`fill` has something to do."""
        slot = self.slots[0]
        return self.cuda is not None or slot.tensor is not slot.images

    def fill(self, slot: TritonSlot, count: int) -> None:
        """Make the tensor of the first ``count`` images, and take it to the GPU. For a worker thread: it computes."""
        rows = self._rows(count)
        if slot.tensor is not slot.images:
            images = slot.images[:rows]
            if self._intake.pixels.color == "bgr":
                images = images[..., ::-1]
            if self._intake.channels_first:
                images = images.transpose(0, 3, 1, 2)
            if self._intake.dtype == "uint8":
                slot.tensor[:rows] = images
            else:
                self._scale(images, slot.tensor[:rows])
        if self.cuda is not None:
            self.cuda.upload(self._input_layout.offsets[slot.number][0], rows * self._input.row_nbytes)

    def _scale(self, images: UInt8Array, out: NDArray[Any]) -> None:
        """One pass over the strided pictures, or two: 0.6 ms for 640 x 640, where cv2.dnn.blobFromImage takes 3.9."""
        mean, scale = (self._by_channel(numbers) for numbers in (self._intake.pixels.mean, self._intake.pixels.scale))
        if mean.any():
            np.subtract(images, mean, out=out, casting="same_kind")
            np.multiply(out, scale, out=out, casting="same_kind")
        else:
            np.multiply(images, scale, out=out, casting="same_kind")

    def _by_channel(self, numbers: tuple[float, float, float]) -> NDArray[np.float32]:
        """To compute with a batch of pictures: one number where all are equal."""
        if len(set(numbers)) == 1:
            return np.array(numbers[0], dtype=np.float32)
        shape = (3, 1, 1) if self._intake.channels_first else (3,)
        return np.array(numbers, dtype=np.float32).reshape(shape)

    def request(self, slot: TritonSlot, count: int, transport: Transport) -> service_pb2.ModelInferRequest:
        """The request for the first ``count`` pictures; with ``none`` it carries them."""
        rows = self._rows(count)
        if transport == "none":
            request = service_pb2.ModelInferRequest()
            request.CopyFrom(self._base)
            request.inputs.append(_tensor(self._input.tensor, (rows, *_row_shape(self._intake))))
            request.raw_input_contents.append(slot.tensor[:rows].tobytes())
            return request
        prepared = self._prepared.get((slot.number, rows))
        if prepared is None:
            prepared = self._prepared[slot.number, rows] = self._prepare(slot, rows)
        return prepared

    def _prepare(self, slot: TritonSlot, rows: int) -> service_pb2.ModelInferRequest:
        assert self.system is not None
        request = service_pb2.ModelInferRequest()
        request.CopyFrom(self._base)
        tensor = _tensor(self._input.tensor, (rows, *_row_shape(self._intake)))
        region = self.system.name if self.cuda is None else cuda_name(self.system.name)
        offset = self._input_layout.offsets[slot.number][0]
        _place(tensor.parameters, region, offset, rows * self._input.row_nbytes)
        request.inputs.append(tensor)
        for part, offset in zip(self._outputs, self._output_layout.offsets[slot.number], strict=True):
            wanted = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=part.tensor.name)
            if part.tensor.name not in self._inline_outputs:
                _place(wanted.parameters, self.system.name, offset, rows * part.row_nbytes)
            request.outputs.append(wanted)
        return request

    def read(
        self,
        slot: TritonSlot,
        count: int,
        request: service_pb2.ModelInferRequest,
        answer: service_pb2.ModelInferResponse,
    ) -> Outputs:
        """The outputs of an answer by name, ``count`` rows each: views into the slot, or into the answer.

        Raises:
            ValueError: an output is missing, has another type, or fewer rows than it should.
        """
        placed = {wanted.name for wanted in request.outputs if wanted.parameters}
        given = {tensor.name: (tensor, index) for index, tensor in enumerate(answer.outputs)}
        found: dict[str, NDArray[Any]] = {}
        for part, offset in zip(self._outputs, self._output_layout.offsets[slot.number], strict=True):
            name, dtype = part.tensor.name, part.tensor.dtype
            if name not in given:
                raise ValueError(f"its answer lacks the output {name}")
            tensor, index = given[name]
            shape = tuple(tensor.shape)
            if tensor.datatype != TRITON_TYPES[dtype] or not shape or shape[0] < count:
                expected = f"{TRITON_TYPES[dtype]} {(count, *part.tensor.shape[1:])}"
                raise ValueError(f"its output {name} is {tensor.datatype} {shape}; expected {expected}")
            if name in placed:
                assert self.system is not None
                found[name] = self.system.array(offset, shape, dtype)[:count]
            else:
                found[name] = np.frombuffer(answer.raw_output_contents[index], dtype).reshape(shape)[:count]
        return found

    def outgrown(self, request: service_pb2.ModelInferRequest) -> bool:
        """Take outputs within the answer from now on; whether that is another way than this request's.

        For when the server finds a slot too small: the model gives more for some pictures than for a black one.
        """
        if not self._inline_outputs:
            self._inline_outputs = {part.tensor.name for part in self._outputs}
            self._prepared.clear()
        return any(wanted.parameters for wanted in request.outputs)

    def close(self) -> None:
        """Give the regions back. Views stay valid memory."""
        for region in (self.cuda, self.system):
            if region is not None:
                region.close()

    def _rows(self, count: int) -> int:
        return count if self._intake.open_batch else self._intake.max_batch


def cuda_name(system_name: str) -> str:
    """What the GPU's region is registered as: told by the system's, so that a dead process's can be found."""
    return f"{system_name}-cuda"


def _row_shape(intake: Intake) -> tuple[int, int, int]:
    width, height = intake.size
    return (3, height, width) if intake.channels_first else (height, width, 3)


def _tensor(info: TensorInfo, shape: tuple[int, ...]) -> service_pb2.ModelInferRequest.InferInputTensor:
    return service_pb2.ModelInferRequest.InferInputTensor(
        name=info.name, datatype=TRITON_TYPES[info.dtype], shape=shape
    )


def _place(parameters: Mapping[str, Any], region: str, offset: int, size: int) -> None:
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        parameters["shared_memory_offset"].int64_param = offset
